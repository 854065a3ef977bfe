"""The desktop's session ends (log out, shut down): begin to stop, and hold the session's end until what counts is stored.

Nothing depends on it: every token is in the ledger before it is sent. What is won in these seconds is that the last claims
are signed and sent before the machine is off, instead of at the next start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from PySide6.QtCore import QEventLoop
from PySide6.QtWidgets import QApplication, QWidget

HOLD_S = 4.0
"""Systems give about five seconds before they end a program by force."""
_TURN_MS = 50


def hold_session_end(window: QWidget, why: str, is_stopped: Callable[[], bool], *, hold_s: float = HOLD_S) -> None:
    """Keep the loop turning until `is_stopped`, for at most `hold_s` seconds; on Windows `why` is shown meanwhile.

    To be called from Qt's own dispatch, never from a task: the loop is turned from within.
    """
    _block(window, why)
    ends_at = time.monotonic() + hold_s
    try:
        while not is_stopped() and time.monotonic() < ends_at:
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, _TURN_MS)
            time.sleep(0.005)  # with nothing to do, processEvents returns at once
    finally:
        _unblock(window)


def _block(window: QWidget, why: str) -> None:
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - Windows alone

        ctypes.windll.user32.ShutdownBlockReasonCreate(int(window.winId()), ctypes.c_wchar_p(why))


def _unblock(window: QWidget) -> None:
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - Windows alone

        ctypes.windll.user32.ShutdownBlockReasonDestroy(int(window.winId()))
