"""The one thread that writes: it takes all that waits as one group, has it committed, and answers the loop once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
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
        self._queue: queue.SimpleQueue[Sequence[TokenAdd | Write] | None] = queue.SimpleQueue()
        """None is the end. A condition would do as well, and cost each token two more changes of threads."""
        self._put = 0
        """Writes that were ever queued; counted by the loop's thread alone, as `_taken` is by the writer's."""
        self._taken = 0
        self._left_over: list[TokenAdd | Write] = []
        self._is_last = False
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
        if not self._closing and self._put - self._taken + len(items) <= MAXIMUM_WAITING:
            self._put += len(items)
            self._queue.put(items)
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
        if not self._closing:
            self._closing = True
            self._queue.put(None)
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
        waiting, self._left_over = self._left_over, []
        if not waiting and not self._is_last:
            due = self._committer.sync_due
            try:
                self._add(waiting, self._queue.get(timeout=None if due is None else max(0.0, due - time.monotonic())))
            except queue.Empty:
                return ()
        with contextlib.suppress(queue.Empty):
            while len(waiting) < MAXIMUM_GROUP and not self._is_last:
                self._add(waiting, self._queue.get_nowait())
        if not waiting:
            return None
        group, self._left_over = waiting[:MAXIMUM_GROUP], waiting[MAXIMUM_GROUP:]
        self._taken += len(group)
        return group

    def _add(self, waiting: list[TokenAdd | Write], items: Sequence[TokenAdd | Write] | None) -> None:
        if items is None:
            self._is_last = True
        else:
            waiting.extend(items)

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
