"""Ask for a file, and write it off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QWidget

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.ui.bridge import Bridge


def save_text(
    parent: QWidget, title: str, name: str, text: str | Callable[[], Awaitable[str]], bridge: Bridge
) -> QFileDialog:
    """Ask where to save `text`, or what it makes then; says in the window where it went or why it did not."""

    async def write(chosen: Path) -> None:
        await _write(chosen, text if isinstance(text, str) else await text())

    def save(chosen: Path) -> None:
        done = parent.tr("Saved to {path}").format(path=chosen)
        bridge.run(write(chosen), done=lambda _: bridge.noticed.emit(done))

    return ask_where(parent, title, name, save)


def ask_where(parent: QWidget, title: str, name: str, chosen: Callable[[Path], None]) -> QFileDialog:
    """Ask for the path of a file to be written."""
    dialog = QFileDialog(parent, title)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.selectFile(name)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.fileSelected.connect(lambda path: chosen(Path(path)))
    dialog.open()
    return dialog


def choose_file(parent: QWidget, title: str, pattern: str, chosen: Callable[[Path], None]) -> QFileDialog:
    """Ask for an existing file."""
    dialog = QFileDialog(parent, title)
    dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
    dialog.setNameFilter(pattern)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.fileSelected.connect(lambda path: chosen(Path(path)))
    dialog.open()
    return dialog


async def _write(path: Path, text: str) -> None:
    try:
        await asyncio.to_thread(path.write_text, text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}") from error
