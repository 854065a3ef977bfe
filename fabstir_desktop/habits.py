"""What the host does by itself: pauses outside the serving hours and on battery, and keeps the machine awake for requests.

What the host does by hand is stronger: a pause by hand stays, and who resumes during an automatic pause is not paused again
for the same cause until that cause has ended once.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import psutil

from fabstir_desktop import allocator
from fabstir_desktop.awake import Awake
from fabstir_desktop.errors import FabstirError
from fabstir_desktop.jobs.serving_hours import PauseCause, decide_pause, parse_serving_hours
from fabstir_desktop.jobs.status import NodeStatus, PauseKind, ServingState
from fabstir_desktop.settings import Settings
from fabstir_desktop.tasks import OwnTasks

log = logging.getLogger(__name__)

LOOK_S = 5.0
_FIRST_TIDY_S = 5.0
_TIDY_S = 60.0


class PausableNode(Protocol):
    """What is needed of the node."""

    settings: Settings

    @property
    def serving_state(self) -> ServingState:
        """Whether prompts are taken."""
        ...

    @property
    def status(self) -> NodeStatus:
        """What runs now."""
        ...

    @property
    def pause_reason(self) -> str:
        """Why it pauses by itself; empty if it does not."""
        ...

    async def pause(
        self, duration_s: float | None = None, *, reason: str = "", kind: PauseKind = PauseKind.NOW
    ) -> None:
        """Take no new prompts."""
        ...

    async def resume(self) -> None:
        """Take prompts again."""
        ...


def is_on_battery() -> bool:
    """Whether the computer draws from its battery; False where there is none or nothing tells."""
    look = getattr(psutil, "sensors_battery", None)
    try:
        battery = look() if look is not None else None
    except (OSError, RuntimeError, NotImplementedError):
        return False
    return battery is not None and battery.power_plugged is False


class Habits:
    """Pauses and resumes the node as its settings say."""

    def __init__(
        self,
        node: PausableNode,
        *,
        on_battery: Callable[[], bool] = is_on_battery,
        now: Callable[[], datetime] = datetime.now,
        awake: Awake | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        self._node = node
        self._on_battery = on_battery
        self._now = now
        self._look_s = look_s
        self._awake = awake or Awake()
        self._hours = parse_serving_hours(node.settings.serving_hours)
        self._cause: PauseCause | None = None
        self._tasks = OwnTasks()

    @property
    def is_keeping_awake(self) -> bool:
        """Whether the machine is kept from sleeping just now."""
        return self._awake.is_held

    def start(self) -> None:
        """Begin to look, if a setting asks for it, and to give back memory that is free."""
        self._tasks.start(_keep_tidy(), "memory")
        settings = self._node.settings
        if self._hours or settings.pause_on_battery or settings.keep_awake:
            self._tasks.start(self._keep_looking(), "habits")

    async def stop(self) -> None:
        """Look no more. Safe to call twice."""
        await self._tasks.finish(0)
        await _off_the_loop(self._awake.release)

    async def look(self) -> None:
        """Pause or resume if a cause has begun or ended since the last look; keep awake while requests run."""
        is_busy = self._node.status.server.active_requests > 0
        if self._node.settings.keep_awake and is_busy and not self._awake.is_held:
            await _off_the_loop(self._awake.hold)
        elif self._awake.is_held and not is_busy:
            await _off_the_loop(self._awake.release)
        await self._look_for_causes()

    async def _look_for_causes(self) -> None:
        wants_battery = self._node.settings.pause_on_battery
        on_battery = wants_battery and await asyncio.to_thread(self._on_battery)
        due = decide_pause(self._now(), self._hours, pause_on_battery=wants_battery, on_battery=on_battery)
        cause = due.cause if due else None
        if cause is self._cause:
            return
        self._cause = cause
        is_ours = self._node.serving_state is ServingState.PAUSED and bool(self._node.pause_reason)
        if due is None:
            if is_ours:
                log.info("Serving again: the cause of the automatic pause is gone")
                await self._node.resume()
        elif is_ours or self._node.serving_state is ServingState.SERVING:
            log.info("Pausing: %s", due.reason)
            await self._node.pause(due.duration_s, reason=due.reason)

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look()
            except FabstirError as error:
                log.warning("the automatic pause: %s", error)
            await asyncio.sleep(self._look_s)


async def _off_the_loop(work: Callable[[], None]) -> None:
    """Processes start and end in their own time; on Windows it is a quick call that belongs to one thread."""
    if sys.platform == "win32":
        work()
    else:
        await asyncio.to_thread(work)


async def _keep_tidy() -> None:
    """Give free memory back: soon, for much of it is what the imports left, and then from time to time."""
    await asyncio.sleep(_FIRST_TIDY_S)
    while True:
        await asyncio.to_thread(allocator.give_back)
        await asyncio.sleep(_TIDY_S)
