"""Publish and subscribe for typed events, within one loop.

Every room may publish; ui, cli and metrics subscribe. A subscriber is called at once and synchronously, so it must be
quick (store, mark dirty); whoever draws or writes does so later, at its own pace. A subscriber that raises is logged and
does not disturb the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar, cast

from fabstir_desktop.jobs.events import Event

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)


class Feed:
    """Deliver events to those who asked for their type."""

    def __init__(self) -> None:
        self._subscribers: dict[type[Event], list[Callable[[Event], None]]] = {}

    def subscribe(self, event_type: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Call `callback` with each event of `event_type` (or a subclass); returns the function that ends it."""
        untyped = cast("Callable[[Event], None]", callback)
        self._subscribers.setdefault(event_type, []).append(untyped)

        def unsubscribe() -> None:
            callbacks = self._subscribers.get(event_type, [])
            if untyped in callbacks:
                callbacks.remove(untyped)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Deliver `event` to every subscriber of its type and of the types above it."""
        for event_type in type(event).__mro__:
            for callback in tuple(self._subscribers.get(event_type, ())):
                try:
                    callback(event)
                except Exception:
                    log.exception("a subscriber of %s failed", type(event).__name__)
