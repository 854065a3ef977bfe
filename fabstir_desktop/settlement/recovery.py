"""At start, after reconciling: tokens that this ledger thinks unclaimed, but the contract has paid, are not claimed again.

That happens when the data directory was restored from an old backup, or the same key earns on a second machine. The
contract's total of a job above what the ledger has sent can only stem from claims this ledger does not know.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fabstir_desktop.errors import ChainError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import WAITING_STATES, ClaimState
from fabstir_desktop.jobs.events import JobChanged
from fabstir_desktop.jobs.landed import own_tokens_begin
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.agreement import agreeing
from fabstir_desktop.settlement.attribution import Attribution
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.contracts.base import JobFacts, SettlementContract
from fabstir_desktop.settlement.history import History

log = logging.getLogger(__name__)

PARALLEL_READS = 16


class Recovery:
    """Compares the ledger's unclaimed jobs with the chain: at start, and when nonces were used that are not known here."""

    def __init__(
        self,
        ledger: Ledger,
        contract: SettlementContract,
        attribution: Attribution,
        history: History,
        board: ProblemBoard,
        feed: Feed,
        *,
        host: str,
    ) -> None:
        self._ledger = ledger
        self._contract = contract
        self._attribution = attribution
        self._history = history
        self._board = board
        self._feed = feed
        self._host = host
        self._is_first = True

    async def run(self, lock_of: Callable[[int], asyncio.Lock]) -> None:
        """Record claims found on chain that the ledger does not have; `lock_of` is the job's lock, which every claim holds.

        Transactions come first, for they tell which tokens were claimed; then the contract's total of each job, which
        misses nothing. What was recorded before an error stays. Raises ChainError, LedgerError.
        """
        accounts = await self._ledger.accounts_with_unclaimed()
        at_risk = [account for account in accounts if await self._is_at_risk(account)]
        if not self._is_first:
            accounts = at_risk
        if self._contract.has_jobs:
            accounts = await self._gather([self._is_behind(account) for account in accounts])
            at_risk = [account for account in accounts if account in at_risk]
        await self._history.catch_up(lock_of, [account.job_id for account in at_risk])
        if self._contract.has_jobs:
            await self._gather([self._compare_locked(account.job_id, lock_of) for account in accounts])
        self._is_first = False

    async def _is_at_risk(self, account: JobAccount) -> bool:
        """Whether unclaimed tokens of the job were there when the folder was opened: later ones nobody can have claimed."""
        at_opening, start = self._attribution.at_opening(account.job_id), account.next_start
        if start >= at_opening > 0 and account.reserved:
            waiting = await self._ledger.claims(job_id=account.job_id, states=WAITING_STATES)
            start = min([start, *(claim.start for claim in waiting)])
        return start < at_opening

    async def _gather(self, questions: Sequence[Coroutine[Any, Any, JobAccount | None]]) -> list[JobAccount]:
        """The answers, some at a time; the first error once all are over."""
        reads = asyncio.Semaphore(PARALLEL_READS)

        async def ask(question: Coroutine[Any, Any, JobAccount | None]) -> JobAccount | None:
            async with reads:
                return await question

        results = await asyncio.gather(*(ask(one) for one in questions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [one for one in results if isinstance(one, JobAccount)]

    async def _is_behind(self, account: JobAccount) -> JobAccount | None:
        """The account, if the contract has paid more of the job than the ledger has claimed."""
        facts = await self._contract.read_job(account.job_id)
        if facts is None or not facts.exists or facts.host.lower() != self._host.lower():
            return None
        return account if facts.paid_tokens > account.claimed else None

    async def _compare_locked(self, job_id: int, lock_of: Callable[[int], asyncio.Lock]) -> JobAccount | None:
        async with lock_of(job_id):
            account = await self._ledger.account(job_id)
            if account is not None:
                try:
                    with agreeing():
                        facts = await self._contract.read_job(job_id)
                except ChainError as error:
                    self._history.hold(job_id, f"the contract's total of the job cannot be verified ({error})")
                else:
                    await self._compare(account, facts)
                    self._history.release(job_id)  # the total says it, whatever could be read of single transactions
        return account

    async def _compare(self, account: JobAccount, facts: JobFacts | None) -> None:
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
        account = await self._ledger.account(account.job_id) or account
        own_from = own_tokens_begin(
            account,
            unknown,
            at_opening=self._attribution.at_opening(account.job_id),
            is_exact=False,
            minimum_tokens=self._contract.rules.minimum_tokens,
        )
        await self._ledger.record_foreign(account.job_id, unknown, mark, note, own_from=own_from)
        message = f"Job {account.job_id}: {note}. The difference was claimed elsewhere and is not claimed again."
        advice = "Use one data folder and one machine for each key."
        self._board.report(problem("J03", message, subject=str(account.job_id), advice=advice))
        self._feed.publish(JobChanged(account.job_id))
