"""How SQLite is opened, and how its errors become ours."""

from __future__ import annotations

import contextlib
from pathlib import Path

import apsw

from fabstir_desktop.errors import LedgerDamaged, LedgerError, LedgerRefused
from fabstir_desktop.ledger.rows import fetch_value

OLDEST_SQLITE = (3, 51, 3)
"""Older ones can corrupt a write-ahead log that two connections use."""

PRAGMAS = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA recursive_triggers = ON",  # else INSERT OR REPLACE would delete without asking the triggers
)
"""What every connection must have for the rules to hold."""
_WRITER_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = 1",
    "PRAGMA checkpoint_fullfsync = 1",
    # The writer checkpoints by itself, between commits: so an error of a checkpoint is never taken for one of a commit.
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA cache_size = -16000",
)


def open_for_writing(path: Path, vfs: str | None = None) -> apsw.Connection:
    """The one connection that writes; creates the file if there is none. Does not change an existing one.

    Raises apsw.Error, LedgerError.
    """
    if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < OLDEST_SQLITE:
        raise LedgerError(f"SQLite {apsw.sqlite_lib_version()} can damage the ledger; 3.51.3 or newer is needed")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs=vfs)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        # Until the version is known to be ours the file is left as it is, also when the connection is closed.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for pragma in PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        close_quietly(connection)
        raise
    return connection


def prepare_for_writing(connection: apsw.Connection) -> None:
    """Switch to the write-ahead log and to full durability. Raises apsw.Error, LedgerError."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    mode = fetch_value(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise LedgerError(
            "this file system cannot hold the ledger safely (no write-ahead log); choose another data folder"
        )
    for pragma in _WRITER_PRAGMAS:
        connection.execute(pragma)


def open_for_reading(path: Path, vfs: str | None = None, *, leave_log: bool = True) -> apsw.Connection:
    """A connection that cannot write to an existing file; `leave_log`: closing it does not tidy up the log. Raises apsw.Error."""
    # Not opened as read-only: SQLite then could not remove the shared memory file that even a reader needs.
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(leave_log))
        for pragma in (*PRAGMAS, "PRAGMA query_only = ON"):
            connection.execute(pragma)
    except BaseException:
        close_quietly(connection)
        raise
    return connection


def close_quietly(connection: apsw.Connection) -> None:
    """Close whatever its state; an error of the disk while closing has nobody left to go to."""
    with contextlib.suppress(apsw.Error):
        connection.close()


_SENTENCES: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.FullError, "the disk is full"),
    (apsw.IOError, "the disk reports an error"),
    (apsw.BusyError, "another program holds the ledger"),
    (apsw.LockedError, "another program holds the ledger"),
    (apsw.ReadOnlyError, "the ledger file is read-only"),
    (apsw.PermissionsError, "the ledger file must not be opened"),
    (apsw.CantOpenError, "the ledger file cannot be opened"),
    (apsw.NoMemError, "there is not enough memory"),
)


def translate(error: apsw.Error) -> LedgerError | LedgerRefused:
    """The error in our words; `from` keeps the library's."""
    if isinstance(error, apsw.ConstraintError):
        return LedgerRefused(str(error))
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return LedgerDamaged("the ledger file is damaged; it is kept as it is")
    for kind, sentence in _SENTENCES:
        if isinstance(error, kind):
            return LedgerError(sentence)
    return LedgerError(f"the ledger cannot be used: {error}")
