"""Every setting of the file, in groups, with effect and default; what the environment decides is locked and says so."""

from __future__ import annotations

import asyncio
from typing import Any

from PySide6.QtCore import QTimer, QUrl, Signal
from PySide6.QtGui import QDesktopServices, QShowEvent
from PySide6.QtWidgets import QLineEdit, QSizePolicy

from fabstir_desktop.errors import SettingError
from fabstir_desktop.settings import editable_fields, source_of
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.prompts import Question
from fabstir_desktop.ui.pages.login_row import LoginRow
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.pages.setting_row import SettingRow
from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.setting_titles import setting_title
from fabstir_desktop.ui.widgets.basics import Card, button, label, reveal, row, rule

_GENERAL = ["close_action", "start_hidden", "appearance", "tray_icon", "tray_amounts", "log_level"]
_NOTIFICATIONS = ["notify_errors", "notify_warnings", "notify_payments", "notify_pauses"]


class SettingsPage(Page):
    """Changes are stored at once; each row says when they take effect."""

    firstStepsRequested = Signal()
    settingStored = Signal(str, object)
    """Name and value of what takes effect from now on."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge)
        self._stored: dict[str, Any] = {}
        self.question: Question | None = None
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Find a setting"))
        self.search.setAccessibleName(self.search.placeholderText())
        self.search.setClearButtonEnabled(True)
        self.search.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.search.textChanged.connect(self._filter)
        self.wizard_button = button(self.tr("First steps again…"), self.firstStepsRequested.emit)
        folder = button(self.tr("Open data folder"), self.open_folder, icon="folder")
        layout = self.lay_out(self.tr("Settings"), self.search, self.wizard_button, folder)
        self.restart_note = label(self.tr("Stored. Some changes take effect at the next start."), wrap=True)
        self.restart_note.setVisible(False)
        layout.addWidget(self.restart_note)
        self.row_by_name: dict[str, SettingRow] = {}
        self._cards: list[tuple[Card, list[str]]] = []
        for title, names in self._groups():
            card = Card(title)
            for place, name in enumerate(names):
                if place:
                    card.body.addWidget(rule())
                card.body.addWidget(self._make_row(name))
            self._cards.append((card, names))
            layout.addWidget(card)
        self.login_row = LoginRow(bridge)
        self._cards[0][0].body.addWidget(rule())
        self._cards[0][0].body.addWidget(self.login_row)
        layout.addLayout(row(label(self.tr("The file is settings.toml in the data folder."), "muted"), None))
        layout.addStretch(1)

    def _groups(self) -> list[tuple[str, list[str]]]:
        """Titles and the names below them; a setting that stands in no group stands in the last one."""
        groups = self._named_groups()
        fields = list(editable_fields())
        known = {name for _, names in groups for name in names}
        found = [(title, [name for name in names if name in fields]) for title, names in groups]
        others = [name for name in fields if name not in known]
        return [*found, (self.tr("OTHER"), others)] if others else found

    # long: a table of groups and the names in them
    def _named_groups(self) -> list[tuple[str, list[str]]]:
        return [
            (self.tr("GENERAL"), _GENERAL),
            (
                self.tr("SERVING"),
                [
                    "model_path",
                    "engine_url",
                    "engine_model",
                    "context_window",
                    "gpu_layers",
                    "threads",
                    "max_parallel",
                    "api_host",
                    "api_port",
                    "api_origins",
                    "free_use",
                    "session_grace_seconds",
                    "session_idle_seconds",
                ],
            ),
            (self.tr("NOTIFICATIONS"), _NOTIFICATIONS),
            (self.tr("WHEN TO SERVE"), ["serving_hours", "pause_on_battery", "keep_awake"]),
            (
                self.tr("CLAIMS"),
                [
                    "checkpoint_threshold",
                    "confirmations",
                    "earnings_from",
                    "max_fee_gwei",
                    "max_unproven_tokens",
                    "uneconomic_claims",
                    "batch_claims",
                    "settlement_poll_seconds",
                ],
            ),
            (
                self.tr("NETWORK"),
                ["rpc_url", "chain_id", "settlement_contract", "contract_proof_system", "contract_job_marketplace"],
            ),
        ]

    def _make_row(self, name: str) -> SettingRow:
        title = setting_title(name)
        made = SettingRow(name, title, editable_fields()[name])
        made.storeRequested.connect(self._ask_or_store)
        self.row_by_name[name] = made
        return made

    # --- showing ------------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Show the values in use and where they come from."""
        super().showEvent(event)
        self.reload()

    def reload(self) -> None:
        """Read values and sources again."""
        node = self.bridge.node
        if node is None:
            return
        for name, shown in self.row_by_name.items():
            shown.show_value(self._stored.get(name, getattr(node.settings, name)))
        self.login_row.reload()
        overrides = node.overrides
        self.bridge.run(asyncio.to_thread(_sources, list(self.row_by_name), overrides), done=self._show_sources)

    def _show_sources(self, source_by_name: dict[str, str]) -> None:
        for name, source in source_by_name.items():
            self.row_by_name[name].show_source(source)

    def open_with(self, wanted: str) -> None:
        """Bring a setting into sight, by its name, and give it the focus."""
        shown = self.row_by_name.get(wanted)
        if shown is None:
            return
        self.search.clear()
        QTimer.singleShot(0, shown, lambda: reveal(shown, shown.editor))

    def _filter(self, text: str) -> None:
        words = text.strip().lower()
        for card, names in self._cards:
            matching = 0
            for name in names:
                shown = self.row_by_name[name]
                wanted = f"{name} {shown.title.text()} {shown.description.text()}".lower()
                shown.setVisible(words in wanted)
                matching += words in wanted
            if card is self._cards[0][0]:
                self.login_row.setVisible(words in self.login_row.check.text().lower())
                matching += words in self.login_row.check.text().lower()
            card.setVisible(matching > 0)

    # --- storing ------------------------------------------------------------------------------------------------------

    def _ask_or_store(self, name: str, value: Any) -> None:
        """Store the value; if others could then reach more of this host, only after the host has read what and agreed."""
        node, shown = self.bridge.node, self.row_by_name[name]
        if node is None or self.question is not None:
            return  # the question takes the focus from the field, which is another end of editing
        try:
            opened = list(node.exposure({**self._stored, name: value}))
            known = node.exposure(self._stored)
        except SettingError:
            opened, known = [], ()  # storing it says why not
        if not set(opened) - set(known):
            self._store(name, value)
            return

        def answered(answer: str, _: bool) -> None:
            self.question = None
            if answer == "open":
                self._store(name, value)
            else:
                shown.show_value(self._stored.get(name, getattr(node.settings, name)))

        self.question = Question(
            self.window(),
            self.tr("Let others reach this host?"),
            self.tr("From the next start on:"),
            [("cancel", self.tr("Keep it as it is")), ("open", self.tr("Let others reach it"))],
            answered,
            detail="\n".join(f"• {say(sentence)}" for sentence in opened),
            otherwise="cancel",
        )
        self.question.open()

    def _store(self, name: str, value: Any) -> None:
        node = self.bridge.node
        if node is None:
            return
        shown = self.row_by_name[name]
        shown.show_error("")

        def stored(_: None) -> None:
            self.restart_note.setVisible(True)
            in_use = editable_fields()[name].get_default(call_default_factory=True) if value is None else value
            self._stored[name] = in_use
            shown.show_value(in_use)
            self.settingStored.emit(name, in_use)
            self.bridge.run(
                asyncio.to_thread(_sources, list(self.row_by_name), node.overrides), done=self._show_sources
            )

        self.bridge.run(node.save_setting(name, value), done=stored, failed=shown.show_error)

    def open_folder(self) -> None:
        """Show the data folder in the desktop's file manager."""
        if self.bridge.node is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.bridge.node.settings.data_dir)))


def _sources(names: list[str], overrides: dict[str, Any]) -> dict[str, str]:
    return {name: source_of(name, overrides) for name in names}
