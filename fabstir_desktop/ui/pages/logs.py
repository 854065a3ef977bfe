"""The log: newest lines, filtered by level, component and words; following, or standing still to be read."""

from __future__ import annotations

import logging
import re
from collections import deque
from pathlib import Path

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication, QHideEvent, QShowEvent, QTextCursor
from PySide6.QtWidgets import QCheckBox, QComboBox, QLineEdit, QPlainTextEdit, QSizePolicy

from fabstir_desktop.jobs.inspections import BundleText
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.bundle import BundlePreview
from fabstir_desktop.ui.log_store import LogLine, LogStore
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.widgets.basics import button, label
from fabstir_desktop.ui.widgets.flow import Flow, flow, together

_LINES_SHOWN = 5000
_REFRESH_MS = 300
_LINES_A_PIECE = 500
"""So many are filtered at once: a key that is pressed while thousands are kept is answered within a frame."""
_COMPONENTS = ("server", "settlement", "inference", "ledger", "wallet", "node", "ui", "app")


class LogsPage(Page):
    """What the host's parts say."""

    def __init__(self, bridge: Bridge, store: LogStore) -> None:
        super().__init__(bridge)
        self._store = store
        self._last = 0
        self.folder_button = button(self.tr("Open folder"), self._open_folder, icon="folder")
        self.copy_button = button(self.tr("Copy what is shown"), self._copy, icon="copy")
        self.bundle_button = button(self.tr("Diagnostic bundle…"), self.collect_bundle, icon="download")
        tools = (self.bundle_button, self.copy_button, self.folder_button)
        layout = self.lay_out(self.tr("Logs"), *tools)
        layout.addLayout(self._make_filters())
        layout.addWidget(self._make_text(), 1)
        note = label(self.tr("Keys, prompts and answers are never written to the log."), "muted", wrap=True)
        layout.addWidget(note)
        self._timer = QTimer(self)
        self._timer.setInterval(_REFRESH_MS)
        self._timer.timeout.connect(self.take_new)
        self._pieces = QTimer(self)
        self._pieces.setInterval(0)
        self._pieces.timeout.connect(self._append_piece)
        self._waiting: deque[LogLine] = deque()
        for changed in (self.level.currentIndexChanged, self.component.currentIndexChanged):
            changed.connect(lambda _: self.rebuild())
        for field in (self.search, self.job):
            field.textChanged.connect(lambda _: self.rebuild())
        self.follow.toggled.connect(lambda _: self.take_new())

    def _make_filters(self) -> Flow:
        self.level = QComboBox()
        for text, level in (
            (self.tr("Errors"), logging.ERROR),
            (self.tr("Warnings and worse"), logging.WARNING),
            (self.tr("Information and worse"), logging.INFO),
            (self.tr("Everything"), logging.DEBUG),
        ):
            self.level.addItem(text, level)
        self.level.setCurrentIndex(2)
        self.level.setAccessibleName(self.tr("Level"))
        self.component = QComboBox()
        self.component.addItem(self.tr("All parts"), "")
        for name in _COMPONENTS:
            self.component.addItem(name, name)
        self.component.setAccessibleName(self.tr("Part"))
        self.job = QLineEdit()
        self.job.setPlaceholderText(self.tr("Job id"))
        self.job.setAccessibleName(self.tr("Only lines about this job"))
        self.job.setClearButtonEnabled(True)
        self.job.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Find words, a job, a hash"))
        self.search.setAccessibleName(self.search.placeholderText())
        self.search.setClearButtonEnabled(True)
        self.follow = QCheckBox(self.tr("Follow new lines"))
        self.follow.setChecked(True)
        return flow(
            together(label(self.tr("Level"), "muted"), self.level),
            together(label(self.tr("Part"), "muted"), self.component),
            self.job,
            self.search,
            self.follow,
            spacing=10,
        )

    def _make_text(self) -> QPlainTextEdit:
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setProperty("role", "mono")
        self.text.setMaximumBlockCount(_LINES_SHOWN)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setMinimumHeight(self.fontMetrics().height() * 8)
        self.text.setAccessibleName(self.tr("Log lines"))
        self.text.setPlaceholderText(self.tr("No lines yet at this level."))
        return self.text

    def showEvent(self, event: QShowEvent) -> None:
        """Read lines only while someone looks."""
        super().showEvent(event)
        self.take_new()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Stop reading."""
        super().hideEvent(event)
        self._timer.stop()

    def rebuild(self) -> None:
        """Filter all kept lines anew."""
        self._last = 0
        self.text.clear()
        self._waiting.clear()
        self._append(self._store.after(0))

    def take_new(self) -> None:
        """Add what came since; not while the reader has stopped following."""
        if self.follow.isChecked():
            self._append(self._store.after(self._last))

    def _append(self, lines: list[LogLine]) -> None:
        """Show these lines, the first piece now and the rest between other work."""
        if lines:
            self._last = lines[-1].number
            self._waiting.extend(lines)
            self._append_piece()

    def _append_piece(self) -> None:
        piece = [self._waiting.popleft() for _ in range(min(_LINES_A_PIECE, len(self._waiting)))]
        self._pieces.start() if self._waiting else self._pieces.stop()
        shown = [line.text for line in piece if self._accepts(line)]
        if shown:
            self.text.appendPlainText("\n".join(shown))
            if self.follow.isChecked():
                self.text.moveCursor(QTextCursor.MoveOperation.End)
                self.text.moveCursor(QTextCursor.MoveOperation.StartOfLine)

    def _accepts(self, line: LogLine) -> bool:
        component, words = self.component.currentData(), self.search.text().strip().lower()
        job = self.job.text().strip()
        return (
            line.level >= self.level.currentData()
            and (not component or line.component == component)
            and words in line.text.lower()
            and (not job or re.search(rf"\bjob {re.escape(job)}\b", line.text, re.IGNORECASE) is not None)
        )

    def collect_bundle(self) -> None:
        """Put the diagnostic bundle together and show it before anything is written."""
        if self.bridge.node is not None:
            lines = [line.text for line in self._store.after(0)]
            self.bridge.run(self.bridge.node.diagnostics(lines), done=self._preview, busy=self.bundle_button)

    def _preview(self, texts: list[BundleText]) -> None:
        self.preview = BundlePreview(self, texts, self.bridge)
        self.preview.open()

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.text.toPlainText())

    def _open_folder(self) -> None:
        if self.bridge.node is not None:
            folder: Path = self.bridge.node.settings.log_path.parent
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))
