"""Settles jobs of contracts that pay at completion: once, when nothing more is to be claimed and the contract allows it.

What is to be settled follows from the ledger and the chain alone, so that nothing is forgotten by a restart: jobs with
more proven than settled tokens, whose session is over and whose claims are all closed; and jobs of which nothing was proven in
time, which are closed by their time-out. What is on its way, and what was reverted, is known by its stored calldata.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from fabstir_desktop.errors import CallReverted
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import PROVEN_STATES, SENT_STATES, Slot, SlotState
from fabstir_desktop.jobs.events import EarningsChanged, JobChanged, TransactionChanged
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.classifier import TAKEN
from fabstir_desktop.settlement.closing import Closing, is_timed_out, next_closing
from fabstir_desktop.settlement.contracts.base import JobFacts, SettlementContract
from fabstir_desktop.settlement.last_try import LastTry
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.settlement.resting import rest_after_reverts_s
from fabstir_desktop.wallet.signer import read_payload

log = logging.getLogger(__name__)

COMPLETE = "complete"
TIME_OUT = "timeout"
KINDS = (COMPLETE, TIME_OUT)
LOOK_AT_REST_POLLS = 30
"""A minute at two seconds a poll."""
OWN_NONCE = tuple(SENT_STATES - PROVEN_STATES)
"""A claim in one of these may still be mined: nothing is closed before."""
REFUSED_RETRY_S = 10.0
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
        last_try: LastTry,
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
        self._last_try = last_try
        self._poll_s = poll_s
        self._retry_at: dict[int, float] = {}

    async def run(self) -> bool:
        """Look at every job that waits for its settlement; returns whether any does. Raises ChainError, LedgerError."""
        if not self._contract.rules.settles_later:
            return False
        waiting = await self._ledger.jobs_to_settle()
        # A session that ended with nothing proven, or with a tail below the minimum, is followed until its end is known too.
        left = [account.job_id for account in await self._ledger.accounts_with_unclaimed()]
        now = time.monotonic()
        unfinished = await self._unfinished()
        jobs = dict.fromkeys([*waiting, *left])
        self._retry_at = {job_id: retry_at for job_id, retry_at in self._retry_at.items() if job_id in jobs}
        for job_id in jobs:
            if now >= self._retry_at.get(job_id, 0.0):
                self._retry_at[job_id] = now + await self._advance(job_id, unfinished)
        return bool(waiting)

    async def _advance(self, job_id: int, unfinished: set[bytes]) -> float:
        """One step for one job; returns how long to wait before the next."""
        if self._has_session(job_id):
            return self._poll_s  # it goes on: the chain is not asked
        facts = await self._contract.read_job(job_id)
        account = await self._ledger.account(job_id)
        if facts is None or account is None or not facts.exists:
            return LOOK_AT_REST_POLLS * self._poll_s
        if not facts.is_open:
            return await self._settled(account)
        if facts.host.lower() != self._outbox.sender.lower():
            return LOOK_AT_REST_POLLS * self._poll_s  # another key's: this one pays no gas for it
        return await self._close(account, facts, unfinished)

    async def _close(self, account: JobAccount, facts: JobFacts, unfinished: set[bytes]) -> float:
        """One step towards the end of an open session that nobody uses any more."""
        rest_s = self._poll_s if account.proven > account.settled else LOOK_AT_REST_POLLS * self._poll_s
        now = (await self._client.head()).timestamp
        step = next_closing(facts, account, minimum_tokens=self._contract.rules.minimum_tokens, now=now)
        if step is Closing.WAIT and facts.completable_at is not None and account.proven > account.settled:
            return max(self._poll_s, min(facts.completable_at - now, 5 * self._poll_s))
        if step in (Closing.WAIT, Closing.CLAIM):
            return rest_s
        calldata = self._calldata(account.job_id)
        is_sent = not unfinished.isdisjoint(calldata.values())
        if is_sent or await self._ledger.claims(job_id=account.job_id, states=OWN_NONCE, limit=1):
            return self._poll_s
        if await self._last_try.may_be_claimed(account, facts):
            return REFUSED_RETRY_S
        ways = [COMPLETE, TIME_OUT] if step is Closing.COMPLETE else [TIME_OUT]
        if not is_timed_out(facts, now=now):
            ways.remove(TIME_OUT)
        return await self._send_one({kind: calldata[kind] for kind in ways if calldata[kind]}, account.job_id)

    def _calldata(self, job_id: int) -> dict[str, bytes]:
        return {
            COMPLETE: self._contract.encode_completion(job_id),
            TIME_OUT: self._contract.encode_time_out(job_id),
        }

    async def _send_one(self, ways: Mapping[str, bytes], job_id: int) -> float:
        """Close the session in the first of these ways that the contract takes; returns how long to wait."""
        for kind, calldata in ways.items():
            wait_s = await self._send(job_id, kind, calldata)
            if wait_s is not None:
                return wait_s
        return REFUSED_RETRY_S

    async def _send(self, job_id: int, kind: str, calldata: bytes) -> float | None:
        """Close the session; returns how long to wait before the next look, None where the contract would refuse it."""
        slots = await self._ledger.reverted_slots(self._outbox.sender, kind)
        reverted = [slot for slot in slots if self._carried(slot) == calldata]
        reverts, last_at = len(reverted), max((slot.created_at for slot in reverted), default=0.0)
        left_s = last_at + rest_after_reverts_s(reverts) - time.time()
        if left_s > 0:
            return left_s  # a trial had passed before, and each revert costs gas
        try:
            await self._contract.simulate(self._outbox.sender, calldata)
            quote = await self._outbox.quote(self._contract.address, calldata, reverts=reverts)
            slot = await self._outbox.bind(self._contract.address, [], quote, kind=kind)
        except CallReverted as error:
            log.info("Job %d is settled later: %s", job_id, self._contract.explain(error.reason).plain)
            return None
        except ClaimWaits as wait:
            if wait.problem is not None:
                self._board.raise_(wait.problem)
            return wait.retry_s
        answer = await self._outbox.send(slot)
        told = "" if answer.answer in TAKEN else " (no node has taken it yet; it is sent again)"
        how = "settled" if kind == COMPLETE else "closed by its time-out"
        log.info("Session of job %d is %s - tx_hash: 0x%s%s", job_id, how, slot.attempts[-1].tx_hash.hex(), told)
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
        self._feed.publish(JobChanged(job_id))
        self._feed.publish(EarningsChanged(frozenset({job_id})))
        return LOOK_AT_REST_POLLS * self._poll_s if left == 0 else 5 * self._poll_s

    async def _unfinished(self) -> set[bytes]:
        """The calldata of what closes sessions of this contract and is on its way, or in a block that is not deep enough."""
        slots = [slot for slot in await self._ledger.slots(self._outbox.sender, UNFINISHED) if slot.kind in KINDS]
        return {calldata for slot in slots if (calldata := self._carried(slot)) is not None}

    def _carried(self, slot: Slot) -> bytes | None:
        """The calldata that the slot's transaction has for this contract; None if it is for another."""
        to, calldata = read_payload(slot.attempts[0].raw)
        return calldata if to.lower() == self._contract.address.lower() else None
