"""Jobs that should be claimed: why, not before when, and what stood in the way last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from fabstir_desktop.jobs.claims import ClaimReason

log = logging.getLogger(__name__)

STRENGTH = {
    ClaimReason.THRESHOLD: 0,
    ClaimReason.EXPOSURE: 1,
    ClaimReason.DEADLINE: 2,
    ClaimReason.RECOVERY: 3,
    ClaimReason.SESSION_END: 4,
    ClaimReason.FORCED: 5,
}
"""Of two reasons for one job the stronger counts."""


@dataclass(slots=True)
class Due:
    """A job that should be claimed, and not before `retry_at` (of the list's clock)."""

    reason: ClaimReason
    retry_at: float = 0.0
    why: str = ""
    is_resting: bool = False
    asked: int = 1
    """How often it was asked for: an attempt that began before the last time does not answer it."""


class DueList:
    """The jobs that are due. Belongs to one loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[int, Due] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job_id: int, reason: ClaimReason) -> bool:
        """A job has something to claim; returns whether that changes what is to be done next."""
        known = self._entries.get(job_id)
        if known is None:
            self._entries[job_id] = Due(reason)
            return True
        known.asked += 1
        if STRENGTH[reason] <= STRENGTH[known.reason]:
            return False
        known.reason, known.retry_at = reason, 0.0
        return True

    def get(self, job_id: int) -> Due | None:
        """The job's entry."""
        return self._entries.get(job_id)

    def asked(self, job_id: int) -> int:
        """How often the job was asked for: hand it to `answer` when the attempt is over."""
        entry = self._entries.get(job_id)
        return entry.asked if entry is not None else 0

    def answer(self, job_id: int, asked: int) -> Due | None:
        """An attempt is over: the job is no longer due, unless it was asked for again meanwhile. Returns its entry."""
        entry = self._entries.get(job_id)
        if entry is not None and entry.asked == asked:
            del self._entries[job_id]
        return entry

    def postpone(self, job_id: int, reason: ClaimReason, retry_s: float, why: str) -> None:
        """Try again later; a new cause is logged once."""
        entry = self._entries.setdefault(job_id, Due(reason))
        if entry.why != why:
            log.warning("Job %d is claimed later: %s", job_id, why)
        entry.why = why
        entry.retry_at, entry.is_resting = self._clock() + retry_s, False

    def rest(self, pause_s: float) -> None:
        """What is ready waits, for no fault of its own; `end_rest` ends it earlier."""
        now = self._clock()
        for entry in self._entries.values():
            if entry.retry_at <= now:
                entry.retry_at, entry.is_resting = now + pause_s, True

    def end_rest(self) -> None:
        """What only rested is ready again."""
        for entry in self._entries.values():
            if entry.is_resting:
                entry.retry_at, entry.is_resting = 0.0, False

    def ready(self) -> list[int]:
        """Jobs whose time has come."""
        now = self._clock()
        return [job_id for job_id, entry in self._entries.items() if entry.retry_at <= now]

    def is_waiting(self, job_id: int) -> bool:
        """Whether the job is due, but later."""
        entry = self._entries.get(job_id)
        return entry is not None and entry.retry_at > self._clock()

    def retry_now(self) -> None:
        """A cause may be gone: nothing waits."""
        for entry in self._entries.values():
            entry.retry_at = 0.0

    def next_in_s(self) -> float | None:
        """Seconds until the next job's time; None if none is due."""
        if not self._entries:
            return None
        return max(0.0, min(entry.retry_at for entry in self._entries.values()) - self._clock())
