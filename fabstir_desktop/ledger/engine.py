"""The threads of an open ledger, behind one object: write, read, count tokens, close."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw

from fabstir_desktop.errors import LedgerError
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.committer import Committer, TokenAdd
from fabstir_desktop.ledger.connection import close_quietly, open_for_reading
from fabstir_desktop.ledger.keeper import Keeper
from fabstir_desktop.ledger.reader import Reader
from fabstir_desktop.ledger.startup import Opened, has_log, open_ledger, open_views
from fabstir_desktop.ledger.writer import Writer

T = TypeVar("T")


class LedgerEngine:
    """Belongs to the loop that opened it. Without a writer it answers views only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        venue_id: int,
        reader: Reader,
        writer: Writer | None,
        keeper: Keeper | None,
    ) -> None:
        self.venue_id = venue_id
        self._loop = loop
        self._reader = reader
        self._writer = writer
        self._keeper = keeper
        self._gathered: list[TokenAdd] = []

    @property
    def failure(self) -> str | None:
        """Why nothing can be written just now."""
        return None if self._writer is None else self._writer.failure

    def read(self, question: Callable[[apsw.Connection], T]) -> Awaitable[T]:
        """The answer of `question`, asked on the reading thread in one snapshot."""
        return self._reader.read(question)

    def write(self, apply: Callable[[apsw.Connection], T], *, durable: bool) -> Awaitable[T]:
        """The result of `apply` once it is committed; `durable` waits for the medium."""
        if self._writer is None:
            raise LedgerError("this ledger is open for reading only")
        self._hand_over()  # what was counted before stays before
        return self._writer.write(apply, durable=durable)

    def add_tokens(self, ticket_id: int, token_ids: Sequence[int]) -> asyncio.Future[int]:
        """Count tokens; what is counted in one turn of the loop goes to the writer together."""
        future: asyncio.Future[int] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append((future, ticket_id, tuple(token_ids)))
        return future

    async def close(self) -> None:
        """Stop the threads: the keeper gives way, the reader answers, the writer commits. Safe to call twice."""
        self._hand_over()
        if self._keeper is not None:
            await run_in_thread(self._keeper.stop)
        await self._reader.close()
        if self._writer is not None:
            await self._writer.close()

    def _hand_over(self) -> None:
        if not self._gathered:
            return
        tokens, self._gathered = self._gathered, []
        if self._writer is None:
            for future, *_counted in tokens:
                future.set_exception(LedgerError("this ledger is open for reading only"))
        else:
            self._writer.put(tokens)


async def open_engine(path: Path, venue: Venue, vfs: str | None) -> LedgerEngine:
    """Open or create the ledger and start its threads. Raises LedgerError and its kinds."""
    loop = asyncio.get_running_loop()
    opened = await run_in_thread(lambda: open_ledger(path, venue, vfs), _discard)
    committer = Committer(opened.writing, opened.connect, opened.venue_id)
    writer = Writer(loop, committer, opened.lock.release)
    reader = Reader(loop, opened.reading, opened.connect_reader)
    keeper = Keeper(
        path,
        opened.connect_reader,
        must_check=opened.must_check,
        began_at=opened.began_at,
        on_damage=writer.damaged,
        on_checked=writer.note_checked,
    )
    return LedgerEngine(loop, opened.venue_id, reader, writer, keeper)


async def open_view_engine(path: Path, venue: Venue | None) -> tuple[LedgerEngine, Venue]:
    """Open an existing ledger for views only, and tell its venue. Raises LedgerError, LedgerTooNew."""
    loop = asyncio.get_running_loop()
    connection, venue_id, found = await run_in_thread(
        lambda: open_views(path, venue), lambda opened: close_quietly(opened[0])
    )
    reader = Reader(loop, connection, lambda: open_for_reading(path, leave_log=has_log(path)))
    return LedgerEngine(loop, venue_id, reader, None, None), found


def _discard(opened: Opened) -> None:
    close_quietly(opened.reading)
    close_quietly(opened.writing)
    opened.lock.release()


async def run_in_thread(work: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
    """Run `work` on a thread of its own (so no loop's default executor is needed); a result nobody waits for is discarded."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - goes to whoever waits
            done.set_exception(error)

    def drop(abandoned: asyncio.Future[T]) -> None:
        if not abandoned.cancelled() and abandoned.exception() is None and discard is not None:
            discard(abandoned.result())

    threading.Thread(target=run, name="ledger-opener", daemon=True).start()
    future = asyncio.wrap_future(done)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(drop)
        raise
