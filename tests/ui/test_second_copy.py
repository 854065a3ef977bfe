"""A start that meets a copy without a window says so in the list of problems, not in a dialog."""

from __future__ import annotations

import asyncio
from pathlib import Path

from PySide6.QtWidgets import QApplication, QDialog
from pytestqt.qtbot import QtBot

from fabstir_desktop.app import DesktopApp
from fabstir_desktop.errors import LedgerLocked
from fabstir_desktop.settings import Settings


def test_another_copy_without_a_window_is_told_with_its_code_and_the_way_out(
    qtbot: QtBot, qapp: QApplication, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    desktop = DesktopApp(qapp, Settings(data_dir=tmp_path), {}, demo=False, hidden=True)
    qtbot.addWidget(desktop.window)
    ended: list[bool] = []
    desktop.leaving.quitNow.connect(lambda: ended.append(True))
    desktop._tell_other_copy(LedgerLocked(f"another fabstir-desktop uses {tmp_path}: close it"))
    assert desktop.window.isVisible()
    (shown,) = desktop.window.problems.texts()
    assert shown.startswith("Problem D02 Another fabstir-desktop uses")
    assert not [one for one in QApplication.topLevelWidgets() if isinstance(one, QDialog) and one.isVisible()]
    assert desktop.window.dashboard.todo.value.text() != "Nothing"
    desktop.window.problems._rows[0].action_button.click()
    assert ended == [True]
