"""Group commit: many writes, one transaction, and an honest answer about what became of it.

Tokens are committed with `synchronous = NORMAL`: a killed process loses nothing, because the log's pages are with the system;
250 ms later at most a commit with `FULL` brings them to the medium, against a loss of power. Whatever was asked for as
durable (claims, slots, attempts) commits with `FULL` at once, and so brings all tokens below it along.

A commit that raised has an unknown outcome: each group carries its number in the row it writes, and the number is read
back. What this does not give: a group that was answered as failed may still be found in the file after a crash that
follows at once. That errs on the safe side: tokens not delivered, or a signed transaction that is sent later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from fabstir_desktop.errors import LedgerDamaged, LedgerError
from fabstir_desktop.ledger.connection import close_quietly, translate
from fabstir_desktop.ledger.rows import fetch_value
from fabstir_desktop.ledger.tokens import count_tokens, note_activity

log = logging.getLogger(__name__)

SYNC_AFTER_S = 0.25
"""Tokens are on the medium this long after they were counted."""
RETRY_S = 1.0
"""While writing fails, it is tried this often without being asked."""
CHECKPOINT_PAGES = 1_000

_OWN_ERRORS = (
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.RangeError,
    apsw.TooBigError,
    apsw.BindingsError,
    apsw.SQLError,
)
"""Errors of one write alone; every other error of SQLite is one of the file and ends the whole group."""

Apply = Callable[[apsw.Connection], Any]
Answer = tuple["asyncio.Future[Any]", Any, BaseException | None]
TokenAdd = tuple["asyncio.Future[int]", int, Sequence[int]]
"""Future, ticket, token ids."""


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction's worth of work; `durable` asks for the medium."""

    future: asyncio.Future[Any]
    apply: Apply
    durable: bool


class Committer:
    """Owns the writing connection; used by the writer's thread alone. `connect` opens it again when it broke."""

    def __init__(self, connection: apsw.Connection, connect: Callable[[], apsw.Connection], venue_id: int) -> None:
        self._connect = connect
        self._venue_id = venue_id
        self.failure: str | None = None
        self.damage: LedgerDamaged | None = None
        self.sync_due: float | None = None
        """When (monotonic) the next sync or retry is due; None: nothing waits for one."""
        self.checked_at: float | None = None
        """When a check found the file sound; stored with the next sync."""
        self._full = True
        self._activity: dict[int, int] = {}
        self._wal_pages = 0
        self._checkpoint_after = 0.0
        self._connection = connection
        self._adopt(connection)
        self._group_number: int = fetch_value(connection, "SELECT group_number FROM writer")

    def commit(self, group: Sequence[TokenAdd | Write]) -> list[Answer]:
        """Commit the group, or only sync if it is empty. Never raises an error of the file: the answers hold it."""
        if self.damage is not None:
            return refuse(group, self.damage)
        full = self._is_full(group)
        answers: list[Answer] = []
        self._group_number += 1
        try:
            counted = self._transact(group, full, answers)
        except apsw.Error as error:
            if not self._is_committed():
                return self._fail(group, translate(error))
            counted = sum(len(item[2]) for item in group if isinstance(item, tuple))
        self._succeed(counted, full)
        return answers

    def checkpoint_when_due(self) -> None:
        """Move the log's pages into the file when there are many. A failure is logged and tried again a second later."""
        if self._wal_pages < CHECKPOINT_PAGES or time.monotonic() < self._checkpoint_after:
            return
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._wal_pages = 0
        except apsw.Error as error:
            self._checkpoint_after = time.monotonic() + RETRY_S
            log.warning("the ledger's log could not be moved into its file: %s", translate(error))

    def finish(self) -> None:
        """Sync, leave a clean mark, empty the log, close."""
        with contextlib.suppress(apsw.Error):
            if self.damage is None:
                self.sync_due = time.monotonic()
                self.commit([])
                self._connection.execute("UPDATE writer SET clean = 1")
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        close_quietly(self._connection)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _is_full(self, group: Sequence[TokenAdd | Write]) -> bool:
        """Whether this commit must reach the medium."""
        if self.sync_due is not None and time.monotonic() >= self.sync_due:
            return True
        return any(isinstance(item, Write) and item.durable for item in group)

    def _transact(self, group: Sequence[TokenAdd | Write], full: bool, answers: list[Answer]) -> int:
        connection = self._connection
        if full is not self._full:
            connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full = full
        connection.execute("BEGIN IMMEDIATE")
        counted = 0
        for item in group:
            if isinstance(item, Write):
                answers.append(self._apply(item))
                continue
            future, ticket_id, token_ids = item
            try:
                answers.append((future, count_tokens(connection, ticket_id, token_ids), None))
                counted += len(token_ids)
            except (apsw.Error, Exception) as error:  # noqa: BLE001 - goes to whoever counted
                answers.append((future, None, _own(error)))
        if full:
            self._add_notes(connection)
        connection.execute("UPDATE writer SET group_number = ?", (self._group_number,))
        connection.execute("COMMIT")
        return counted

    def _add_notes(self, connection: apsw.Connection) -> None:
        """What need not be written with every group."""
        if self._activity:
            note_activity(connection, self._venue_id, self._activity)
        if self.checked_at is not None:
            connection.execute("UPDATE writer SET checked_at = ?", (self.checked_at,))

    def _apply(self, item: Write) -> Answer:
        """One write in a savepoint: if the database refuses it, the others of the group stand."""
        connection = self._connection
        connection.execute("SAVEPOINT one")
        try:
            result = item.apply(connection)
        except (apsw.Error, Exception) as error:  # noqa: BLE001 - goes to whoever wrote
            refusal = _own(error)
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
            return item.future, None, refusal
        connection.execute("RELEASE one")
        return item.future, result, None

    def _succeed(self, counted: int, full: bool) -> None:
        if self.failure is not None:
            log.warning("the ledger can be written again")
            self.failure = None
        if full:
            self._activity.clear()
            self.sync_due = None
        if counted:
            minute = int(time.time() // 60)
            self._activity[minute] = self._activity.get(minute, 0) + counted
        if not full and self.sync_due is None:
            self.sync_due = time.monotonic() + SYNC_AFTER_S

    def _fail(self, group: Sequence[TokenAdd | Write], error: BaseException) -> list[Answer]:
        if self.failure != str(error):
            log.error("the ledger cannot be written: %s", error)
        self.failure = str(error)
        if isinstance(error, LedgerDamaged):
            self.damage = error
        self.sync_due = time.monotonic() + RETRY_S
        return refuse(group, error)

    def _is_committed(self) -> bool:
        """Roll back what may be left of the group and read back whether it was committed; opens the file anew if need be."""
        for is_last in (False, True):
            try:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                return bool(fetch_value(self._connection, "SELECT group_number FROM writer") == self._group_number)
            except apsw.Error:
                if not is_last:
                    self._reopen()
        return False

    def _reopen(self) -> None:
        with contextlib.suppress(apsw.Error, LedgerError):
            connection = self._connect()
            close_quietly(self._connection)
            self._adopt(connection)

    def _adopt(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._full = True
        connection.set_wal_hook(self._note_wal)

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK


def refuse(group: Sequence[TokenAdd | Write], error: BaseException) -> list[Answer]:
    """The same error for everyone of the group."""
    return [(item.future if isinstance(item, Write) else item[0], None, error) for item in group]


def _own(error: Exception) -> Exception:
    """The error of one write, in our words; raises it if it is one of the file."""
    if not isinstance(error, apsw.Error):
        return error
    if not isinstance(error, _OWN_ERRORS):
        raise error
    return translate(error)
