"""Two clocks held against each other: tells a machine that slept, or a process that stood still, from a clock that was set.

The wall clock can be set by hand, by the network or by daylight saving; it is for what people read. Whatever lasts is
measured on a clock that nobody sets and that goes on while the machine sleeps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

LATE_S = 20.0
"""A look that comes this much too late: nothing ran in between."""
JUMP_S = 5.0
"""A wall clock that gained or lost this much between two looks was set."""


# time.monotonic() stands still during sleep on Linux and macOS; Windows' counts it.
_COUNTS_SLEEP: int | None = getattr(
    time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None) if sys.platform == "darwin" else None
)


class Cause(StrEnum):
    """What happened between two looks."""

    AWAY = "away"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Gap:
    """`seconds` is how long nothing ran (AWAY), or by how much the wall clock was set, backwards below zero (CLOCK)."""

    cause: Cause
    seconds: float


def elapsed_s() -> float:
    """Seconds on a clock that is never set and counts sleep too, from an arbitrary beginning."""
    return time.monotonic() if _COUNTS_SLEEP is None else time.clock_gettime(_COUNTS_SLEEP)


class ClockWatch:
    """Looks at both clocks from time to time."""

    def __init__(
        self, every_s: float, *, elapsed: Callable[[], float] = elapsed_s, wall: Callable[[], float] = time.time
    ) -> None:
        """`every_s`: how far apart the looks are when nothing happens."""
        self._every_s = every_s
        self._elapsed = elapsed
        self._wall = wall
        self._last = (elapsed(), wall())

    def look(self) -> Gap | None:
        """What happened since the last look, if anything did."""
        now = (self._elapsed(), self._wall())
        passed, shown = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        if passed > self._every_s + LATE_S:
            return Gap(Cause.AWAY, passed)
        if abs(shown - passed) > JUMP_S:
            return Gap(Cause.CLOCK, shown - passed)
        return None
