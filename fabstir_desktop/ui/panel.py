"""Whether a panel shows tray icons: it may come late, never, or go and come back. Watched for as long as the app runs."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtWidgets import QSystemTrayIcon

LOOK_MS = 1000
PATIENCE_LOOKS = 30
"""So many looks without a panel at the start mean that there is none: panels start later than what starts at login."""
GONE_LOOKS = 5
"""So many after one was there: a panel that is only restarted is back by then."""


class PanelWatch(QObject):
    """Tells when a panel is there and when it is missing, each once."""

    appeared = Signal()
    missing = Signal()

    def __init__(
        self, parent: QObject | None = None, *, is_there: Callable[[], bool] = QSystemTrayIcon.isSystemTrayAvailable
    ) -> None:
        super().__init__(parent)
        self._is_there = is_there
        self._looks = 0
        self._patience = PATIENCE_LOOKS
        self.is_known: bool | None = None
        """True: a panel is there; False: it was waited for in vain; None: still waited for."""
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self.look)

    def start(self) -> None:
        """Look now and from now on."""
        self._timer.start()
        self.look()

    def stop(self) -> None:
        """Look no more."""
        self._timer.stop()

    def look(self) -> None:
        """Look once."""
        if self._is_there():
            self._looks, self._patience = 0, GONE_LOOKS
            if self.is_known is not True:
                self.is_known = True
                self.appeared.emit()
            return
        self._looks += 1
        if self._looks >= self._patience and self.is_known is not False:
            self.is_known = False
            self.missing.emit()
