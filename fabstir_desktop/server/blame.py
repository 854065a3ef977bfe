"""Who asked when the model process died, again and again: held off for a while, so that one client cannot end serving. Pure.

The engine remembers prompts that killed it, but one changed letter makes another prompt of it. A client is remembered whatever
it writes. Only requests that had no token yet are under suspicion: reading prompts is what kills a worker.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from fabstir_desktop.server.session import PromptRequest

FAULTS: Final = 3
"""So many within `FAULTS_WITHIN_S` are no accident; fewer than make the engine give up."""
FAULTS_WITHIN_S: Final = 600.0
HELD_S: Final = 600.0
_REMEMBERED: Final = 1024


class Blame:
    """Counts deaths of the worker by client and job. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._faults_s: dict[str, deque[float]] = {}

    def note(self, request: PromptRequest, now_s: float) -> None:
        """The worker died while it read this request's prompt."""
        for name in _names_of(request):
            faults = self._faults_s.pop(name, None) or deque(maxlen=FAULTS)
            faults.append(now_s)
            self._faults_s[name] = faults  # at the end: the oldest are forgotten first
        while len(self._faults_s) > _REMEMBERED:
            del self._faults_s[next(iter(self._faults_s))]

    def held_s(self, request: PromptRequest, now_s: float) -> float:
        """For how long the request's client or job is still held off; 0 if it is not."""
        return max(self._held_s(name, now_s) for name in _names_of(request))

    def _held_s(self, name: str, now_s: float) -> float:
        faults = self._faults_s.get(name)
        if faults is None or len(faults) < FAULTS or faults[-1] - faults[0] > FAULTS_WITHIN_S:
            return 0.0
        return max(0.0, faults[-1] + HELD_S - now_s)


def _names_of(request: PromptRequest) -> list[str]:
    """A program of this machine that pays is known by its job alone: many clients may stand behind it."""
    names = [] if request.job_id is None else [f"job {request.job_id}"]
    if not names or not request.peer.is_loopback:
        names.append(f"client {request.peer.group}")
    return names
