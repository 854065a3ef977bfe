"""The end of the desktop's session is held while the last claims are signed, and no longer than systems wait."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from fabstir_desktop.ui.session_end import HOLD_S, hold_session_end

PICTURES = Path(__file__).with_name("screenshots.py")


def test_it_is_held_until_everything_is_stored_while_the_loop_goes_on(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    done: list[str] = []
    QTimer.singleShot(150, lambda: done.append("stored"))
    hold_session_end(window, "Signing the last claims", lambda: bool(done), hold_s=60.0)
    assert done == ["stored"]


def test_it_is_not_held_for_ever(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    looks: list[float] = []

    def never() -> bool:
        looks.append(time.monotonic())
        return False

    hold_session_end(window, "Signing the last claims", never, hold_s=0.2)
    assert len(looks) > 1
    assert HOLD_S < 5, "systems end a program by force after about five seconds"


def test_the_pictures_of_every_page_can_be_made_by_one_command(tmp_path: Path) -> None:
    command = [sys.executable, str(PICTURES), str(tmp_path), "dark", "1"]
    subprocess.run(command, check=True, timeout=300)
    made = {path.stem.removesuffix("-dark-100") for path in tmp_path.glob("*.png")}
    assert {"1-dashboard", "2-jobs", "3-transactions", "4-models", "5-wallet", "6-logs", "7-settings"} <= made
    assert {"8-first-steps-1", "8-first-steps-9", "9-quit", "9-tray-menu"} <= made
