"""Bring a file to the newest version: a backup first, then everything in one transaction; never backwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import apsw

from fabstir_desktop.errors import LedgerDamaged, LedgerError, LedgerTooNew
from fabstir_desktop.ledger.backup import back_up
from fabstir_desktop.ledger.rows import fetch_rows, fetch_value
from fabstir_desktop.ledger.schema import APPLICATION_ID, MIGRATIONS
from fabstir_desktop.ledger.triggers import TRIGGERS


def stored_version(connection: apsw.Connection) -> int:
    """The version of the file; 0 for an empty one. Raises LedgerError if the file is another program's."""
    version = int(fetch_value(connection, "PRAGMA user_version"))
    application = int(fetch_value(connection, "PRAGMA application_id"))
    empty = fetch_value(connection, "SELECT count(*) FROM sqlite_schema") == 0
    if empty and version == 0:
        return 0
    if application != APPLICATION_ID or version <= 0:
        raise LedgerError("the file is not a ledger of this application; choose another data folder")
    return version


def check_version(version: int, newest: int = len(MIGRATIONS)) -> None:
    """Refuse a file of a newer application. Raises LedgerTooNew."""
    if version > newest:
        raise LedgerTooNew(
            f"the ledger has version {version}, this application knows {newest}: install the newer application; "
            "the ledger is left untouched"
        )


def migrate(connection: apsw.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> Path | None:
    """Make the file the newest version; returns the backup if one was made.

    Raises LedgerTooNew, LedgerDamaged, LedgerError, apsw.Error; then the file is as before.
    """
    version = stored_version(connection)
    check_version(version, len(migrations))
    stored = dict(fetch_rows(connection, "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
    if version == len(migrations) and stored == TRIGGERS:
        return None
    backup = None
    if 0 < version < len(migrations):
        backup = back_up(connection, path, f"v{version}-{time.strftime('%Y%m%d-%H%M%S')}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        _rebuild(connection, stored, migrations[version:])
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return backup


def _rebuild(connection: apsw.Connection, stored: dict[str, str], steps: Sequence[str]) -> None:
    for name in stored:
        connection.execute(f'DROP TRIGGER "{name}"')
    for script in steps:
        connection.execute(script)
    for sql in TRIGGERS.values():
        connection.execute(sql)
    if fetch_rows(connection, "PRAGMA foreign_key_check"):
        raise LedgerDamaged("after the migration rows would refer to nothing; the ledger is kept as it was")
