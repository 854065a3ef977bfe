"""Claims that travel together: prepare what is due, send up to fifty in one transaction, one transaction at a time.

Each claim is prepared as one that travels alone (read, proven, simulated, planned); only the nonce is shared. What does not
fit stays planned, or due, and is next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from fabstir_desktop.errors import ChainError, LedgerError, SignerLocked
from fabstir_desktop.jobs.claims import WAITING_STATES, Claim, ClaimReason
from fabstir_desktop.jobs.policy import ClaimLater
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.batching import BATCH_SIZE, first_batch
from fabstir_desktop.settlement.board import ClaimWaits, ShortOfGasMoney
from fabstir_desktop.settlement.claimer import Claimer, Prepared, Submitted
from fabstir_desktop.settlement.due_list import DueList
from fabstir_desktop.settlement.outbox import Outbox

PARALLEL_PREPARATIONS = 10
"""Each asks the RPC several questions; public ones count them."""

Made = Submitted | Prepared | ClaimLater
Make = Callable[[], Awaitable[Made]]


class Guard(Protocol):
    """How the manager makes one claim, or lets it wait: whatever stands in the way leaves the job due."""

    async def attempt(self, job_id: int, make: Make, fallback: ClaimReason) -> Made:
        """Run `make` for the job."""
        ...

    def put_off(self, job_id: int, reason: ClaimReason, error: Exception) -> ClaimLater:
        """Let the job wait, because of the error."""
        ...

    async def note_made(self, job_id: int) -> None:
        """A claim of the job is out."""
        ...

    def lock(self, job_id: int) -> asyncio.Lock:
        """The job's lock, which every step of a claim holds."""
        ...


class BatchRounds:
    """One host's batches. Belongs to the manager's task."""

    def __init__(
        self, ledger: Ledger, claimer: Claimer, outbox: Outbox, due: DueList, guard: Guard, *, poll_s: float
    ) -> None:
        self._ledger = ledger
        self._claimer = claimer
        self._outbox = outbox
        self._due = due
        self._guard = guard
        self._poll_s = poll_s
        self._preparing = asyncio.Semaphore(PARALLEL_PREPARATIONS)

    async def run(self) -> None:
        """Send one transaction, if anything is due and nothing is on its way. Raises LedgerError."""
        if await self._outbox.is_full():
            self._due.rest(self._poll_s)  # meanwhile their tokens gather
            return
        self._due.end_rest()
        prepared = await self._prepare()
        if not prepared:
            return
        places = first_batch([one.reverts for one in prepared], [one.quote.gas_limit for one in prepared])
        batch = [prepared[place] for place in places]
        try:
            batch = await self._send(batch)
        except (ClaimWaits, ChainError, LedgerError, SignerLocked) as error:
            for one in batch:
                self._guard.put_off(one.claim.job_id, one.claim.reason, error)
            return
        for one in batch:
            await self._guard.note_made(one.claim.job_id)

    async def _send(self, batch: list[Prepared]) -> list[Prepared]:
        """Send the claims, the first half of them where there is gas money for no more; returns what was sent.

        Raises like `Claimer.send`; then nothing was.
        """
        while len(batch) > 1:
            try:
                await self._claimer.send_together(batch)
            except ShortOfGasMoney:
                batch = batch[: len(batch) // 2]
            else:
                return batch
        await self._claimer.send(batch[0])
        return batch

    async def _prepare(self) -> list[Prepared]:
        """Claims that may be signed now, oldest first: no more than fit, unless some of the chosen are not to be made."""
        waiting = await self._candidates()
        prepared: list[Prepared] = []
        while waiting and len(prepared) < BATCH_SIZE:
            count = BATCH_SIZE - len(prepared)
            chosen, waiting = waiting[:count], waiting[count:]
            made = await asyncio.gather(*(self._one_of_few(prepare) for prepare in chosen))
            prepared += [one for one in made if isinstance(one, Prepared)]
        return sorted(prepared, key=lambda one: one.claim.claim_id)

    async def _one_of_few(self, prepare: Make) -> Made:
        async with self._preparing:
            return await prepare()

    async def _candidates(self) -> list[Make]:
        planned = [
            claim
            for claim in await self._ledger.claims(states=WAITING_STATES)
            if not self._due.is_waiting(claim.job_id)
        ]
        jobs = {claim.job_id for claim in planned}
        due = [job_id for job_id in self._due.ready() if job_id not in jobs]
        return [
            *(partial(self._prepare_planned, claim) for claim in planned),
            *(partial(self._prepare_due, job_id) for job_id in due),
        ]

    async def _prepare_planned(self, listed: Claim) -> Made:
        async with self._guard.lock(listed.job_id):
            claim = await self._ledger.claim(listed.claim_id)
            if claim.state not in WAITING_STATES:
                return ClaimLater("it is made already")
            return await self._guard.attempt(claim.job_id, partial(self._claimer.prepare_again, claim), claim.reason)

    async def _prepare_due(self, job_id: int) -> Made:
        async with self._guard.lock(job_id):
            entry = self._due.get(job_id)
            if entry is None:
                return ClaimLater("it is not due any more")
            trigger = None if entry.reason is ClaimReason.THRESHOLD else entry.reason
            return await self._guard.attempt(job_id, partial(self._claimer.prepare, job_id, trigger), entry.reason)
