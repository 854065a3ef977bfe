"""Copies of the ledger beside it, made by SQLite while it is in use, checked, and on the medium before they count."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from fabstir_desktop.errors import LedgerError
from fabstir_desktop.ledger.rows import fetch_value

KEPT_BACKUPS = 7
"""Daily copies kept; copies made before a migration are never removed."""


def backup_folder(path: Path) -> Path:
    """Where the copies of the ledger at `path` lie."""
    return path.parent / "backups"


def back_up(connection: apsw.Connection, path: Path, label: str) -> Path:
    """Copy the ledger to `backups/<name>-<label>.db`, check and sync the copy. Raises LedgerError, apsw.Error."""
    target = backup_folder(path) / f"{path.stem}-{label}.db"
    unfinished = target.with_suffix(".unfinished")
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        _copy(connection, unfinished)
        _sync(unfinished)
        unfinished.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise LedgerError(f"no backup of the ledger could be made: {error.strerror}") from error
    return target


def drop_old_backups(path: Path) -> None:
    """Keep the newest daily copies only."""
    daily = sorted(backup_folder(path).glob(f"{path.stem}-daily-*.db"))
    for old in daily[:-KEPT_BACKUPS]:
        old.unlink(missing_ok=True)


def _copy(source: apsw.Connection, target: Path) -> None:
    copy = apsw.Connection(str(target))
    try:
        with copy.backup("main", source, "main") as progress:
            progress.step()  # all at once: between steps a commit of the writer would make it start anew
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        found = fetch_value(copy, "PRAGMA integrity_check(1)")
        if found != "ok":
            raise LedgerError(f"the backup of the ledger is not sound ({found}); the ledger is left as it is")
    finally:
        copy.close()


def _sync(path: Path) -> None:
    """Bring a file or folder to the medium; a system that cannot sync folders does so by itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
