"""One process per data directory: the lock is taken before the ledger is opened and held until it is closed."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from fabstir_desktop.errors import LedgerError, LedgerLocked


def take_lock(path: Path) -> FileLock:
    """Lock the ledger at `path`; `release()` ends it, and so does the end of the process. Raises LedgerLocked, LedgerError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"), timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise LedgerLocked(
            f"another fabstir-desktop uses {path.parent}: close it, or give this one another data folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise LedgerError(f"the data folder {path.parent} cannot be used: {error}") from error
    return lock
