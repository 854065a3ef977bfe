"""The thread that reads: a second connection which cannot write, one consistent snapshot for each question."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import apsw

from fabstir_desktop.errors import LedgerError
from fabstir_desktop.ledger.committer import Answer, Apply
from fabstir_desktop.ledger.connection import close_quietly, translate
from fabstir_desktop.ledger.writer import deliver

log = logging.getLogger(__name__)

MAXIMUM_WAITING = 1_000
"""Questions that may wait; more are refused at once."""


class Reader:
    """Answers questions in order, off the loop. `connect` opens the connection again when it broke."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: apsw.Connection, connect: Callable[[], apsw.Connection]
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._connect = connect
        self._wakeup = threading.Condition()
        self._waiting: list[tuple[asyncio.Future[Any], Apply]] = []
        self._closing = False
        self._closed: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="ledger-reader", daemon=True)
        self._thread.start()

    def read(self, question: Apply) -> asyncio.Future[Any]:
        """Run `question` on the reading connection; the future has its answer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._wakeup:
            if not self._closing and len(self._waiting) < MAXIMUM_WAITING:
                self._waiting.append((future, question))
                self._wakeup.notify()
                return future
        future.set_exception(
            LedgerError("the ledger is closed" if self._closing else "too many questions wait for the ledger")
        )
        return future

    async def close(self) -> None:
        """Answer what waits and close. Safe to call twice."""
        with self._wakeup:
            self._closing = True
            self._wakeup.notify()
        await asyncio.shield(self._closed)

    # --- on the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (questions := self._next_questions()) is not None:
                self._reply([self._ask(future, question) for future, question in questions if not future.cancelled()])
        finally:
            close_quietly(self._connection)
            self._reply([(self._closed, None, None)])

    def _next_questions(self) -> list[tuple[asyncio.Future[Any], Apply]] | None:
        with self._wakeup:
            while not self._waiting:
                if self._closing:
                    return None
                self._wakeup.wait()
            questions, self._waiting = self._waiting, []
            return questions

    def _ask(self, future: asyncio.Future[Any], question: Apply) -> Answer:
        try:
            self._connection.execute("BEGIN")
            answer = question(self._connection)
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            self._mend()
            return future, None, translate(error)
        except Exception as error:  # noqa: BLE001 - the thread must live: whoever asked gets the error
            self._mend()
            return future, None, error
        return future, answer, None

    def _mend(self) -> None:
        """Leave no transaction open; a connection that cannot even do that is replaced."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error:
            close_quietly(self._connection)
            with contextlib.suppress(apsw.Error):
                self._connection = self._connect()

    def _reply(self, answers: list[Answer]) -> None:
        try:
            self._loop.call_soon_threadsafe(deliver, answers)
        except RuntimeError:
            log.debug("the loop is closed; %d answers of the ledger reach nobody", len(answers))
