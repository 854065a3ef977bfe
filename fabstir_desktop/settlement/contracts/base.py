"""What settlement asks of any contract, in words that hide which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fabstir_desktop.jobs.claims import Payment
from fabstir_desktop.settlement.chain_client import EventLog


class RefusalKind(StrEnum):
    """Why a contract refuses a claim, by what follows from it."""

    NOT_OURS = "not_ours"
    UNKNOWN_JOB = "unknown_job"
    CLOSED = "closed"
    DEPOSIT = "deposit"
    TOO_FEW = "too_few"
    TOO_FAST = "too_fast"
    REPLAYED = "replayed"  # a claim with this proof landed before
    BAD_PROOF = "bad_proof"
    PAUSED = "paused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A contract's refusal: its kind, and a sentence for the host."""

    kind: RefusalKind
    plain: str


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job as the contract holds it. `covered_tokens` is what the whole deposit pays for, `paid_tokens` what was proven."""

    job_id: int
    host: str
    price_per_token_wei: int
    covered_tokens: int
    paid_tokens: int
    is_open: bool
    first_claim_minimum: int = 0
    """Tokens that a job's first claim must have at least; 0 where there is no such rule."""
    token: str = "ETH"  # noqa: S105 - money, no secret
    """What it pays in: "ETH" or a token's address."""
    completable_at: float | None = None
    """Where the host must settle a job by a transaction of its own: from when it may (seconds since the epoch)."""
    deadline: float | None = None
    """When unproven tokens can be lost (seconds since the epoch), where the contract has a time-out."""
    proof_deadline: float | None = None
    """When the job takes no proofs any more though it is still open (seconds since the epoch), where there is such a rule."""
    deadline_window_s: float = 0.0
    """The whole time that the contract gives until then."""

    @property
    def exists(self) -> bool:
        """Whether the contract knows the job at all."""
        return int(self.host, 16) != 0

    @property
    def remaining_tokens(self) -> int:
        """Tokens the deposit still covers."""
        return max(0, self.covered_tokens - self.paid_tokens)


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """A claim as an event reports it."""

    job_id: int
    host: str
    tokens: int
    proof_hash: bytes
    tx_hash: bytes
    block_number: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What the contract demands of claims."""

    minimum_tokens: int = 1
    settles_later: bool = False
    """Claims are paid when the job is completed, by a transaction of its own."""
    has_deadlines: bool = False
    """Tokens that are not proven in time can be lost."""
    events_name_host: bool = True
    """Payment events can be filtered by host; otherwise they are filtered by the ledger's jobs."""


@dataclass(frozen=True, slots=True)
class DecodedClaim:
    """A claim as its calldata reads."""

    job_id: int
    tokens: int
    proof_hash: bytes


class SettlementContract(Protocol):
    """One contract on one chain. Methods that read raise ChainError."""

    address: str
    rules: ClaimRules
    has_jobs: bool
    """Whether `read_job` can answer."""
    has_events: bool
    """Whether payments can be read."""
    has_claim_events: bool
    """Whether `claims_seen` can answer."""

    async def probe(self) -> None:
        """Check that code is there and speaks this interface. Raises ContractNotSupported, or another ChainError."""
        ...

    def encode_claim(self, job_id: int, tokens: int, proof: bytes) -> bytes:
        """The calldata of a claim; `proof` are the 97 bytes."""
        ...

    def decode_claim(self, calldata: bytes) -> DecodedClaim | None:
        """What a claim's calldata claims; None if it is no claim."""
        ...

    async def simulate(self, host: str, calldata: bytes) -> None:
        """`eth_call` of a claim from the host. Raises CallReverted."""
        ...

    async def read_job(self, job_id: int, which: int | str = "latest") -> JobFacts | None:
        """The job; None where the contract cannot be asked."""
        ...

    async def is_proof_used(self, host: str, proof_hash: bytes, which: int | str = "latest") -> bool | None:
        """Whether a claim with this proof has landed; None where the contract cannot be asked."""
        ...

    async def payments(self, logs: Sequence[EventLog]) -> list[Payment]:
        """Payments that the logs report."""
        ...

    def paid_job(self, entry: EventLog) -> int | None:
        """The job that a payment event is about, read from the event alone; None if it is no payment."""
        ...

    def encode_completion(self, job_id: int) -> bytes:
        """The calldata that settles a job; empty where claims are paid at once."""
        ...

    def encode_time_out(self, job_id: int) -> bytes:
        """The calldata with which anyone closes a job whose time-out has passed; empty where there is none."""
        ...

    async def earnings_balance(self, host: str, token: str) -> int | None:
        """What it keeps for the host, in the token's smallest unit; None where it keeps nothing or cannot be asked."""
        ...

    def payment_topics(self, host: str) -> list[list[bytes] | None]:
        """The topics that find the payments of a host."""
        ...

    async def claims_seen(self, job_id: int | None, host: str, first_block: int, last_block: int) -> list[ClaimSeen]:
        """Claims of a host (for one job, or any) that events report; empty where there are no events."""
        ...

    def claims_in(self, logs: Sequence[EventLog]) -> list[ClaimSeen]:
        """Claims that the logs of a transaction report."""
        ...

    def explain(self, reason: str) -> Refusal:
        """The contract's own reason in words for the host."""
        ...


def job_topic(job_id: int | None) -> list[bytes] | None:
    """A job's id as an indexed argument; any job's for None."""
    return None if job_id is None else [job_id.to_bytes(32, "big")]


def address_topic(address: str) -> bytes:
    """An address as an indexed argument."""
    return bytes(12) + bytes.fromhex(address[2:])
