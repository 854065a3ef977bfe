"""The table of all states a host can be told of: code, how bad it is, what is done about it, and where.

One table, so that window, tray, doctor, log and support mean the same by a code. Rooms that find a state call `problem`
with the sentence that only they know; everything else about it stands here. Codes are for ever: a code that is no longer
used is not given to another state. The state without a code is the healthy one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fabstir_desktop.jobs.problems import Problem, Severity


@dataclass(frozen=True, slots=True)
class State:
    """One row. `title` names several of a kind, in the plural where there can be several.

    `action` is what the button says (a few words; empty: nothing to do), `page` where it leads, `target` the setting that
    is changed there, `command` what the window does at once (a name of `MainWindow._commands`).
    """

    code: str
    severity: Severity
    title: str
    action: str
    page: str
    target: str = ""
    command: str = ""
    is_dismissible: bool = False
    """The host may put it away once it is read: it reports, and nothing waits for the host."""


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFORMATION

_ROWS = (
    # the key
    State("K01", _E, "No host key", "Add key", "wallet", command="add_key"),
    State("K02", _E, "The key is locked", "Unlock", "wallet", command="unlock_key"),
    State("K03", _E, "No safe place for the key", "Choose a place", "wallet", command="choose_place"),
    State("K04", _E, "Another key than expected", "Review", "wallet", command="review_key"),
    State("K05", _E, "The key is not valid", "Enter it again", "wallet", command="add_key"),
    State("K06", _E, "Another keyring than expected", "Review", "wallet", command="review_key"),
    # chain and contract
    State("C01", _E, "Wrong chain", "Change RPC", "settings", "rpc_url"),
    State("C02", _W, "No contact with the chain", "Change RPC", "settings", "rpc_url"),
    State("C03", _I, "The RPC limits requests", "", "settings", "rpc_url", is_dismissible=True),
    State("C04", _W, "Chain data is old", "Change RPC", "settings", "rpc_url"),
    State("C05", _W, "The contract is paused", "Open job", "jobs"),
    State("C06", _E, "The contract is not the expected one", "Check address", "settings", "settlement_contract"),
    State("C07", _W, "An RPC is silent", "Change RPC", "settings", "rpc_url"),
    # gas
    State("G01", _W, "Gas money is low", "Fund", "wallet"),
    State("G02", _E, "No gas money", "Fund", "wallet"),
    State("G03", _W, "Gas is dearer than the cap", "Raise the cap", "settings", "max_fee_gwei"),
    State(
        "G04",
        _W,
        "Claims cost more than they earn",
        "Claim less often",
        "settings",
        "checkpoint_threshold",
        is_dismissible=True,
    ),
    # transactions
    State("T01", _W, "Claims wait long", "Speed up", "transactions"),
    State("T02", _W, "Claims are refused", "Open job", "jobs", is_dismissible=True),
    State("T03", _W, "Another program uses the key", "Show transactions", "transactions"),
    # the host on chain, and from outside
    State("H01", _E, "The host is not registered", "Show address", "wallet"),
    State("H02", _W, "The host is inactive", "Show address", "wallet"),
    State("H03", _W, "Clients are sent elsewhere", "Change address", "settings", "public_url"),
    State("H04", _W, "Not reachable from outside", "Check address", "settings", "public_url"),
    # the model
    State("M01", _E, "No model", "Choose model", "models", command="choose_model"),
    State("M02", _E, "The model file is gone", "Locate", "models", command="choose_model"),
    State("M03", _E, "The model file is damaged or another", "Choose model", "models", command="choose_model"),
    State("M04", _E, "The model is not on the host's list", "Choose model", "models", command="choose_model"),
    State("M05", _W, "The model does not fit the GPU", "Smaller context", "settings", "context_window"),
    State("M06", _I, "The model is being loaded", "", "models"),
    # serving
    State("S01", _E, "The port is taken", "Change port", "settings", "api_port"),
    State("S02", _W, "The model process restarts", "Open log", "logs"),
    State("S03", _E, "The model process gave up", "Load again", "models", command="load_again"),
    State("S04", _W, "The model process hung", "Open log", "logs"),
    State("S05", _I, "The queue is full", "Show jobs", "jobs"),
    State("S06", _I, "Paused", "Resume", "dashboard", command="resume"),
    State("S07", _I, "Finishing", "Stop now", "dashboard", command="stop_now"),
    # jobs
    State("J01", _I, "Deposits are nearly used up", "Open job", "jobs", is_dismissible=True),
    State("J02", _W, "Claims are due soon", "Claim now", "jobs", command="claim_job"),
    State("J03", _W, "Ledger and chain disagree", "Compare", "jobs", is_dismissible=True),
    State("J04", _I, "Tokens that cannot be claimed", "Open job", "jobs", is_dismissible=True),
    # this computer
    State("D01", _E, "The ledger cannot be written", "Open data folder", "settings", command="open_folder"),
    State("D02", _E, "Another copy uses this data", "Quit", "dashboard", command="stop_now"),
    State("U01", _I, "An update is ready", "", "dashboard", is_dismissible=True),
    State("N01", _I, "No tray on this desktop", "Start settings", "settings", "start_hidden", is_dismissible=True),
    # what others can reach (beside the 44 above)
    State("X01", _W, "Prompts are not encrypted", "Set certificate", "settings", "tls_certificate"),
    State("X02", _I, "Clients fight for a job", "Open job", "jobs", is_dismissible=True),
    State("X03", _W, "A proxy is not named", "Name it", "settings", "trusted_proxies", is_dismissible=True),
    # what this version can do beyond them
    State(
        "X04",
        _I,
        "Claims cannot be batched",
        "Turn batching off",
        "settings",
        "batch_claims",
        is_dismissible=True,
    ),
)

STATES: Mapping[str, State] = MappingProxyType({state.code: state for state in _ROWS})
"""All states by code."""


def state_of(problem: Problem) -> State:
    """The row of a problem's code; a code from elsewhere gets one made of what the problem says itself."""
    return STATES.get(problem.code) or State(
        problem.code, problem.severity, problem.message, problem.action, problem.page
    )


def problem(code: str, message: str, *, subject: str = "", advice: str = "", page: str = "") -> Problem:
    """A problem of the table: `message` is what is wrong, `advice` what to do where that needs more than a button.

    Both become sentences; rooms below hand their findings on as they are. `page` overrides the table's, where the same
    state is mended elsewhere. Raises KeyError for a code not in the table.
    """
    state = STATES[code]
    return Problem(
        code, state.severity, _sentence(message), state.action, subject, page or state.page, _sentence(advice)
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".")
