"""Whether prompts are taken: by hand or by itself, for a time, at once or after the jobs of the moment.

A timed pause is measured on a clock that nobody sets: an hour is an hour, whatever happens to the time of day meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from fabstir_desktop.jobs.clocks import elapsed_s
from fabstir_desktop.jobs.diagnosis import describe_state
from fabstir_desktop.jobs.generation import EngineStatus
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import PauseKind, ServerStatus, ServingState


class Gate(Protocol):
    """What is needed of the server."""

    @property
    def status(self) -> ServerStatus:
        """Who is connected and what runs."""
        ...

    def pause(self) -> None:
        """Take no new prompts; running ones end."""
        ...

    def finish_jobs(self) -> None:
        """Take no new sessions; those that are open go on."""
        ...

    def resume(self) -> None:
        """Take everything again."""
        ...


class Serving:
    """The serving state and its pauses. `changed` is called after each change."""

    def __init__(
        self,
        changed: Callable[[], None],
        *,
        elapsed: Callable[[], float] = elapsed_s,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._changed = changed
        self._elapsed = elapsed
        self._wall = wall
        self._gate: Gate | None = None
        self._ends_at: float | None = None
        self._kind = PauseKind.NOW
        self.state = ServingState.STOPPED
        self.reason = ""
        """Why it pauses by itself; empty if it does not."""

    def attach(self, gate: Gate) -> None:
        """The server that is opened and closed."""
        self._gate = gate

    def enter(self, state: ServingState) -> None:
        """The node starts, serves, drains or stops."""
        self.state = state
        self._changed()

    def pause(self, duration_s: float | None = None, *, reason: str = "", kind: PauseKind = PauseKind.NOW) -> None:
        """Take no new prompts (AFTER_JOBS: no new sessions until those of now are over); None lasts until resumed."""
        self.reason, self._kind = reason, kind
        self._ends_at = self._elapsed() + duration_s if duration_s is not None else None
        if self._gate is not None:
            self._gate.finish_jobs() if kind is PauseKind.AFTER_JOBS else self._gate.pause()
        self.enter(ServingState.PAUSED if kind is PauseKind.NOW else ServingState.DRAINING)
        self.look()

    def resume(self) -> None:
        """Take prompts again."""
        self._ends_at, self.reason, self._kind = None, "", PauseKind.NOW
        if self._gate is not None:
            self._gate.resume()
        self.enter(ServingState.SERVING)

    def look(self) -> None:
        """Go on to the next state if its time has come; called twice a second."""
        if self._ends_at is not None and self._elapsed() >= self._ends_at:
            self.resume()
        elif self.state is ServingState.DRAINING and self._kind is PauseKind.AFTER_JOBS and not self.open_jobs:
            self.pause(reason=self.reason)

    def describe(self, engine: EngineStatus, problems: Sequence[Problem], *, submitting: bool) -> str:
        """One line: what the host does now."""
        ends = self.resume_at
        is_waiting = self.state is ServingState.DRAINING and self._kind is PauseKind.AFTER_JOBS
        return describe_state(
            self.state,
            engine=engine,
            submitting=submitting,
            active_requests=self._gate.status.active_requests if self._gate is not None else 0,
            problems=problems,
            resume_clock=time.strftime("%H:%M", time.localtime(ends)) if ends is not None else None,
            pause_reason=self.reason,
            jobs_before_pause=self.open_jobs if is_waiting else None,
        )

    @property
    def open_jobs(self) -> int:
        """Sessions that are not over, or prompts if there are more of them."""
        if self._gate is None:
            return 0
        status = self._gate.status
        return max(status.sessions, status.active_requests + status.queued_requests)

    @property
    def resume_at(self) -> float | None:
        """When a timed pause ends, as the wall clock shows it now (seconds since the epoch); None without one."""
        return None if self._ends_at is None else self._wall() + max(0.0, self._ends_at - self._elapsed())
