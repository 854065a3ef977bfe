"""Pauses: for a time that no clock change stretches, after the jobs of now, or to stop; and what the two clocks tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fabstir_desktop.jobs.clocks import Cause, ClockWatch, Gap
from fabstir_desktop.jobs.diagnosis import describe_gap
from fabstir_desktop.jobs.generation import EngineState, EngineStatus
from fabstir_desktop.jobs.status import PauseKind, ServerStatus, ServingState
from fabstir_desktop.serving import Serving

HOUR_S = 3600.0
NOON = 1_780_000_000.0
ENGINE = EngineStatus(
    state=EngineState.READY, detail="", model=None, active_streams=0, queued_requests=0, parallel_streams=8,
    tokens_per_second=0.0, load_progress=1.0, restarts=0, worker_pid=None,
)  # fmt: skip


class Clocks:
    """A clock that runs and one that can be set."""

    def __init__(self) -> None:
        self.elapsed, self.wall = 1000.0, NOON

    def pass_by(self, seconds: float) -> None:
        self.elapsed += seconds
        self.wall += seconds


class PlayedGate:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = ServerStatus("ws://x", connections=1, sessions=0, active_requests=0, queued_requests=0)

    def pause(self) -> None:
        self.calls.append("pause")

    def finish_jobs(self) -> None:
        self.calls.append("finish_jobs")

    def resume(self) -> None:
        self.calls.append("resume")


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def gate() -> PlayedGate:
    return PlayedGate()


@pytest.fixture
def serving(clocks: Clocks, gate: PlayedGate) -> Serving:
    made = Serving(lambda: None, elapsed=lambda: clocks.elapsed, wall=lambda: clocks.wall)
    made.attach(gate)
    made.enter(ServingState.SERVING)
    return made


# --- timed pauses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-3 * HOUR_S, 3 * HOUR_S, 0.0])
def test_an_hours_pause_lasts_an_hour_however_the_clock_is_set_meanwhile(
    serving: Serving, clocks: Clocks, jump_s: float
) -> None:
    serving.pause(HOUR_S)
    clocks.pass_by(600)
    clocks.wall += jump_s
    serving.look()
    assert serving.state is ServingState.PAUSED
    clocks.pass_by(HOUR_S - 601)
    serving.look()
    assert serving.state is ServingState.PAUSED
    clocks.pass_by(2)
    serving.look()
    assert serving.state is ServingState.SERVING


def test_the_end_of_a_pause_is_told_in_the_time_that_the_clock_shows_now(serving: Serving, clocks: Clocks) -> None:
    serving.pause(HOUR_S)
    assert serving.resume_at == NOON + HOUR_S
    clocks.wall += 2 * HOUR_S
    assert serving.resume_at == NOON + 3 * HOUR_S
    serving.resume()
    assert serving.resume_at is None


# --- after the jobs of now ------------------------------------------------------------------------------------------


def test_a_pause_after_jobs_lets_them_end_and_then_pauses(serving: Serving, gate: PlayedGate) -> None:
    gate.status = replace(gate.status, sessions=2, active_requests=1)
    serving.pause(kind=PauseKind.AFTER_JOBS)
    assert serving.state is ServingState.DRAINING
    assert serving.describe(ENGINE, (), submitting=True) == "Finishing 2 jobs, then pausing"
    gate.status = replace(gate.status, sessions=1, active_requests=0)
    serving.look()
    assert serving.describe(ENGINE, (), submitting=True) == "Finishing 1 job, then pausing"
    gate.status = replace(gate.status, sessions=0)
    serving.look()
    assert serving.state is ServingState.PAUSED
    assert gate.calls == ["finish_jobs", "pause"]


def test_with_no_job_the_pause_begins_at_once(serving: Serving) -> None:
    serving.pause(kind=PauseKind.AFTER_JOBS)
    assert serving.state is ServingState.PAUSED


def test_a_pause_after_jobs_can_be_taken_back(serving: Serving, gate: PlayedGate) -> None:
    gate.status = replace(gate.status, sessions=1)
    serving.pause(kind=PauseKind.AFTER_JOBS)
    serving.resume()
    gate.status = replace(gate.status, sessions=0)
    serving.look()
    assert serving.state is ServingState.SERVING
    assert gate.calls[-1] == "resume"


def test_a_pause_to_stop_says_so_and_does_not_turn_into_a_pause(serving: Serving, gate: PlayedGate) -> None:
    gate.status = replace(gate.status, sessions=1, active_requests=1)
    serving.pause(kind=PauseKind.TO_STOP)
    assert serving.describe(ENGINE, (), submitting=True) == "Finishing 1 request, then stopping"
    gate.status = replace(gate.status, sessions=0, active_requests=0)
    serving.look()
    assert serving.state is ServingState.DRAINING


# --- the two clocks -------------------------------------------------------------------------------------------------


@pytest.fixture
def watch(clocks: Clocks) -> ClockWatch:
    return ClockWatch(0.5, elapsed=lambda: clocks.elapsed, wall=lambda: clocks.wall)


def test_ordinary_time_is_nothing_to_tell(watch: ClockWatch, clocks: Clocks) -> None:
    for passed_s in (0.5, 0.7, 3.0, 0.5):
        clocks.pass_by(passed_s)
        assert watch.look() is None


def test_a_sleep_is_told_once_with_its_length(watch: ClockWatch, clocks: Clocks) -> None:
    clocks.pass_by(2460)
    assert watch.look() == Gap(Cause.AWAY, 2460)
    clocks.pass_by(0.5)
    assert watch.look() is None


@pytest.mark.parametrize("jump_s", [-10_800.0, 10_800.0, 6.0])
def test_a_clock_that_was_set_is_no_sleep(watch: ClockWatch, clocks: Clocks, jump_s: float) -> None:
    clocks.pass_by(0.5)
    clocks.wall += jump_s
    gap = watch.look()
    assert gap is not None
    assert (gap.cause, round(gap.seconds)) == (Cause.CLOCK, round(jump_s))


def test_gaps_are_told_in_words() -> None:
    told = describe_gap(Gap(Cause.AWAY, 2460), NOON)
    assert told.startswith("Back after 41 min away (")
    assert describe_gap(Gap(Cause.CLOCK, -10_800), NOON) == (
        "The computer's clock was set back by 3.0 h; nothing is lost"
    )
    assert "forward by 6 s" in describe_gap(Gap(Cause.CLOCK, 6), NOON)
