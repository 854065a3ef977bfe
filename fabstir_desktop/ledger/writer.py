"""The one thread that writes: it takes all that waits as one group, has it committed, and answers the loop once."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from fabstir_desktop.errors import LedgerDamaged, LedgerError
from fabstir_desktop.ledger.committer import Answer, Apply, Committer, TokenAdd, Write, refuse

log = logging.getLogger(__name__)

MAXIMUM_WAITING = 20_000
"""Writes that may wait; more are refused at once."""
MAXIMUM_GROUP = 2_000


class Writer:
    """The queue in front of the committer. All methods but `damaged` belong to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, committer: Committer, on_closed: Callable[[], None]) -> None:
        self._loop = loop
        self._committer = committer
        self._on_closed = on_closed
        self._wakeup = threading.Condition()
        self._waiting: list[TokenAdd | Write] = []
        self._closing = False
        self._closed: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why nothing can be written just now."""
        return self._committer.failure

    def write(self, apply: Apply, *, durable: bool) -> asyncio.Future[Any]:
        """Run `apply` in a transaction; the future has its result once that is committed."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.put([Write(future, apply, durable)])
        return future

    def put(self, items: Sequence[TokenAdd | Write]) -> None:
        """Queue writes; their futures are answered in any case."""
        with self._wakeup:
            if not self._closing and len(self._waiting) + len(items) <= MAXIMUM_WAITING:
                self._waiting.extend(items)
                self._wakeup.notify()
                return
        reason = "is closed" if self._closing else "is too slow; too much waits to be written"
        deliver(refuse(items, LedgerError(f"the ledger {reason}")))

    def damaged(self, error: LedgerDamaged) -> None:
        """Write no more: the file was found damaged. Callable from any thread."""
        self._committer.damage = error
        self._committer.failure = str(error)

    def note_checked(self) -> None:
        """Remember that the file was checked and is sound. Callable from any thread."""
        self._committer.checked_at = time.time()

    async def close(self) -> None:
        """Commit what waits, bring it to the medium, close the file. Safe to call twice."""
        with self._wakeup:
            self._closing = True
            self._wakeup.notify()
        await asyncio.shield(self._closed)

    # --- on the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._answer(self._commit(group))
                self._committer.checkpoint_when_due()
            self._committer.finish()
        finally:
            self._on_closed()
            self._answer([(self._closed, None, None)])

    def _commit(self, group: Sequence[TokenAdd | Write]) -> list[Answer]:
        try:
            return self._committer.commit(group)
        except Exception as error:
            log.exception("the ledger's writer failed")
            return refuse(group, LedgerError(f"the ledger's writer failed: {type(error).__name__}"))

    def _next_group(self) -> Sequence[TokenAdd | Write] | None:
        """What waits; empty when a sync or a retry is due; None when all is done and the ledger closes."""
        with self._wakeup:
            while not self._waiting:
                if self._closing:
                    return None
                due = self._committer.sync_due
                pause_s = None if due is None else due - time.monotonic()
                if pause_s is not None and pause_s <= 0:
                    return ()
                self._wakeup.wait(pause_s)
            group = self._waiting[:MAXIMUM_GROUP]
            del self._waiting[:MAXIMUM_GROUP]
            return group

    def _answer(self, answers: list[Answer]) -> None:
        if not answers:
            return
        try:
            self._loop.call_soon_threadsafe(deliver, answers)
        except RuntimeError:
            log.debug("the loop is closed; %d answers of the ledger reach nobody", len(answers))


def deliver(answers: list[Answer]) -> None:
    """Give each future its answer; runs on the loop."""
    for future, result, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
