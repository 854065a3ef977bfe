"""Tokens per second of each job, measured over the last seconds."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 5.0
_MARKS_KEPT = 512


class RateMeter:
    """Count tokens as they come; the rate falls to nothing when no more do."""

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._window_s = window_s
        self._marks_by_job: dict[int, deque[tuple[float, int]]] = {}

    def add(self, job_id: int, tokens: int, now: float) -> None:
        """Note that `tokens` of the job came at `now` (monotonic seconds)."""
        self._marks_by_job.setdefault(job_id, deque(maxlen=_MARKS_KEPT)).append((now, tokens))

    def rates(self, now: float) -> dict[int, float]:
        """Tokens per second by job; jobs that rest are left out and forgotten."""
        found: dict[int, float] = {}
        for job_id, marks in list(self._marks_by_job.items()):
            while marks and now - marks[0][0] > self._window_s:
                marks.popleft()
            if not marks:
                del self._marks_by_job[job_id]
                continue
            span = max(now - marks[0][0], 1.0)
            found[job_id] = sum(tokens for _, tokens in marks) / span
        return found
