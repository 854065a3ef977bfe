"""Problems that follow from the node's state alone: one pure function, so that window, tray, doctor and log agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from fabstir_desktop.jobs.clocks import Cause, Gap
from fabstir_desktop.jobs.generation import EngineFailure, EngineState, EngineStatus
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.jobs.status import ServerStatus, ServingState, WalletState, WalletStatus

_SMALLER = "Choose a smaller model, or a smaller context."


def derive_problems(
    wallet: WalletStatus,
    engine: EngineStatus,
    server: ServerStatus,
    ledger_failure: str | None,
    serving: ServingState = ServingState.SERVING,
    doing: str = "",
) -> list[Problem]:
    """Name what stands in the way, judged from the states alone. `doing` says in words what `serving` is."""
    found: list[Problem | None] = [
        _ledger_problem(ledger_failure),
        _wallet_problem(wallet),
        _engine_problem(engine),
        _queue_problem(engine),
        _server_problem(server),
        _serving_problem(serving, doing),
    ]
    return [one for one in found if one is not None]


def _serving_problem(serving: ServingState, doing: str) -> Problem | None:
    code = {ServingState.PAUSED: "S06", ServingState.DRAINING: "S07"}.get(serving)
    return problem(code, f"{doing}.") if code is not None else None


def _ledger_problem(failure: str | None) -> Problem | None:
    if failure is None:
        return None
    message = f"The job ledger cannot be written ({failure}). Serving is stopped to protect earnings."
    return problem("D01", message, advice="Free disk space, or mend the permissions of the data folder.")


_WALLET_CODES = {
    WalletState.NONE: "K01",
    WalletState.LOCKED: "K02",
    WalletState.UNAVAILABLE: "K03",
    WalletState.OTHER_KEY: "K04",
    WalletState.INVALID: "K05",
    WalletState.OTHER_PLACE: "K06",
}
_COUNTED_ONLY = "Tokens are counted and kept, but no checkpoint can be submitted."


def _wallet_problem(wallet: WalletStatus) -> Problem | None:
    code = _WALLET_CODES.get(wallet.state)
    if code is None:
        return None
    message = {
        # a key that was there and is gone is named; without one there is nothing to name
        WalletState.NONE: f"{wallet.detail if wallet.address else 'No host key yet.'} {_COUNTED_ONLY}",
        WalletState.LOCKED: "Your keyring is locked. Claims wait; nothing is lost.",
        WalletState.UNAVAILABLE: wallet.detail or "No keyring was found on this system.",
        WalletState.INVALID: wallet.detail or "The stored key is not a valid key.",
    }.get(wallet.state, wallet.detail)
    return problem(code, message, advice="" if wallet.state is WalletState.NONE else wallet.action)


def _engine_problem(engine: EngineStatus) -> Problem | None:
    match engine.state:
        case EngineState.NO_MODEL:
            return problem("M01", engine.detail or "No model selected.")
        case EngineState.LOADING:
            return problem("M06", engine.detail or f"Loading the model, {engine.load_progress:.0%}.")
        case EngineState.RESTARTING:
            return _restart_problem(engine)
        case EngineState.FAILED:
            return _failure_problem(engine)
        case EngineState.READY if engine.warning:
            return problem("M05", f"The model serves, but: {engine.warning}.", advice=_SMALLER)
        case EngineState.READY | EngineState.STOPPED:
            return None


def _queue_problem(engine: EngineStatus) -> Problem | None:
    if engine.queue_limit == 0 or engine.queued_requests < engine.queue_limit:
        return None
    return problem("S05", f"The queue is full ({engine.queue_limit}). New prompts are told to come back later.")


def _restart_problem(engine: EngineStatus) -> Problem:
    """Why no model is served just now."""
    if engine.is_remote:
        message = f"No model is served: {engine.detail}."
        return problem("S02", message, advice="Start that server, or correct its address.", page="settings")
    cause = f": {engine.detail}" if engine.detail else ""
    if engine.is_hung:
        return problem("S04", f"The model process hung and is started again{cause}")
    return problem("S02", f"The model process stopped and is started again{cause}")


def _failure_problem(engine: EngineStatus) -> Problem:
    """Why no model is served."""
    match engine.failure:
        case EngineFailure.FILE_MISSING:
            return problem("M02", engine.detail or "The model file is gone.", advice="Show where it is now.")
        case EngineFailure.FILE_UNUSABLE:
            message = engine.detail or "The model file cannot be used."
            return problem("M03", message, advice="Get the file again, or choose another model.")
        case EngineFailure.MEMORY:  # nothing is served: worse than a model that is only slow
            return replace(problem("M05", engine.detail, advice=_SMALLER), severity=Severity.ERROR)
        case EngineFailure.CRASHES | EngineFailure.NONE:
            message = engine.detail or "The model process stopped too often."
            return problem("S03", message, advice="Load it again, or choose another model.")


def _server_problem(server: ServerStatus) -> Problem | None:
    if server.url is not None or not server.detail:
        return None
    return problem("S01", server.detail, advice="Free the port or choose another.")


def describe_state(
    state: ServingState,
    *,
    engine: EngineStatus,
    submitting: bool,
    active_requests: int,
    problems: Sequence[Problem],
    resume_clock: str | None = None,
    pause_reason: str = "",
    jobs_before_pause: int | None = None,
) -> str:
    """One line for strip, tray and scripts: what the host does now."""
    match state:
        case ServingState.STARTING:
            return "Starting"
        case ServingState.STOPPED:
            return "Stopped"
        case ServingState.DRAINING if jobs_before_pause is not None:
            return f"Finishing {_count(jobs_before_pause, 'job')}, then pausing"
        case ServingState.DRAINING:
            return f"Finishing {_count(active_requests, 'request')}, then stopping"
        case ServingState.PAUSED:
            return _describe_pause(resume_clock, pause_reason)
        case ServingState.SERVING:
            return _describe_serving(engine, submitting, active_requests, problems)


def describe_gap(gap: Gap, now: float) -> str:
    """One line about a sleep or a clock that was set; `now` is seconds since the epoch, after it."""
    if gap.cause is Cause.CLOCK:
        way = "forward" if gap.seconds > 0 else "back"
        return f"The computer's clock was set {way} by {_span(abs(gap.seconds))}; nothing is lost"
    since = time.strftime("%H:%M", time.localtime(now - gap.seconds))
    until = time.strftime("%H:%M", time.localtime(now))
    return f"Back after {_span(gap.seconds)} away ({since} to {until}); the computer slept or stood still"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _describe_pause(resume_clock: str | None, reason: str) -> str:
    until = f"Paused until {resume_clock}" if resume_clock else "Paused" if reason else "Paused until you resume"
    return f"{until}: {reason}" if reason else until


def _describe_serving(engine: EngineStatus, submitting: bool, active_requests: int, problems: Sequence[Problem]) -> str:
    if engine.state is EngineState.LOADING and not engine.is_remote:
        return f"Loading the model, {engine.load_progress:.0%}"
    stopping = next((one for one in problems if one.severity is Severity.ERROR), None)
    if engine.state is not EngineState.READY:
        return f"Not serving: {stopping.message}" if stopping else "Not serving: the model is not ready"
    activity = (
        f"Serving, {_count(active_requests, 'request')} running" if active_requests else "Serving, waiting for jobs"
    )
    if stopping:
        return f"{activity}; not paid yet: {stopping.message}"
    return activity if submitting else f"{activity}; tokens are counted, not submitted"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
