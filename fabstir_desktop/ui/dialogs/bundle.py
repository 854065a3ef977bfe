"""The diagnostic bundle: every text is shown before it is saved, with how much was blanked."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QFileDialog, QListWidget, QPlainTextEdit, QVBoxLayout, QWidget

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.jobs.inspections import BundleText
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.files import ask_where
from fabstir_desktop.ui.widgets.basics import button, label, row

_NAME = "fabstir-diagnostics.zip"


class BundlePreview(QDialog):
    """Shows what the bundle holds; saves it as a zip file where the person says."""

    def __init__(self, parent: QWidget, texts: Sequence[BundleText], bridge: Bridge) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Diagnostic bundle"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._texts = tuple(texts)
        self._bridge = bridge
        metrics = self.fontMetrics()
        self.resize(metrics.averageCharWidth() * 130, metrics.height() * 34)
        count = sum(text.redactions for text in self._texts)
        told = self.tr(
            "This is all that the file will hold; read it before you give it away. Places blanked: {count}. "
            "Keys, proofs, prompts, answers and the ledger are never part of it."
        ).format(count=count)
        self.note = label(told, wrap=True)
        self.names = QListWidget()
        self.names.setAccessibleName(self.tr("Files of the bundle"))
        self.names.addItems([text.name for text in self._texts])
        self.names.setMaximumWidth(metrics.averageCharWidth() * 26)
        self.content = QPlainTextEdit()
        self.content.setReadOnly(True)
        self.content.setProperty("role", "mono")
        self.content.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.content.setAccessibleName(self.tr("Text of the chosen file"))
        self.names.currentRowChanged.connect(self._show)
        self.save_button = button(self.tr("Save as…"), self.save, kind="primary", icon="download")
        self.cancel_button = button(self.tr("Cancel"), self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(12)
        layout.addWidget(self.note)
        body = row(self.names, self.content, spacing=12)
        body.setStretch(1, 1)
        layout.addLayout(body, 1)
        layout.addLayout(row(None, self.cancel_button, self.save_button))
        self.names.setCurrentRow(0)

    def _show(self, place: int) -> None:
        self.content.setPlainText(self._texts[place].text if place >= 0 else "")

    def save(self) -> QFileDialog:
        """Ask where to, and write it off the loop."""
        return ask_where(self, self.windowTitle(), _NAME, self._write)

    def _write(self, path: Path) -> None:
        done = self.tr("Saved to {path}").format(path=path)
        bridge = self._bridge
        bridge.run(_write_zip(path, self._texts), done=lambda _: bridge.noticed.emit(done))
        self.accept()


async def _write_zip(path: Path, texts: Sequence[BundleText]) -> None:
    def write() -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for text in texts:
                archive.writestr(text.name, text.text)

    try:
        await asyncio.to_thread(write)
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}") from error
