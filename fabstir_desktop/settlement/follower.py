"""Follows what other keys have signed: a key may be removed or replaced while its transactions are on their way.

Their bytes are stored, and sending them again needs no key; neither does learning what became of them. What would need
the key (a higher fee, another nonce) waits until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from fabstir_desktop.errors import ChainError, LedgerError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import SlotState
from fabstir_desktop.jobs.events import JobChanged
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.announce import ConfirmedAnnouncer
from fabstir_desktop.settlement.payments import PaymentReader
from fabstir_desktop.settlement.reconciler import Progress, Reconciler

log = logging.getLogger(__name__)

UNFINISHED = (SlotState.OPEN, SlotState.INCLUDED, SlotState.CONFIRMED)
IDLE_POLLS = 7.5


class Follower:
    """Brings to its end what was signed by keys that no manager works with."""

    def __init__(
        self,
        ledger: Ledger,
        feed: Feed,
        payments: PaymentReader,
        announcer: ConfirmedAnnouncer,
        *,
        reconciler_of: Callable[[str], Reconciler],
        managed_sender: Callable[[], str | None],
        is_ready: Callable[[], bool],
        on_account: Callable[[JobAccount], None],
        poll_s: float,
    ) -> None:
        """`managed_sender` is the address that a manager looks after now, if any."""
        self._ledger = ledger
        self._feed = feed
        self._payments = payments
        self._announcer = announcer
        self._reconciler_of = reconciler_of
        self._managed_sender = managed_sender
        self._is_ready = is_ready
        self._on_account = on_account
        self._poll_s = poll_s
        self._reconcilers: dict[str, Reconciler] = {}
        self._task: asyncio.Task[None] | None = None
        self.open_claims = 0
        """Transactions of other keys on their way, as last seen."""

    def start(self) -> None:
        """Begin, in a task of its own."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="other keys' checkpoints")

    async def stop(self) -> None:
        """End. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            try:
                if self._is_ready():
                    await self._turn()
            except (ChainError, LedgerError) as error:
                log.debug("what other keys have signed is looked at later: %s", error)
            except Exception:
                log.exception("following what other keys have signed failed; it goes on")
            await asyncio.sleep(self._poll_s if self.open_claims else IDLE_POLLS * self._poll_s)

    async def _turn(self) -> None:
        managed = self._managed_sender()
        senders = [one for one in await self._ledger.senders(UNFINISHED) if one != managed]
        self._reconcilers = {one: self._reconcilers.get(one) or self._reconciler_of(one) for one in senders}
        unproven = 0
        for reconciler in self._reconcilers.values():
            progress = await reconciler.look(finality=True)
            await self._tell(progress)
            unproven += progress.unproven_slots
        self.open_claims = unproven
        if managed is None and self._payments.is_stale:
            await self._payments.poll(None)

    async def _tell(self, progress: Progress) -> None:
        if progress.confirmed or progress.paid:
            await self._payments.poll(progress.head, progress.paid)
        for claim, tx_hash, payments in progress.confirmed:
            await self._announcer.announce(claim, tx_hash, payments)
        for job_id in progress.jobs:
            account = await self._ledger.account(job_id)
            if account is not None:
                self._on_account(account)
                self._feed.publish(JobChanged(job_id))
