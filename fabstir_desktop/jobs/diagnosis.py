"""Problems that follow from the node's state alone: one pure function, so that window, tray, doctor and log agree."""

from __future__ import annotations

from collections.abc import Sequence

from fabstir_desktop.jobs.generation import EngineState, EngineStatus
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.status import ServerStatus, ServingState, WalletState, WalletStatus

DERIVED_CODES = frozenset({"K01", "K02", "K03", "K05", "M01", "M02", "M06", "S01", "S02", "S03", "D01"})
"""Codes this module decides; every other code is raised and cleared by the room that knows."""


def derive_problems(
    wallet: WalletStatus, engine: EngineStatus, server: ServerStatus, ledger_failure: str | None
) -> list[Problem]:
    """Name what stands in the way, judged from the states alone."""
    found: list[Problem | None] = [
        _ledger_problem(ledger_failure),
        _wallet_problem(wallet),
        _engine_problem(engine),
        _server_problem(server),
    ]
    return [problem for problem in found if problem is not None]


def _ledger_problem(failure: str | None) -> Problem | None:
    if failure is None:
        return None
    return Problem(
        "D01",
        Severity.ERROR,
        f"The job ledger cannot be written ({failure}). Serving is stopped to protect earnings.",
        "Free disk space or mend the permissions of the data folder",
        page="settings",
    )


def _wallet_problem(wallet: WalletStatus) -> Problem | None:
    match wallet.state:
        case WalletState.NONE:
            return Problem(
                "K01",
                Severity.WARNING,
                "No host key yet. Tokens are counted and kept, but no checkpoint can be submitted.",
                "Add your host key",
                page="wallet",
            )
        case WalletState.LOCKED:
            message = "Your keyring is locked. Claims wait; nothing is lost."
            return Problem("K02", Severity.WARNING, message, wallet.action or "Unlock the keyring", page="wallet")
        case WalletState.UNAVAILABLE:
            message = wallet.detail or "No keyring was found on this system."
            return Problem(
                "K03", Severity.WARNING, message, wallet.action or "Choose where to keep the key", page="wallet"
            )
        case WalletState.INVALID:
            message = wallet.detail or "The stored key is not a valid key."
            return Problem("K05", Severity.ERROR, message, wallet.action or "Enter the key again", page="wallet")
        case WalletState.LOADING | WalletState.READY:
            return None


def _engine_problem(engine: EngineStatus) -> Problem | None:
    match engine.state:
        case EngineState.NO_MODEL:
            return Problem(
                "M01", Severity.ERROR, engine.detail or "No model selected.", "Choose a model", page="models"
            )
        case EngineState.LOADING:
            message = engine.detail or f"Loading the model, {engine.load_progress:.0%}."
            return Problem("M06", Severity.INFORMATION, message, "", page="models")
        case EngineState.RESTARTING:
            message = f"The model process stopped and is started again. {engine.detail}".strip()
            return Problem("S02", Severity.WARNING, message, "", page="logs")
        case EngineState.FAILED:
            message = engine.detail or "The model process stopped too often."
            return Problem("S03", Severity.ERROR, message, "Choose another model or load it again", page="models")
        case EngineState.READY | EngineState.STOPPED:
            return None


def _server_problem(server: ServerStatus) -> Problem | None:
    if server.url is not None or not server.detail:
        return None
    return Problem("S01", Severity.ERROR, server.detail, "Free the port or choose another in Settings", page="settings")


def describe_state(
    state: ServingState,
    *,
    engine: EngineStatus,
    submitting: bool,
    active_requests: int,
    problems: Sequence[Problem],
    resume_clock: str | None = None,
    pause_reason: str = "",
) -> str:
    """One line for strip, tray and scripts: what the host does now."""
    match state:
        case ServingState.STARTING:
            return "Starting"
        case ServingState.STOPPED:
            return "Stopped"
        case ServingState.DRAINING:
            return f"Finishing {_count(active_requests, 'request')}, then stopping"
        case ServingState.PAUSED:
            return _describe_pause(resume_clock, pause_reason)
        case ServingState.SERVING:
            return _describe_serving(engine, submitting, active_requests, problems)


def _describe_pause(resume_clock: str | None, reason: str) -> str:
    until = f"Paused until {resume_clock}" if resume_clock else "Paused" if reason else "Paused until you resume"
    return f"{until}: {reason}" if reason else until


def _describe_serving(engine: EngineStatus, submitting: bool, active_requests: int, problems: Sequence[Problem]) -> str:
    if engine.state is EngineState.LOADING:
        return f"Loading the model, {engine.load_progress:.0%}"
    stopping = next((problem for problem in problems if problem.severity is Severity.ERROR), None)
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
