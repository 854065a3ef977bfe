"""At start, after reconciling: tokens that this ledger thinks unclaimed, but the contract has paid, are not claimed again.

That happens when the data directory was restored from an old backup, or the same key earns on a second machine. The
contract's total of a job above what the ledger has sent can only stem from claims this ledger does not know.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import WAITING_STATES, ClaimState
from fabstir_desktop.jobs.events import JobChanged
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.contracts.base import SettlementContract

log = logging.getLogger(__name__)

PARALLEL_READS = 16


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

    async def run(self, lock_of: Callable[[int], asyncio.Lock]) -> None:
        """Record claims found on chain that the ledger does not have; `lock_of` is the job's lock, which every claim holds.

        Jobs are compared beside each other; what was recorded before an error stays. Raises ChainError, LedgerError.
        """
        if not self._contract.has_jobs:
            return
        reads = asyncio.Semaphore(PARALLEL_READS)

        async def compare(job_id: int) -> None:
            async with reads, lock_of(job_id):
                account = await self._ledger.account(job_id)
                if account is not None:
                    await self._compare(account)

        jobs = [account.job_id for account in await self._ledger.accounts_with_unclaimed()]
        results = await asyncio.gather(*(compare(job_id) for job_id in jobs), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

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
