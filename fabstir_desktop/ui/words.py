"""What states are called on screen, and how they look: every state is a word and a shape, colour only helps."""

from __future__ import annotations

from enum import StrEnum

from PySide6.QtCore import QCoreApplication

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.states import State
from fabstir_desktop.jobs.status import ChainState, NodeStatus, ServingState, WalletState
from fabstir_desktop.ui.say import say

translate = QCoreApplication.translate


class Tone(StrEnum):
    """The colour family of something shown."""

    OK = "ok"
    BUSY = "busy"
    QUIET = "quiet"
    WARNING = "warning"
    ERROR = "error"


class TrayShape(StrEnum):
    """The tray icon's shapes; each is told from the others without colour."""

    IDLE = "idle"
    SERVING = "serving"
    BUSY = "busy"
    PAUSED = "paused"
    ATTENTION = "attention"
    ERROR = "error"
    OFFLINE = "offline"


def tray_shape(status: NodeStatus | None, problems: tuple[Problem, ...]) -> TrayShape:
    """Choose the shape: what stops payment first, then what the host chose, then what happens."""
    if status is None or status.state in {ServingState.STARTING, ServingState.STOPPED}:
        return TrayShape.OFFLINE
    worst = max((problem.severity for problem in problems), default=Severity.INFORMATION)
    if worst is Severity.ERROR:
        return TrayShape.ERROR
    if status.state in {ServingState.PAUSED, ServingState.DRAINING}:
        return TrayShape.PAUSED
    if worst is Severity.WARNING:
        return TrayShape.ATTENTION
    if status.server.active_requests:
        return TrayShape.BUSY
    return TrayShape.SERVING if status.server.sessions else TrayShape.IDLE


def shape_tone(shape: TrayShape) -> Tone:
    """The tint that goes with a shape."""
    return {
        TrayShape.IDLE: Tone.OK,
        TrayShape.SERVING: Tone.OK,
        TrayShape.BUSY: Tone.OK,
        TrayShape.PAUSED: Tone.QUIET,
        TrayShape.ATTENTION: Tone.WARNING,
        TrayShape.ERROR: Tone.ERROR,
        TrayShape.OFFLINE: Tone.QUIET,
    }[shape]


def serving_word(status: NodeStatus | None) -> str:
    """The one word of the strip."""
    if status is None:
        return translate("words", "Starting")
    return {
        ServingState.STARTING: translate("words", "Starting"),
        ServingState.SERVING: translate("words", "Serving"),
        ServingState.PAUSED: translate("words", "Paused"),
        ServingState.DRAINING: translate("words", "Finishing"),
        ServingState.STOPPED: translate("words", "Stopped"),
    }[status.state]


def job_word(state: str) -> str:
    """A job's state as a word."""
    return {
        "running": translate("words", "Running"),
        "idle": translate("words", "Idle"),
        "claiming": translate("words", "Claiming"),
        "claim_failed": translate("words", "Claim failed"),
        "closing": translate("words", "Closing"),
        "settled": translate("words", "Settled"),
    }.get(state, state)


def job_tone(state: str) -> Tone:
    """A job state's colour family."""
    return {
        "running": Tone.OK,
        "claiming": Tone.BUSY,
        "closing": Tone.BUSY,
        "claim_failed": Tone.ERROR,
    }.get(state, Tone.QUIET)


def job_sign(state: str) -> str:
    """A shape for a job's state, for eyes that do not tell the colours apart."""
    return {
        "running": "●",
        "idle": "○",
        "claiming": "◐",
        "claim_failed": "✕",
        "closing": "◔",
        "settled": "✓",
    }.get(state, "•")


def claim_word(state: str) -> str:
    """A claim's state as a word."""
    return {
        "planned": translate("words", "Planned"),
        "bound": translate("words", "Signed"),
        "included": translate("words", "In a block"),
        "confirmed": translate("words", "Confirmed"),
        "final": translate("words", "Final"),
        "reopened": translate("words", "Sent again"),
        "held": translate("words", "Held back"),
        "void": translate("words", "Withdrawn"),
        "written_off": translate("words", "Cannot be paid"),
    }.get(state, state)


def transaction_word(state: str) -> str:
    """A transaction's state as a word."""
    return {
        "signed": translate("words", "Signed"),
        "sent": translate("words", "Sent, waiting"),
        "included": translate("words", "In a block"),
        "confirmed": translate("words", "Confirmed"),
        "final": translate("words", "Final"),
        "reverted": translate("words", "Reverted"),
        "replaced": translate("words", "Replaced"),
        "dropped": translate("words", "Dropped"),
    }.get(state, state)


def transaction_tone(state: str) -> Tone:
    """A transaction state's colour family."""
    return {
        "signed": Tone.BUSY,
        "sent": Tone.BUSY,
        "included": Tone.BUSY,
        "confirmed": Tone.OK,
        "final": Tone.OK,
        "reverted": Tone.ERROR,
        "dropped": Tone.WARNING,
    }.get(state, Tone.QUIET)


def transaction_sign(state: str) -> str:
    """A shape for a transaction's state."""
    return {
        "signed": "○",
        "sent": "◔",
        "included": "◑",
        "confirmed": "✓",
        "final": "✓",
        "reverted": "✕",
        "replaced": "↻",
        "dropped": "✕",
    }.get(state, "•")


def kind_word(kind: str) -> str:
    """A transaction's kind as a word."""
    return {
        "claim": translate("words", "Claim"),
        "batch": translate("words", "Batch of claims"),
        "delegation": translate("words", "Batching on or off"),
        "deployment": translate("words", "Code for batching"),
        "withdraw": translate("words", "Withdrawal"),
        "cancel": translate("words", "Cancellation"),
    }.get(kind, kind.replace("_", " ").capitalize())


def severity_word(severity: Severity) -> str:
    """A severity as a word."""
    return {
        Severity.ERROR: translate("words", "Problem"),
        Severity.WARNING: translate("words", "Warning"),
        Severity.INFORMATION: translate("words", "Note"),
    }[severity]


def state_title(state: State) -> str:
    """What several problems of one code are called together."""
    return say(state.title)


def action_word(action: str) -> str:
    """What the button of a problem says."""
    return say(action)


def severity_tone(severity: Severity) -> Tone:
    """A severity's colour family."""
    return {Severity.ERROR: Tone.ERROR, Severity.WARNING: Tone.WARNING, Severity.INFORMATION: Tone.QUIET}[severity]


def wallet_word(state: WalletState) -> str:
    """The key's state as a word."""
    return {
        WalletState.LOADING: translate("words", "looking for the key"),
        WalletState.NONE: translate("words", "no key"),
        WalletState.READY: translate("words", "key ready"),
        WalletState.LOCKED: translate("words", "keyring locked"),
        WalletState.UNAVAILABLE: translate("words", "no keyring"),
        WalletState.INVALID: translate("words", "key not valid"),
        WalletState.OTHER_KEY: translate("words", "another key"),
        WalletState.OTHER_PLACE: translate("words", "another keyring"),
    }[state]


def chain_word(state: ChainState) -> str:
    """The chain's state as a word."""
    return {
        ChainState.CONNECTING: translate("words", "connecting"),
        ChainState.READY: translate("words", "connected"),
        ChainState.UNREACHABLE: translate("words", "not reachable"),
        ChainState.WRONG_CHAIN: translate("words", "wrong chain"),
        ChainState.NOT_SUPPORTED: translate("words", "contract not supported"),
    }[state]
