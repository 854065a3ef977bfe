"""Settles jobs of contracts that pay at completion: once, when nothing more is to be claimed and the contract allows it.

What is to be settled follows from the ledger and the chain alone, so that nothing is forgotten by a restart: jobs with
more proven than settled tokens, whose session is over and whose claims are all closed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from fabstir_desktop.errors import CallReverted
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import Slot, SlotState
from fabstir_desktop.jobs.events import EarningsChanged, JobChanged, TransactionChanged
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.classifier import TAKEN
from fabstir_desktop.settlement.contracts.base import JobFacts, SettlementContract
from fabstir_desktop.settlement.outbox import Outbox

log = logging.getLogger(__name__)

KIND = "complete"
LOOK_AT_REST_POLLS = 30
"""A minute at two seconds a poll."""
UNFINISHED = (SlotState.OPEN, SlotState.INCLUDED)


class Completer:
    """Completes sessions of one host."""

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        contract: SettlementContract,
        outbox: Outbox,
        board: ProblemBoard,
        feed: Feed,
        *,
        has_session: Callable[[int], bool],
        forfeit: Callable[[int, str], Awaitable[int]],
        poll_s: float,
    ) -> None:
        """`forfeit` writes off what a closed job has left, with a reason; see `Claimer.forfeit`."""
        self._ledger = ledger
        self._client = client
        self._contract = contract
        self._outbox = outbox
        self._board = board
        self._feed = feed
        self._has_session = has_session
        self._forfeit = forfeit
        self._poll_s = poll_s
        self._retry_at: dict[int, float] = {}
        self._sent: dict[int, int] = {}
        """Slot of the completion that is on its way, by job."""

    async def run(self) -> bool:
        """Look at every job that waits for its settlement; returns whether any does. Raises ChainError, LedgerError."""
        if not self._contract.rules.settles_later:
            return False
        waiting = await self._ledger.jobs_to_settle()
        # A session that ended with nothing proven, or with a tail below the minimum, is followed until its end is known too.
        left = [account.job_id for account in await self._ledger.accounts_with_unclaimed()]
        now = time.monotonic()
        unfinished = await self._unfinished()
        for job_id in dict.fromkeys([*waiting, *left]):
            if now >= self._retry_at.get(job_id, 0.0):
                self._retry_at[job_id] = now + await self._advance(job_id, unfinished)
        return bool(waiting)

    async def _advance(self, job_id: int, unfinished: dict[int, Slot]) -> float:
        """One step for one job; returns how long to wait before the next."""
        if self._has_session(job_id):
            return self._poll_s  # it goes on: the chain is not asked
        facts = await self._contract.read_job(job_id)
        account = await self._ledger.account(job_id)
        # An open job with nothing to settle may still be claimed, or closed by others.
        if (
            facts is None
            or account is None
            or not facts.exists
            or (facts.is_open and account.proven == account.settled)
        ):
            return LOOK_AT_REST_POLLS * self._poll_s
        if not facts.is_open:
            return await self._settled(account)
        is_sent = self._sent.get(job_id) in unfinished
        unknown = set(unfinished) - set(self._sent.values())  # from before a restart: any of them may be this job's
        if account.open_claims or is_sent or unknown:
            return self._poll_s
        if account.claimable >= max(self._contract.rules.minimum_tokens, facts.first_claim_minimum):
            return self._poll_s  # it is claimed first
        return await self._complete(job_id, facts)

    async def _complete(self, job_id: int, facts: JobFacts) -> float:
        head = await self._client.head()
        wait_s = (facts.completable_at or 0.0) - head.timestamp
        if wait_s > 0:
            return min(wait_s, 5 * self._poll_s)
        calldata = self._contract.encode_completion(job_id)
        try:
            await self._contract.simulate(self._outbox.sender, calldata)
            quote = await self._outbox.quote(self._contract.address, calldata)
            slot = await self._outbox.bind(self._contract.address, [], quote, kind=KIND)
        except CallReverted as error:
            log.info("Job %d is settled later: %s", job_id, self._contract.explain(error.reason).plain)
            return 10.0
        except ClaimWaits as wait:
            if wait.problem is not None:
                self._board.raise_(wait.problem)
            return wait.retry_s
        self._sent[job_id] = slot.slot_id
        answer = await self._outbox.send(slot)
        told = "" if answer.answer in TAKEN else " (no node has taken it yet; it is sent again)"
        log.info("Session of job %d is settled - tx_hash: 0x%s%s", job_id, slot.attempts[-1].tx_hash.hex(), told)
        self._feed.publish(TransactionChanged(slot.slot_id))
        return self._poll_s

    async def _settled(self, account: JobAccount) -> float:
        """The contract has closed the job: what was proven is credited, what was not is forfeited, and written off once the
        end cannot be reorganised away. Returns how long to wait before the next look."""
        job_id, left = account.job_id, account.claimable
        if left > 0:
            note = f"{left} tokens were not claimed before the session was settled and cannot be paid"
            await self._ledger.note_job(job_id, note)
            self._board.report(problem("J04", f"Job {job_id}: {note}.", subject=str(job_id)))
            await self._forfeit(job_id, note)
        await self._ledger.mark_job_settled(job_id)
        self._sent.pop(job_id, None)
        self._feed.publish(JobChanged(job_id))
        self._feed.publish(EarningsChanged(frozenset({job_id})))
        return LOOK_AT_REST_POLLS * self._poll_s if left == 0 else 5 * self._poll_s

    async def _unfinished(self) -> dict[int, Slot]:
        slots = await self._ledger.slots(self._outbox.sender, UNFINISHED)
        return {slot.slot_id: slot for slot in slots if slot.kind == KIND}
