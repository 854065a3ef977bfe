"""The last step: how the app behaves from day to day. What is shown is what is stored, and what is clicked is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from PySide6.QtWidgets import QCheckBox

from fabstir_desktop.settings import load_settings, source_of
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.pages.login_row import LoginRow
from fabstir_desktop.ui.wizard.step import Step

FILE_SOURCES = frozenset({"default", "settings.toml"})


class HabitsStep(Step):
    """Closing, starting, staying awake, battery; each also in Settings."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge, self.tr("Habits"), self.tr("All of this can be changed in Settings."))
        self.keep_serving = QCheckBox(self.tr("Keep serving in the tray when the window is closed"))
        self.start_hidden = QCheckBox(self.tr("Start in the tray without opening the window"))
        self.keep_awake = QCheckBox(self.tr("Keep the computer awake while a request runs, and only then"))
        self.pause_on_battery = QCheckBox(self.tr("Pause while the computer runs on battery"))
        self._values: dict[str, tuple[QCheckBox, object, object]] = {
            "close_action": (self.keep_serving, "tray", "ask"),
            "start_hidden": (self.start_hidden, True, False),
            "keep_awake": (self.keep_awake, True, False),
            "pause_on_battery": (self.pause_on_battery, True, False),
        }
        for name, (check, _, _) in self._values.items():
            check.setEnabled(False)
            check.clicked.connect(lambda on, name=name: self._store(name, on))
            self.body.addWidget(check)
        self.login = LoginRow(bridge)
        self.body.addWidget(self.login)

    def opened(self) -> None:
        """Read what is stored: a setting may have changed since the node started."""
        node = self.bridge.node
        if node is not None:
            overrides = {**node.overrides, "data_dir": node.settings.data_dir}
            self.run(asyncio.to_thread(_read, overrides, list(self._values)), done=self._show)
            self.login.reload()

    def _show(self, stored: dict[str, tuple[object, str]]) -> None:
        for name, (value, source) in stored.items():
            check, on, _ = self._values[name]
            check.setChecked(value == on)
            check.setEnabled(source in FILE_SOURCES)
            locked = self.tr("Set by the {source}; it cannot be changed here.").format(source=source)
            check.setToolTip("" if source in FILE_SOURCES else locked)

    def _store(self, name: str, on: bool) -> None:
        node = self.bridge.node
        if node is None:
            return
        _, when_on, when_off = self._values[name]
        value = when_on if on else when_off

        def refused(text: str) -> None:
            self.opened()
            self.show_error(text)

        self.run(node.save_setting(name, value), done=lambda _: self.settingStored.emit(name, value), failed=refused)


def _read(overrides: Mapping[str, Any], names: list[str]) -> dict[str, tuple[object, str]]:
    settings = load_settings(overrides)
    return {name: (getattr(settings, name), source_of(name, overrides)) for name in names}
