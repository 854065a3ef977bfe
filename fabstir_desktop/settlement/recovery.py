"""At start, after reconciling: tokens that this ledger thinks unclaimed, but the contract has paid, are not claimed again.

That happens when the data directory was restored from an old backup, or the same key earns on a second machine. The
contract's total of a job above what the ledger has sent can only stem from claims this ledger does not know.
"""

from __future__ import annotations

import hashlib
import logging

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import WAITING_STATES, ClaimState
from fabstir_desktop.jobs.events import JobChanged
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.contracts.base import SettlementContract

log = logging.getLogger(__name__)


class Recovery:
    """Compares the ledger's unclaimed jobs with the contract, once."""

    def __init__(
        self, ledger: Ledger, contract: SettlementContract, board: ProblemBoard, feed: Feed, *, host: str
    ) -> None:
        self._ledger = ledger
        self._contract = contract
        self._board = board
        self._feed = feed
        self._host = host

    async def run(self) -> None:
        """Record claims found on chain that the ledger does not have. Raises ChainError, LedgerError."""
        if not self._contract.has_jobs:
            return
        for account in await self._ledger.accounts_with_unclaimed():
            await self._compare(account)

    async def _compare(self, account: JobAccount) -> None:
        facts = await self._contract.read_job(account.job_id)
        if facts is None or not facts.exists or facts.host.lower() != self._host.lower():
            return
        unknown = facts.paid_tokens - account.claimed
        if unknown <= 0:
            return
        note = f"the contract has paid {facts.paid_tokens} tokens, this ledger had claimed {account.claimed}"
        log.warning("Job %d: %s; %d tokens are not claimed again", account.job_id, note, unknown)
        for claim in await self._ledger.claims(job_id=account.job_id, states=WAITING_STATES):
            # It may be one of those that were paid. Without a nonce it can be withdrawn; what is left is planned anew.
            await self._ledger.move_claim(claim.claim_id, ClaimState.VOID, note)
        mark = hashlib.sha256(f"{account.job_id}:{facts.paid_tokens}:{account.claimed}".encode()).digest()
        await self._ledger.record_foreign(account.job_id, unknown, mark, note)
        message = f"Job {account.job_id}: {note}. The difference was claimed elsewhere and is not claimed again."
        advice = "Use one data folder and one machine for each key."
        self._board.report(problem("J03", message, subject=str(account.job_id), advice=advice))
        self._feed.publish(JobChanged(account.job_id))
