"""The switch for the start at login; what it shows is read from the system each time the page is opened."""

from __future__ import annotations

import asyncio

from PySide6.QtWidgets import QCheckBox, QFrame, QVBoxLayout

from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.login_item import login_item
from fabstir_desktop.ui.widgets.basics import label
from fabstir_desktop.ui.words import Tone


class LoginRow(QFrame):
    """A check box that is on if the system starts the app at login."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self.check = QCheckBox(self.tr("Start at login, in the tray"))
        self.check.setEnabled(False)
        self.check.clicked.connect(self._turn)
        self.error = label("", wrap=True)
        self.error.setProperty("tone", Tone.ERROR.value)
        self.error.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 8, 0, 8)
        layout.addWidget(self.check)
        layout.addWidget(
            label(self.tr("Kept by the system, not in settings.toml; takes effect at the next login."), "muted")
        )
        layout.addWidget(self.error)

    def reload(self) -> None:
        """Ask the system."""
        node = self._bridge.node
        if node is not None:
            item = login_item(node.settings.data_dir)
            self._bridge.run(asyncio.to_thread(item.is_on), done=self._show, failed=self._show_error)

    def _show(self, is_on: bool) -> None:
        self.check.setEnabled(True)
        self.check.setChecked(is_on)

    def _show_error(self, text: str) -> None:
        self.error.setText(text)
        self.error.setVisible(bool(text))

    def _turn(self, on: bool) -> None:
        node = self._bridge.node
        if node is None:
            return
        item = login_item(node.settings.data_dir)
        self._show_error("")

        def refused(text: str) -> None:
            self._show_error(text)
            self.reload()

        self._bridge.run(asyncio.to_thread(item.turn, on=on), done=lambda _: self.reload(), failed=refused)
