"""What windows and scripts are shown: rows read from the ledger, integers only, formatted at the edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TokenAmount:
    """An amount in the smallest unit of `token` ("ETH" or a token's address). Amounts of two tokens are never added."""

    token: str
    amount: int


def without(amounts: Iterable[TokenAmount], taken: Iterable[TokenAmount]) -> tuple[TokenAmount, ...]:
    """The amounts less those `taken` of the same token; what nothing is left of is left out."""
    less = {amount.token: amount.amount for amount in taken}
    left = (TokenAmount(one.token, one.amount - less.get(one.token, 0)) for one in amounts)
    return tuple(amount for amount in left if amount.amount)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job's row. Times are seconds since the epoch, UTC."""

    job_id: int
    session_id: str
    state: str
    """running, idle, claiming, claim_failed, closing, settled."""
    generated: int
    claimed: int
    proven: int
    settled: int
    unclaimed: int
    earned: tuple[TokenAmount, ...]
    """What the contract has credited, in blocks as deep as CONFIRMATIONS asks."""
    pending: tuple[TokenAmount, ...]
    """The part of `earned` whose blocks are not yet as deep as EARNINGS_FROM asks."""
    note: str
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class ClaimedRange:
    """A claim inside a transaction."""

    job_id: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim of a job: tokens `[start, end)`, its state's word (`ClaimState`), and its transaction if it has one."""

    claim_id: int
    start: int
    end: int
    state: str
    tx_hash: str | None
    note: str
    created_at: float


@dataclass(frozen=True, slots=True)
class TransactionView:
    """An attempt's row. `state`: signed, sent, included, confirmed, final, reverted, replaced, dropped."""

    tx_hash: str
    kind: str
    nonce: int
    state: str
    claims: tuple[ClaimedRange, ...]
    block: int | None
    gas_used: int | None
    fee_wei: int | None
    replaces: str | None
    error: str | None
    created_at: float


@dataclass(frozen=True, slots=True)
class EarningsView:
    """The ladder over all jobs, in tokens, and what the contract paid, per token of payment."""

    generated: int
    claimed: int
    proven: int
    settled: int
    written_off: int
    earned: tuple[TokenAmount, ...]
    pending: tuple[TokenAmount, ...]
    """The part of `earned` whose blocks are not yet as deep as EARNINGS_FROM asks: shown apart, a reorganisation may take it."""
    treasury: tuple[TokenAmount, ...]
    gas_wei: int
    withdrawn: tuple[TokenAmount, ...] | None = None
    """What the host has taken out of a contract that keeps a balance for it; None: not read. A contract that pays straight
    to the wallet has nothing to withdraw."""
    withdrawn_as_of: float | None = None
    """When that was read from the chain, in seconds since the epoch."""
    withdrawable: tuple[TokenAmount, ...] | None = None
    """What such a contract keeps for the host now; None: not read."""


def with_kept(view: EarningsView, kept: tuple[TokenAmount, ...] | None, as_of: float | None) -> EarningsView:
    """The ladder with what the contract keeps: what it has credited and does not keep any more was taken out.

    It may keep more than is known here to be credited: then nothing of that token is taken for withdrawn.
    """
    if kept is None:
        return view
    kept_of = {one.token: one.amount for one in kept}
    there = [TokenAmount(one.token, min(one.amount, kept_of.get(one.token, 0))) for one in view.earned]
    return replace(view, withdrawn=without(view.earned, there), withdrawn_as_of=as_of, withdrawable=kept)


@dataclass(frozen=True, slots=True)
class EarningsPoint:
    """One hour or day of the plot: `start` in seconds since the epoch, UTC. None means the app did not run: a gap."""

    start: float
    generated: int | None
    proven: int | None
    earned: tuple[TokenAmount, ...]
