"""A checkpoint is confirmed: the line that hosts look for, the state of the claim, and the news for windows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import Claim, ClaimState, Payment
from fabstir_desktop.jobs.events import ClaimChanged
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.contracts.base import SettlementContract

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConfirmedAnnouncer:
    """Tells of confirmed claims of one contract."""

    ledger: Ledger
    contract: SettlementContract
    board: ProblemBoard
    feed: Feed

    async def announce(self, claim: Claim, tx_hash: str, payments: Sequence[Payment]) -> None:
        """Say it, and where the contract tells of no payment, count the claim as settled. Raises LedgerError."""
        if payments:
            log.info("Checkpoint confirmed for job %d - payment distributed (%s)", claim.job_id, split_text(payments))
        elif self.contract.rules.settles_later:
            log.info("Checkpoint confirmed for job %d - it is paid when the session is settled", claim.job_id)
        elif self.contract.has_events:
            log.info("Checkpoint confirmed for job %d - no payment was reported with it", claim.job_id)
        else:
            await self.ledger.mark_settled(claim.claim_id)
            log.info("Checkpoint confirmed for job %d - the contract does not report payments", claim.job_id)
        self.board.clear("T02", subject=str(claim.job_id))
        self.feed.publish(ClaimChanged(claim.job_id, claim.claim_id, claim.tokens, ClaimState.CONFIRMED, tx_hash, ""))

    async def settle_unreported(self, *, can_read: bool) -> None:
        """Where a contract tells of no payment (`can_read`), what is proven counts as settled; a killed process may not have
        said so. Raises LedgerError."""
        if can_read or self.contract.rules.settles_later:
            return
        for job_id in await self.ledger.jobs_to_settle():
            await self.ledger.mark_job_settled(job_id)


def split_text(payments: Sequence[Payment]) -> str:
    """`90% host, 10% treasury`, from the amounts that were paid."""
    host = sum(payment.host_amount for payment in payments)
    total = host + sum(payment.treasury_amount for payment in payments)
    if total == 0:
        return "nothing"
    share = round(host * 10_000 / total) / 100
    return f"{share:g}% host, {round(100 - share, 2):g}% treasury"
