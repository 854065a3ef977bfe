"""The state of the running node in one snapshot: what the tray, the window, `status --json`, /health and /metrics show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fabstir_desktop.jobs.generation import EngineStatus
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.views import TokenAmount


class ServingState(StrEnum):
    """Whether prompts are taken."""

    STARTING = "starting"
    SERVING = "serving"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPED = "stopped"


class PauseKind(StrEnum):
    """When a pause begins, and what for."""

    NOW = "now"
    AFTER_JOBS = "after_jobs"
    """Sessions that are open go on until they are over; new ones are refused."""
    TO_STOP = "to_stop"
    """Running prompts end, then the application does."""


class WalletState(StrEnum):
    """Whether there is a key to sign with."""

    LOADING = "loading"
    NONE = "none"
    READY = "ready"
    LOCKED = "locked"
    UNAVAILABLE = "unavailable"
    INVALID = "invalid"
    OTHER_KEY = "other_key"  # not the one this profile works with: nothing is signed until a person accepts it
    OTHER_PLACE = "other_place"  # its key was saved in another keyring than this session has


class KeySource(StrEnum):
    """Where the key in force is kept."""

    NOWHERE = "nowhere"
    ENVIRONMENT = "environment"
    KEYRING = "keyring"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class WalletStatus:
    """The key's place and address, never the key. `location` such as "GNOME Keyring"; `detail` and `action` are sentences.

    `address` is the host's; `found` the address of another key that was found where its key should be.
    """

    state: WalletState
    address: str | None = None
    source: KeySource = KeySource.NOWHERE
    location: str = ""
    detail: str = ""
    action: str = ""
    found: str | None = None


class ChainState(StrEnum):
    """Whether claims can be made."""

    CONNECTING = "connecting"
    READY = "ready"
    UNREACHABLE = "unreachable"
    WRONG_CHAIN = "wrong_chain"
    NOT_SUPPORTED = "not_supported"  # no code, or not the chosen interface


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """What is known of chain, contract and gas money; None is unknown, never zero. `rpc` is the endpoint's host name only.

    `as_of` is when the numbers were read (seconds since the epoch), None if never.
    """

    state: ChainState
    detail: str
    rpc: str
    chain_id: int
    chain_name: str
    is_testnet: bool
    contract: str
    contract_name: str
    head_block: int | None = None
    head_age_s: float | None = None
    balance_wei: int | None = None
    checkpoint_cost_wei: int | None = None
    checkpoints_left: int | None = None
    submitting: bool = False
    """True with a usable key: checkpoints are submitted; False: they are counted and logged."""
    open_claims: int = 0
    as_of: float | None = None
    withdrawable: tuple[TokenAmount, ...] | None = None
    """What the contract keeps for the host until it is taken out; None: not read, or it pays at once."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The endpoints and who is connected. `url` is None while not listening.

    `exposure`: what is reachable from beyond this machine, in sentences; none if nothing is.
    """

    url: str | None
    connections: int
    sessions: int
    active_requests: int
    queued_requests: int
    detail: str = ""
    exposure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Everything at a glance. `sentence` is one line for strip and tray; `resume_at` when a timed pause ends."""

    version: str
    state: ServingState
    sentence: str
    engine: EngineStatus
    wallet: WalletStatus
    chain: ChainStatus
    server: ServerStatus
    started_at: float
    resume_at: float | None
    loop_lag_ms: float
    data_dir: str
    demo: bool


@dataclass(frozen=True, slots=True)
class BatchingStatus:
    """Whether claims travel together: what is wanted, whether it is so now, and a sentence about it.

    `contract` is the code that the host's account borrows for it, `borrowed` whose code it borrows now, `tx_hash` the newest
    transaction that changed that or is about to.
    """

    wanted: bool
    active: bool
    sentence: str
    contract: str = ""
    borrowed: str | None = None
    tx_hash: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointOutcome:
    """What a request to claim now did for one job: submitted (with the hash) or why not, as a sentence."""

    job_id: int
    submitted: bool
    tokens: int
    tx_hash: str | None
    why: str


class StatusSource(Protocol):
    """Whoever can describe the node."""

    @property
    def status(self) -> NodeStatus:
        """A fresh snapshot; cheap, no IO."""
        ...

    @property
    def problems(self) -> Sequence[Problem]:
        """What stands now, worst first."""
        ...
