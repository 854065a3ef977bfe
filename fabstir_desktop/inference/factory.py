"""Which engine the settings ask for."""

from __future__ import annotations

from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.options import EngineOptions
from fabstir_desktop.inference.remote import RemoteEngine
from fabstir_desktop.jobs.generation import Engine
from fabstir_desktop.settings import Settings


def engine_for(settings: Settings, feed: Feed) -> Engine:
    """A remote engine where `engine_url` is set, else the local model in a process of its own. Not started yet."""
    if settings.engine_url:
        return RemoteEngine(settings.engine_url, feed, parallel=settings.max_parallel)
    return EngineClient(EngineOptions.from_settings(settings), feed)
