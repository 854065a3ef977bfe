"""The host key: its state, what can be done with it, and what went wrong; on the Wallet page and in the first steps.

The key itself passes through once, from the hidden field to the node, and is kept nowhere here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import shiboken6
from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QFileDialog, QLabel, QLineEdit, QVBoxLayout, QWidget

from fabstir_desktop.jobs.status import KeySource, NodeStatus, WalletState, WalletStatus
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.files import ask_where
from fabstir_desktop.ui.dialogs.prompts import HiddenEntry, SecretForm, TypedConfirmation
from fabstir_desktop.ui.dialogs.secrets import ask_key_and_password, ask_new_password, ask_password, waiting_claims_text
from fabstir_desktop.ui.widgets.basics import button, label, row, set_text
from fabstir_desktop.ui.widgets.flow import flow
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import Tone, wallet_word

_TYPED_CHARACTERS = 4
_WAIT_SHOWN_MS = 400
_TYPING_MS = 250
"""A key is looked at when its typing rests."""


class KeyPanel(QWidget):
    """State, commands, waiting and errors of the key. Its dialogs belong to the window it stands in."""

    keyStored = Signal()

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self._waiting: asyncio.Task[None] | None = None
        self._is_demo = False
        self._is_looking = False
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(_WAIT_SHOWN_MS)
        self._patience.timeout.connect(lambda: self.waiting_row.setVisible(True))
        self.key_lamp = Lamp(scale=1.3)
        self.key_word = label("", "title")
        self.key_detail = label("", "muted", wrap=True)
        self.key_actions = QWidget()
        self.key_actions.setLayout(flow(*self._make_buttons()))
        self.error = label("", wrap=True)
        self.error.setProperty("tone", Tone.ERROR.value)
        self.error.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addLayout(row(self.key_lamp, self.key_word, None, spacing=10))
        for part in (self.key_detail, self.key_actions, self._make_waiting(), self.error):
            layout.addWidget(part)
        bridge.statusChanged.connect(self._show_status)
        self._show_status(bridge.status)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _make_buttons(self) -> list[QWidget]:
        self.import_button = button(self.tr("Import a key…"), self.import_key, kind="primary", icon="key")
        self.create_button = button(self.tr("Create a new key…"), self.create_key, icon="key")
        self.file_button = button(self.tr("Keep it in an encrypted file…"), self.import_into_file, icon="lock")
        self.password_button = button(self.tr("Unlock…"), self.unlock_file, kind="primary", icon="lock")
        self.back_up_button = button(self.tr("Back up…"), self.back_up, icon="download")
        self.unlock_button = button(self.tr("Try again"), self._reload, icon="lock")
        self.accept_button = button(self.tr("Accept the found key…"), self.accept_found_key, icon="check")
        self.keep_button = button(self.tr("Move it into the keyring"), self._keep_environment_key, icon="lock")
        self.replace_button = button(self.tr("Replace…"), self.replace_key, icon="key")
        self.remove_button = button(self.tr("Remove…"), self.remove_key, kind="danger", icon="trash")
        return [
            self.import_button,
            self.password_button,
            self.unlock_button,
            self.accept_button,
            self.file_button,
            self.create_button,
            self.keep_button,
            self.back_up_button,
            self.replace_button,
            self.remove_button,
        ]

    def _make_waiting(self) -> QWidget:
        self.waiting_row = QWidget()
        self.cancel_button = button(self.tr("Stop waiting"), self.abandon)
        waiting = self.tr("Waiting for your keyring… It may ask for its password in a window of its own.")
        self.waiting_row.setLayout(row(label(waiting, wrap=True), None, self.cancel_button))
        self.waiting_row.setVisible(False)
        return self.waiting_row

    # --- showing ------------------------------------------------------------------------------------------------------

    def _show_status(self, status: NodeStatus | None) -> None:
        if status is not None:
            self._is_demo = status.demo  # its key is thrown away: nothing to keep
            self._show_key(status.wallet)

    def _show_key(self, wallet: WalletStatus) -> None:
        word = wallet_word(wallet.state).capitalize()
        bad = dict.fromkeys((WalletState.INVALID, WalletState.OTHER_KEY, WalletState.OTHER_PLACE), Tone.ERROR)
        tone = {WalletState.READY: Tone.OK, WalletState.LOADING: Tone.BUSY, **bad}
        self.key_lamp.show_tone(tone.get(wallet.state, Tone.WARNING), word)
        place = self.tr("{word}, kept in {place}").format(word=word, place=wallet.location)
        is_ready = wallet.state is WalletState.READY
        set_text(self.key_word, place if is_ready and wallet.location else word)
        explained = " ".join(part for part in (wallet.detail, wallet.action) if part)
        if wallet.state is WalletState.NONE and not explained:
            explained = self.tr(
                "Import the private key of your host address. Until then tokens are counted, not claimed."
            )
        set_text(self.key_detail, explained)
        self.key_detail.setVisible(bool(explained))
        self._show_buttons(wallet, is_ready=is_ready)
        self._show_patience(wallet.state is WalletState.LOADING)

    def _show_patience(self, is_looking: bool) -> None:
        """The first look at the keyring may wait for its owner too: say so once it takes longer than a blink."""
        if is_looking and not self._patience.isActive() and not self._is_looking:
            self._patience.start()
        elif not is_looking:
            self._patience.stop()
        self._is_looking = is_looking
        if not is_looking and self._waiting is None:
            self.waiting_row.setVisible(False)

    def _show_buttons(self, wallet: WalletStatus, *, is_ready: bool) -> None:
        is_elsewhere = wallet.state in {WalletState.OTHER_KEY, WalletState.OTHER_PLACE}
        missing = {WalletState.NONE, WalletState.INVALID, WalletState.OTHER_PLACE}
        self.import_button.setVisible(wallet.state in missing)
        self.accept_button.setVisible(wallet.state is WalletState.OTHER_KEY)
        self.create_button.setVisible(wallet.state in {WalletState.NONE, WalletState.UNAVAILABLE})
        is_locked_file = wallet.state is WalletState.LOCKED and wallet.source is KeySource.FILE
        self.password_button.setVisible(is_locked_file)
        self.unlock_button.setVisible(
            (is_elsewhere or wallet.state in {WalletState.LOCKED, WalletState.UNAVAILABLE}) and not is_locked_file
        )
        self.file_button.setVisible(wallet.state in {WalletState.UNAVAILABLE, WalletState.NONE})
        is_stored = is_ready and wallet.source is not KeySource.ENVIRONMENT
        self.back_up_button.setVisible(is_ready and not self._is_demo)
        self.replace_button.setVisible(is_stored or wallet.state is WalletState.OTHER_KEY)
        self.remove_button.setVisible(is_stored)
        self.keep_button.setVisible(is_ready and wallet.source is KeySource.ENVIRONMENT and not self._is_demo)

    def lead_to(self, what: str) -> None:
        """Come from a problem: give the focus to the button that mends it, or do its one step (`import`, `unlock`)."""
        candidates = {"import": self.import_button, "unlock": self.unlock_button, "place": self.file_button}
        candidates["review"] = self.accept_button if self.accept_button.isVisibleTo(self) else self.unlock_button
        focused = candidates.get(what)
        if focused is not None and focused.isVisibleTo(self):
            focused.setFocus(Qt.FocusReason.OtherFocusReason)
        if what == "unlock" and self.password_button.isVisibleTo(self):
            self.unlock_file()
        elif what == "unlock" and self.unlock_button.isVisibleTo(self) and self.key_actions.isEnabled():
            self._reload()
        elif what == "import" and self.import_button.isVisibleTo(self) and self.key_actions.isEnabled():
            self.import_key()

    # --- the key ------------------------------------------------------------------------------------------------------

    def import_key(self) -> HiddenEntry:
        """Ask for a key."""
        text = self.tr(
            "Paste the private key of your host address: 0x and 64 hexadecimal digits. "
            "It goes into your system's keyring and nowhere else."
        )
        dialog = HiddenEntry(self, self.tr("Import a key"), text, self._store, action=self.tr("Store the key"))
        self._tell_address(dialog.field, dialog.note)
        dialog.open()
        return dialog

    def import_into_file(self) -> SecretForm:
        """Ask for a key and a password: the key is kept in an encrypted file, not in the keyring."""
        text = self.tr(
            "The key is kept in an encrypted file of the data directory, not in a keyring. "
            "Its password is asked for after each start; nobody can recover it."
        )
        title = self.tr("Keep the key in an encrypted file")
        dialog = ask_key_and_password(self, title, text, self._store_in_file)
        self._tell_address(dialog.fields[0], dialog.note)
        return dialog

    def create_key(self) -> QFileDialog:
        """Ask where the copy of a new key goes, then for its password: there is no key without a copy of it."""
        title = self.tr("Where to keep the copy of the new key")
        return ask_where(self, title, "fabstir-host-key.json", self._ask_creation_password)

    def _ask_creation_password(self, path: Path) -> None:
        text = self.tr(
            "A new key is made and its copy is written to {path}, encrypted with this password, and read back. "
            "Only then is the key used. Keep file and password apart from this computer: nobody can recover them."
        ).format(path=path)
        ask_new_password(self, self.tr("Create a new key"), text, partial(self._create, path))

    def _tell_address(self, field: QLineEdit, note: QLabel) -> None:
        """Say below the field whose key it is, before it is stored anywhere."""
        resting = QTimer(field)
        resting.setSingleShot(True)
        resting.setInterval(_TYPING_MS)

        def say(text: str) -> None:
            if shiboken6.isValid(note):
                set_text(note, text)

        def look() -> None:
            node, secret = self.bridge.node, field.text().strip()
            if node is None or not secret:
                say("")
                return
            found = self.tr("This is the key of {address}.")
            self.bridge.run(node.address_of_key(secret), done=lambda a: say(found.format(address=a)), failed=say)

        resting.timeout.connect(look)
        field.textChanged.connect(lambda _: resting.start())

    def unlock_file(self) -> SecretForm:
        """Ask for the password of the encrypted file."""
        return ask_password(self, self._unlock)

    def back_up(self) -> QFileDialog:
        """Ask where an encrypted copy of the key goes, then for its password."""
        return ask_where(self, self.tr("Back up the key"), "fabstir-host-key.json", self._ask_backup_password)

    def _ask_backup_password(self, path: Path) -> None:
        text = self.tr(
            "The copy is encrypted with a password of its own (Web3 keystore, version 3); wallets can import it. "
            "The key itself is never shown."
        )
        ask_new_password(self, self.tr("Back up the key"), text, partial(self._back_up, path))

    def replace_key(self) -> TypedConfirmation:
        """Ask for another key, after the address's last characters were typed."""
        text = self.tr("Jobs that were opened for the present address can be claimed by its key only.")
        status = self.bridge.status
        found = (status.wallet.found or "") if status else ""
        return self._confirm(self.tr("Replace the key"), text, self._ask_replacement, self.tr("Go on"), found)

    def remove_key(self) -> TypedConfirmation:
        """Remove the key, after the address's last characters were typed."""
        text = self.tr("The key is deleted from this computer. Without a copy of your own, what it earned is lost.")
        return self._confirm(self.tr("Remove the key"), text, self._remove, self.tr("Remove the key"))

    def _confirm(
        self, title: str, text: str, confirmed: Callable[[], None], action: str, address: str = ""
    ) -> TypedConfirmation:
        status = self.bridge.status
        ending = (address or (status.wallet.address if status else "") or "")[-_TYPED_CHARACTERS:]
        asked = self.tr("Type the last {count} characters of the address ({ending}) to go on.").format(
            count=_TYPED_CHARACTERS, ending=ending
        )
        claims = waiting_claims_text(self.bridge.transactions)
        explained = "\n\n".join(part for part in (text, claims, asked) if part)
        dialog = TypedConfirmation(self, title, explained, ending, confirmed, action=action)
        dialog.open()
        return dialog

    def _ask_replacement(self) -> None:
        status = self.bridge.status
        if status is not None and status.wallet.source is KeySource.FILE:
            told = self.tr("The new key takes the place of the present one in the encrypted file.")
            ask_key_and_password(self, self.tr("Replace the key"), told, self._store_in_file_instead)
            return
        text = self.tr("Paste the new private key: 0x and 64 hexadecimal digits.")
        dialog = HiddenEntry(
            self, self.tr("Replace the key"), text, self._store_instead, action=self.tr("Replace the key")
        )
        self._tell_address(dialog.field, dialog.note)
        dialog.open()

    def accept_found_key(self) -> TypedConfirmation:
        """Work with the other key that was found, after its address's last characters were typed."""
        status = self.bridge.status
        found = (status.wallet.found or "") if status else ""
        text = self.tr(
            "From now on this host works as {found}. Jobs that were opened for {expected} can be claimed by its key only."
        ).format(found=found, expected=status.wallet.address if status else "")
        return self._confirm(self.tr("Accept the found key"), text, self._accept, self.tr("Accept it"), found)

    def _accept(self) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.accept_found_key())

    def _store(self, secret: str) -> None:
        """Store an imported key, in the place of what is no key at all."""
        node, status = self.bridge.node, self.bridge.status
        if node is not None:
            is_broken = status is not None and status.wallet.state is WalletState.INVALID
            self._wait(node.set_key(secret, replace=is_broken))

    def _store_instead(self, secret: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.set_key(secret, replace=True))

    def _store_in_file(self, secret: str, password: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.set_key(secret, password=password))

    def _store_in_file_instead(self, secret: str, password: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.set_key(secret, replace=True, password=password))

    def _create(self, path: Path, password: str) -> None:
        node, status = self.bridge.node, self.bridge.status
        if node is not None and status is not None:
            in_file = status.wallet.state is WalletState.UNAVAILABLE
            self._wait(node.create_key(path, password, in_file=in_file))

    def _unlock(self, password: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.unlock_keystore(password))

    def _back_up(self, path: Path, password: str) -> None:
        if self.bridge.node is not None:
            done = self.tr("The encrypted copy is at {path}").format(path=path)
            self.error.setVisible(False)
            self.bridge.run(
                self.bridge.node.back_up_key(path, password),
                done=lambda _: self.bridge.noticed.emit(done),
                failed=self._fail,
                busy=self.back_up_button,
            )

    def _remove(self) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.remove_key())

    def _reload(self) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.reload_key())

    def _keep_environment_key(self) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.keep_environment_key())

    def _wait(self, work: Coroutine[Any, Any, object]) -> None:
        """Show that the keyring is asked; it may take as long as its owner."""
        self.error.setVisible(False)
        self.waiting_row.setVisible(True)
        self.key_actions.setEnabled(False)
        self._waiting = self.bridge.run(work, done=lambda _: self.keyStored.emit(), failed=self._fail)
        self._waiting.add_done_callback(lambda _: self._end_waiting())

    def _fail(self, text: str) -> None:
        self.error.setText(text)
        self.error.setVisible(True)

    def abandon(self) -> None:
        """Wait for the keyring no more. What it answers later has no effect here."""
        if self._waiting is not None:
            self._waiting.cancel()
        elif self.bridge.node is not None:
            self.bridge.node.abandon_key_wait()

    def _end_waiting(self) -> None:
        if not shiboken6.isValid(self):
            return
        self._waiting = None
        self.waiting_row.setVisible(False)
        self.key_actions.setEnabled(True)
