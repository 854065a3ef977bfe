"""Care in the background: a thorough check after an unclean stop or once a week, and a daily copy.

Both may take seconds on a large ledger, so they have a thread and a connection of their own, and give way when the ledger
closes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from fabstir_desktop.errors import FabstirError, LedgerDamaged
from fabstir_desktop.ledger.backup import back_up, backup_folder, drop_old_backups
from fabstir_desktop.ledger.connection import close_quietly
from fabstir_desktop.ledger.startup import check

log = logging.getLogger(__name__)

BACKUP_AFTER_S = 86_400.0


class Keeper:
    """Runs once after the ledger was opened. `on_damage` is called from its thread."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[], apsw.Connection],
        *,
        must_check: bool,
        began_at: float,
        on_damage: Callable[[LedgerDamaged], None],
        on_checked: Callable[[], None],
    ) -> None:
        self._path = path
        self._connect = connect
        self._must_check = must_check
        self._began_at = began_at
        self._on_damage = on_damage
        self._on_checked = on_checked
        self._connection: apsw.Connection | None = None
        self._stopping = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ledger-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give up what runs, and wait until the thread is gone (it stops within milliseconds)."""
        with self._guard:
            self._stopping = True
            if self._connection is not None:
                self._connection.interrupt()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        if not self._must_check and not self._is_backup_due():
            return
        try:
            with self._guard:
                if self._stopping:
                    return
                self._connection = self._connect()
            try:
                self._care(self._connection)
            finally:
                with self._guard:
                    close_quietly(self._connection)
                    self._connection = None
        except LedgerDamaged as error:
            self._on_damage(error)
        except (apsw.CorruptError, apsw.NotADBError):
            self._on_damage(LedgerDamaged("the ledger file is damaged; it is kept as it is"))
        except (apsw.Error, FabstirError, OSError) as error:
            if not self._stopping:
                log.warning("the ledger could not be checked or copied now: %s", error)

    def _care(self, connection: apsw.Connection) -> None:
        if self._must_check:
            check(connection, thorough=True)
            self._on_checked()
        if self._is_backup_due() and not self._stopping:
            back_up(connection, self._path, f"daily-{time.strftime('%Y%m%d-%H%M%S')}")
            drop_old_backups(self._path)

    def _is_backup_due(self) -> bool:
        """A day after the last copy; for a ledger without one, a day after it was begun."""
        daily = sorted(backup_folder(self._path).glob(f"{self._path.stem}-daily-*.db"))
        last = daily[-1].stat().st_mtime if daily else self._began_at
        return time.time() - last > BACKUP_AFTER_S
