"""The life of a claim, of the nonce that carries it, and of the signed attempts: words and allowed steps.

A claim is a range `[start, end)` of a job's tokens. A slot is one nonce of one sender; a claim is bound to at most one
live slot, so at most one transaction of it can ever be mined. An attempt is a signed transaction of a slot; its bytes are
stored before they are sent, and a fee bump is one more attempt of the same slot. The database refuses every step that is
not in these tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class ClaimState(StrEnum):
    """Where a claim stands."""

    PLANNED = "planned"  # range and proof fixed, no nonce yet
    BOUND = "bound"  # owns a nonce; signed bytes are on disk; may or may not have reached a mempool
    INCLUDED = "included"  # in a block, not yet deep enough
    CONFIRMED = "confirmed"  # deep enough: proven
    FINAL = "final"
    REOPENED = "reopened"  # its block was reorganised away; the same bytes are sent again
    HELD = "held"  # waits for the host or for the contract (paused, unknown revert)
    VOID = "void"  # reverted on chain or withdrawn before it was bound; its tokens are free again
    WRITTEN_OFF = "written_off"  # can never be paid; the reason is kept


CLAIM_STEPS: frozenset[tuple[ClaimState, ClaimState]] = frozenset(
    {
        (ClaimState.PLANNED, ClaimState.BOUND),
        (ClaimState.PLANNED, ClaimState.HELD),
        (ClaimState.PLANNED, ClaimState.VOID),
        (ClaimState.PLANNED, ClaimState.WRITTEN_OFF),
        (ClaimState.HELD, ClaimState.PLANNED),
        (ClaimState.HELD, ClaimState.VOID),
        (ClaimState.HELD, ClaimState.WRITTEN_OFF),
        (ClaimState.BOUND, ClaimState.INCLUDED),
        (ClaimState.BOUND, ClaimState.PLANNED),
        (ClaimState.BOUND, ClaimState.VOID),
        (ClaimState.BOUND, ClaimState.HELD),
        (ClaimState.BOUND, ClaimState.WRITTEN_OFF),
        (ClaimState.INCLUDED, ClaimState.REOPENED),
        (ClaimState.INCLUDED, ClaimState.CONFIRMED),
        (ClaimState.CONFIRMED, ClaimState.REOPENED),
        (ClaimState.CONFIRMED, ClaimState.FINAL),
        (ClaimState.REOPENED, ClaimState.INCLUDED),
        (ClaimState.REOPENED, ClaimState.BOUND),
        (ClaimState.REOPENED, ClaimState.VOID),
        (ClaimState.WRITTEN_OFF, ClaimState.VOID),  # its reverted transaction succeeded after a reorganisation
    }
)
"""Every allowed step; anything else is a bug."""

OPEN_STATES = frozenset(
    {ClaimState.PLANNED, ClaimState.BOUND, ClaimState.HELD, ClaimState.REOPENED, ClaimState.INCLUDED}
)
"""A job with a claim in one of these gets no further claim: its tokens gather into the next."""

WAITING_STATES = (ClaimState.PLANNED, ClaimState.HELD)
"""A claim in one of these owns no nonce: nothing of it can be mined."""

SENT_STATES = frozenset(
    {ClaimState.BOUND, ClaimState.REOPENED, ClaimState.INCLUDED, ClaimState.CONFIRMED, ClaimState.FINAL}
)
"""A claim in one of these counts as claimed."""

PROVEN_STATES = frozenset({ClaimState.CONFIRMED, ClaimState.FINAL})
"""A claim in one of these counts as proven."""


class SlotState(StrEnum):
    """Where a nonce stands."""

    OPEN = "open"
    INCLUDED = "included"
    CONFIRMED = "confirmed"
    FINAL = "final"
    BURNED = "burned"  # provably spent, the spender not identified
    FOREIGN = "foreign"  # spent by a transaction that is identified and not ours


SLOT_STEPS: frozenset[tuple[SlotState, SlotState]] = frozenset(
    {
        (SlotState.OPEN, SlotState.INCLUDED),
        (SlotState.OPEN, SlotState.BURNED),
        (SlotState.OPEN, SlotState.FOREIGN),
        (SlotState.INCLUDED, SlotState.OPEN),
        (SlotState.INCLUDED, SlotState.CONFIRMED),
        (SlotState.CONFIRMED, SlotState.FINAL),
        (SlotState.CONFIRMED, SlotState.OPEN),
    }
)


BATCH = "batch"
DELEGATION = "delegation"
DEPLOYMENT = "deployment"
"""Kinds of nonces beside `claim` (one claim), `complete` (a job is settled) and `cancel` (a self-transfer that closes a gap):
several claims in one call of the host's account to itself; a change of the code that the account borrows, which uses two
nonces; and putting that code on chain."""


TYPE_4 = b"\x04"
"""What a transaction that carries authorizations begins with (EIP-7702)."""


class ClaimReason(StrEnum):
    """Why a claim is made now."""

    THRESHOLD = "threshold"
    SESSION_END = "session_end"
    FORCED = "forced"
    DEADLINE = "deadline"
    EXPOSURE = "exposure"
    RECOVERY = "recovery"  # tokens found unclaimed at start


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as the ledger holds it. `claim_id` is the ledger's row."""

    claim_id: int
    job_id: int
    sequence: int
    start: int
    end: int
    host: str
    reason: ClaimReason
    state: ClaimState
    proof_hash: bytes
    proof: bytes
    calldata: bytes
    note: str
    """Why it is held, void or written off, in plain words; else empty."""
    created_at: float

    @property
    def tokens(self) -> int:
        """How many tokens it claims."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction of a slot. Immutable once stored."""

    tx_hash: bytes
    raw: bytes
    max_fee_per_gas_wei: int
    max_priority_fee_per_gas_wei: int
    gas_limit: int


@dataclass(frozen=True, slots=True)
class SignedContent:
    """What a signed transaction says: where it counts, and the calls that it makes (receiver, calldata), in their order."""

    chain_id: int
    nonce: int
    calls: tuple[tuple[str, bytes], ...]


ReadSigned = Callable[[str, bytes], SignedContent]
"""Reads the signed bytes of a sender. Raises ValueError where they are no transaction that this application writes."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A nonce of `sender`, what it carries and every attempt to fill it, oldest first."""

    slot_id: int
    sender: str
    nonce: int
    kind: str
    """`claim`, `cancel` for a self-transfer that closes a gap, or another: see `BATCH`."""
    state: SlotState
    claim_ids: tuple[int, ...]
    """Every claim that was signed with it, in the order of a batch's calls; some may be released since."""
    attempts: tuple[Attempt, ...]
    created_at: float
    last_sent_at: float | None
    mined_hash: bytes | None
    block_number: int | None
    block_hash: bytes | None
    succeeded: bool | None
    carried_ids: tuple[int, ...] = ()
    """Claims that it holds and that have not failed on their own."""
    failed_ids: tuple[int, ...] = ()
    """Claims of a batch that it still holds though they failed while the transaction succeeded."""

    @property
    def nonces(self) -> tuple[int, ...]:
        """The nonces it uses: an attempt of type 4 also uses the next one (see `DELEGATION`) unless another was mined."""
        if self.state in (SlotState.BURNED, SlotState.FOREIGN):
            return (self.nonce,)
        minable = [one for one in self.attempts if self.mined_hash in (None, one.tx_hash)]
        return (self.nonce, self.nonce + 1) if any(one.raw[:1] == TYPE_4 for one in minable) else (self.nonce,)


@dataclass(frozen=True, slots=True)
class MinedFact:
    """What a receipt says. `fee_wei` is gas used times effective price plus the L1 data fee where the chain has one."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    fee_wei: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment as the contract's event says it; amounts in the smallest unit of `token` ("ETH" or an address)."""

    job_id: int
    tx_hash: bytes
    log_index: int
    block_number: int
    token: str
    host_amount: int
    treasury_amount: int
