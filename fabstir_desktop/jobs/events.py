"""Typed events of the feed, named in the past tense. Small and frozen: a reader takes details from the ledger or the node."""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.jobs.claims import ClaimReason, ClaimState
from fabstir_desktop.jobs.clocks import Gap
from fabstir_desktop.jobs.generation import EngineStatus
from fabstir_desktop.jobs.problems import Problem


@dataclass(frozen=True, slots=True)
class Event:
    """Root of all events."""


@dataclass(frozen=True, slots=True)
class TokensCounted(Event):
    """`count` tokens of the job are in the ledger; `total` is the job's new total."""

    job_id: int
    session_id: str
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class JobChanged(Event):
    """Anything but a mere count changed about a job (session opened or ended, admitted, refused)."""

    job_id: int


@dataclass(frozen=True, slots=True)
class CheckpointNeeded(Event):
    """A job has `tokens` to claim. Published whether or not a key is there to sign."""

    job_id: int
    session_id: str
    tokens: int
    reason: ClaimReason


@dataclass(frozen=True, slots=True)
class ClaimChanged(Event):
    """A claim reached `state`. `tx_hash` (0x hex) is of its newest attempt, None before it was signed."""

    job_id: int
    claim_id: int
    tokens: int
    state: ClaimState
    tx_hash: str | None
    note: str


@dataclass(frozen=True, slots=True)
class TransactionChanged(Event):
    """A transaction row changed."""

    slot_id: int


@dataclass(frozen=True, slots=True)
class EarningsChanged(Event):
    """A payment was read from the chain, became deep enough to count, or was reorganised away.

    `job_ids` are the jobs it concerns; none named: it may be any.
    """

    job_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class EngineChanged(Event):
    """The engine's state, model, load progress or stream counts changed."""

    status: EngineStatus


@dataclass(frozen=True, slots=True)
class ProblemRaised(Event):
    """Something needs the host's eye; replaces an earlier one of the same code and subject."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class ProblemCleared(Event):
    """The cause is gone."""

    code: str
    subject: str


@dataclass(frozen=True, slots=True)
class ServingChanged(Event):
    """The node started, paused, resumed, drains or stopped; read the node's status."""


@dataclass(frozen=True, slots=True)
class GapNoticed(Event):
    """The machine slept, the process stood still, or the wall clock was set."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class WalletChanged(Event):
    """A key was set, removed, locked or unlocked, or its balance was read; read the node's status."""


@dataclass(frozen=True, slots=True)
class ChainChanged(Event):
    """Head, health, chain id or contract probe changed; read the node's status."""


@dataclass(frozen=True, slots=True)
class RequestChanged(Event):
    """A request was queued, began, or ended (for stream counts); job may be None for free use."""

    job_id: int | None
