"""Which engine the settings ask for, and whether the server they name can be used."""

from __future__ import annotations

import asyncio

from fabstir_desktop.errors import ModelUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.openai_api import ServerAddress
from fabstir_desktop.inference.options import EngineOptions
from fabstir_desktop.inference.remote import RemoteEngine
from fabstir_desktop.jobs.generation import Engine, GenerationRequest, Message, SamplingParameters
from fabstir_desktop.settings import Settings

_SAMPLE = GenerationRequest("sample", (Message("user", "Say hello."),), 1, SamplingParameters())


def engine_for(settings: Settings, feed: Feed) -> Engine:
    """A remote engine where `engine_url` is set, else the local model in a process of its own. Not started yet."""
    if settings.engine_url:
        return _remote(settings, settings.engine_url, feed)
    return EngineClient(EngineOptions.from_settings(settings), feed)


async def describe_server(settings: Settings, *, limit_s: float) -> str:
    """Ask the server of `engine_url` for its model and for one token; a sentence about it.

    Raises ModelUnavailable if it does not answer within `limit_s`, or does not count what it makes; another GenerationError if it
    refuses the request.
    """
    engine = _remote(settings, settings.engine_url or "", Feed())
    try:
        async with asyncio.timeout(limit_s):
            await engine.look()
            async for _ in engine.generate(_SAMPLE):
                pass
    except TimeoutError:
        raise ModelUnavailable(f"the server gives no token within {limit_s:.0f} s") from None
    finally:
        model = engine.status.model
        await engine.stop()
    if model is None:
        raise ModelUnavailable("the server is gone again")
    return f"{model.name} at {model.path}, window {model.context_window} tokens, it counts what it makes"


def _remote(settings: Settings, url: str, feed: Feed) -> RemoteEngine:
    return RemoteEngine(
        ServerAddress.of(url, settings.engine_api_key),
        feed,
        parallel=settings.max_parallel,
        model=settings.engine_model,
        context_window=settings.context_window,
    )
