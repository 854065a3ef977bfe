"""What windows and scripts are shown: rows read from the ledger, integers only, formatted at the edges."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenAmount:
    """An amount in the smallest unit of `token` ("ETH" or a token's address). Amounts of two tokens are never added."""

    token: str
    amount: int


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
    treasury: tuple[TokenAmount, ...]
    gas_wei: int


@dataclass(frozen=True, slots=True)
class EarningsPoint:
    """One hour or day of the plot: `start` in seconds since the epoch, UTC. None means the app did not run: a gap."""

    start: float
    generated: int | None
    proven: int | None
    earned: tuple[TokenAmount, ...]
