"""From a path to an open ledger: lock, version, backup, migration, quick check, clean mark."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw
from filelock import BaseFileLock

from fabstir_desktop.errors import LedgerDamaged, LedgerError
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.connection import (
    close_quietly,
    open_for_reading,
    open_for_writing,
    prepare_for_writing,
    translate,
)
from fabstir_desktop.ledger.lock import take_lock
from fabstir_desktop.ledger.migrate import check_version, migrate, stored_version
from fabstir_desktop.ledger.rows import fetch_row, fetch_rows, fetch_value
from fabstir_desktop.ledger.schema import MIGRATIONS
from fabstir_desktop.ledger.series import begin_running, mend_activity

QUICK_CHECK_BYTES = 8_000_000
"""Files up to this size are checked before they are used, which takes a tenth of a second; larger ones in the background, while
they are: with a million tokens nobody waits half a second for it."""
CHECK_AFTER_S = 7 * 86_400.0


NOWHERE = Venue(0, "", "")
"""The venue of a ledger that never had a job."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A ledger ready for use. `connect` opens the writing connection again, `connect_reader` the reading one."""

    lock: BaseFileLock
    writing: apsw.Connection
    reading: apsw.Connection
    connect: Callable[[], apsw.Connection]
    connect_reader: Callable[[], apsw.Connection]
    venue_id: int
    must_check: bool
    """A thorough check is due: the last process did not end cleanly, a week has passed, or the file is too large for now."""
    began_at: float
    """When the ledger was first used."""


def open_ledger(path: Path, venue: Venue, vfs: str | None) -> Opened:
    """Open or create the ledger. Blocks. Raises LedgerLocked, LedgerTooNew, LedgerDamaged, LedgerError."""
    lock = take_lock(path)
    try:
        return _open(path, venue, vfs, lock)
    except apsw.Error as error:
        lock.release()
        raise translate(error) from error
    except BaseException:
        lock.release()
        raise


def _open(path: Path, venue: Venue, vfs: str | None, lock: BaseFileLock) -> Opened:
    writing = open_for_writing(path, vfs)
    try:
        check_version(stored_version(writing))
        with contextlib.suppress(OSError):
            path.chmod(0o600)
        prepare_for_writing(writing)
        is_large = path.stat().st_size > QUICK_CHECK_BYTES
        if not is_large:
            check(writing, thorough=False)
        migrate(writing, path)
        clean, checked_at = fetch_row(writing, "SELECT clean, checked_at FROM writer")
        venue_id = _enter(writing, venue)
        reading = open_for_reading(path, vfs)
    except BaseException:
        close_quietly(writing)
        raise

    def connect() -> apsw.Connection:
        connection = open_for_writing(path, vfs)
        prepare_for_writing(connection)
        return connection

    return Opened(
        lock=lock,
        writing=writing,
        reading=reading,
        connect=connect,
        connect_reader=lambda: open_for_reading(path, vfs),
        venue_id=venue_id,
        must_check=is_large or not clean or time.time() - checked_at > CHECK_AFTER_S,
        began_at=fetch_value(writing, "SELECT min(started_at) FROM running"),
    )


def check(connection: apsw.Connection, *, thorough: bool) -> None:
    """Look for damage; `thorough` also compares the indexes and the references. Raises LedgerDamaged, apsw.Error."""
    found = fetch_value(connection, "PRAGMA integrity_check(1)" if thorough else "PRAGMA quick_check(1)")
    if found != "ok":
        raise LedgerDamaged("the ledger file is damaged; it is kept as it is")
    if thorough and fetch_rows(connection, "PRAGMA foreign_key_check"):
        raise LedgerDamaged("rows of the ledger refer to nothing; the file is kept as it is")


def _enter(connection: apsw.Connection, venue: Venue) -> int:
    """Note that a process uses the ledger for this venue; returns the venue's row."""
    with connection:
        connection.execute("UPDATE writer SET clean = 0")
        venue_id = find_venue(connection, venue)
        if venue_id:
            connection.execute("UPDATE venue SET interface = ? WHERE id = ?", (venue.interface, venue_id))
        else:
            key = (venue.chain_id, venue.contract, venue.interface)
            connection.execute("INSERT INTO venue (chain_id, contract, interface) VALUES (?, ?, ?)", key)
            venue_id = connection.last_insert_rowid()
        mend_activity(connection, venue_id)
        begin_running(connection)
    return venue_id


def find_venue(connection: apsw.Connection, venue: Venue) -> int:
    """The venue's row, however its address is spelled; 0, which no job has, if it was never used."""
    key = (venue.chain_id, venue.contract)
    found = fetch_value(
        connection, "SELECT id FROM venue WHERE chain_id = ? AND contract = ? COLLATE NOCASE ORDER BY id LIMIT 1", key
    )
    return int(found or 0)


def last_venue(connection: apsw.Connection) -> Venue | None:
    """The venue whose jobs changed last; None if there never was a job."""
    rows = fetch_rows(
        connection,
        "SELECT v.chain_id, v.contract, v.interface FROM job j JOIN venue v ON v.id = j.venue "
        "ORDER BY j.updated_at DESC LIMIT 1",
    )
    return Venue(*rows[0]) if rows else None


def open_views(path: Path, venue: Venue | None) -> tuple[apsw.Connection, int, Venue]:
    """A reading connection to an existing ledger, the venue's row, and the venue (where None is asked: the one used last).

    Blocks. Raises LedgerTooNew, LedgerError.
    """
    if not path.is_file():
        raise LedgerError(f"there is no ledger in {path.parent}")
    try:
        connection = open_for_reading(path, leave_log=has_log(path))
        try:
            version = stored_version(connection)
            check_version(version)
            if version < len(MIGRATIONS):
                raise LedgerError("the ledger was written by an older version; start the application once")
            wanted = venue or last_venue(connection) or NOWHERE
            return connection, find_venue(connection, wanted), wanted
        except BaseException:
            close_quietly(connection)
            raise
    except apsw.Error as error:
        raise translate(error) from error


def has_log(path: Path) -> bool:
    """Whether something waits in the log: then another process writes, or one was killed."""
    log = path.with_name(path.name + "-wal")
    try:
        return log.stat().st_size > 0
    except OSError:
        return False
