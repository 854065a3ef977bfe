"""When a host serves by itself and when it pauses by itself: pure decisions about hours of the day and the battery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

_DAY_MIN = 24 * 60


class PauseCause(StrEnum):
    """Why the host pauses by itself."""

    BATTERY = "battery"
    HOURS = "hours"


@dataclass(frozen=True, slots=True)
class AutomaticPause:
    """A pause nobody asked for by hand: its cause, the cause as words, and the seconds it lasts (None: not known)."""

    cause: PauseCause
    reason: str
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class ServingHours:
    """A span of the day in minutes after midnight; one whose end is not after its start passes midnight."""

    start_min: int
    end_min: int

    def covers(self, minute: float) -> bool:
        """Whether the minute of the day lies in it."""
        if self.start_min < self.end_min:
            return self.start_min <= minute < self.end_min
        return minute >= self.start_min or minute < self.end_min


def parse_serving_hours(spans: Sequence[str]) -> tuple[ServingHours, ...]:
    """Read spans such as `22:00-07:00`. Raises ValueError for anything else."""
    found = []
    for span in spans:
        start, _, end = span.partition("-")
        found.append(ServingHours(_minutes(start), _minutes(end)))
    return tuple(found)


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.strip().partition(":")
    return int(hours) * 60 + int(minutes)


def decide_pause(
    now: datetime, hours: Sequence[ServingHours], *, pause_on_battery: bool, on_battery: bool
) -> AutomaticPause | None:
    """The pause that is due now (local time); None if the host may serve. No hours: every hour is one for serving."""
    if pause_on_battery and on_battery:
        return AutomaticPause(
            PauseCause.BATTERY, "the computer runs on battery; serving goes on with mains power", None
        )
    minute = now.hour * 60 + now.minute + now.second / 60
    if not hours or any(span.covers(minute) for span in hours):
        return None
    return AutomaticPause(PauseCause.HOURS, "outside the serving hours", _seconds_to_next(now, hours))


def _seconds_to_next(now: datetime, hours: Sequence[ServingHours]) -> float:
    """Until the next span begins, by the wall clock: a day with 23 or 25 hours is counted right if `now` has a zone."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [midnight + timedelta(minutes=span.start_min % _DAY_MIN, days=days) for span in hours for days in (0, 1)]
    return min((start - now).total_seconds() for start in starts if start > now)
