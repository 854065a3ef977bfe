"""The wallet: address, gas money counted in checkpoints, where the key lives, and what can be done with it.

The key itself passes through once, from the hidden field to the node, and is kept nowhere here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import shiboken6
from PySide6.QtCore import QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QWidget

from fabstir_desktop.jobs.status import KeySource, NodeStatus, WalletState, WalletStatus
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.files import ask_where
from fabstir_desktop.ui.dialogs.prompts import HiddenEntry, SecretForm, TypedConfirmation
from fabstir_desktop.ui.dialogs.secrets import ask_key_and_password, ask_new_password, ask_password, waiting_claims_text
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.widgets.basics import Card, CopyField, button, label, row, set_text
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.widgets.qr import QrCode
from fabstir_desktop.ui.words import Tone, wallet_word

LOW_CHECKPOINTS = 50
_TYPED_CHARACTERS = 4


class WalletPage(Page):
    """The host's address, its gas money and its key."""

    keyStored = Signal()

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge)
        self._waiting: asyncio.Task[None] | None = None
        self._is_demo = False
        layout = self.lay_out(self.tr("Wallet"))
        top = row(self._make_address(), self._make_gas(), spacing=12)
        top.setStretch(0, 1)
        top.setStretch(1, 1)
        layout.addLayout(top)
        layout.addWidget(self._make_key())
        layout.addWidget(self._make_contract())
        layout.addStretch(1)
        bridge.statusChanged.connect(self._show_status)
        self._show_status(bridge.status)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _make_address(self) -> Card:
        card = Card(self.tr("YOUR ADDRESS"))
        self.address = CopyField(self.tr("address"))
        self.qr = QrCode(self.tr("The address as a QR code"))
        self.address_note = label(self.tr("Send ETH for gas here, on this chain only."), "muted", wrap=True)
        self.explorer_button = button(self.tr("Open in explorer"), self._open_explorer, icon="open")
        card.body.addWidget(self.address)
        card.body.addLayout(row(self.qr, None))
        card.body.addWidget(self.address_note)
        card.body.addLayout(row(self.explorer_button, None))
        card.body.addStretch(1)
        return card

    def _make_gas(self) -> Card:
        card = Card(self.tr("GAS MONEY"))
        self.left = label(fmt.UNKNOWN, "hero")
        self.left_note = label("", "muted", wrap=True)
        self.balance = label("", selectable=True)
        self.cost = label("", selectable=True)
        self.as_of = label("", "muted")
        self.refresh_button = button(self.tr("Look again"), self._refresh, icon="refresh")
        card.body.addWidget(self.left)
        card.body.addWidget(self.left_note)
        card.body.addLayout(row(label(self.tr("Balance"), "muted"), self.balance, None))
        card.body.addLayout(row(label(self.tr("A checkpoint costs about"), "muted"), self.cost, None))
        card.body.addStretch(1)
        card.body.addLayout(row(self.as_of, None, self.refresh_button))
        return card

    # long: one card, a row after the other
    def _make_key(self) -> Card:
        card = Card(self.tr("HOST KEY"))
        self.key_lamp = Lamp(scale=1.3)
        self.key_word = label("", "title")
        self.key_detail = label("", "muted", wrap=True)
        self.import_button = button(self.tr("Import a key…"), self.import_key, kind="primary", icon="key")
        self.file_button = button(self.tr("Keep it in an encrypted file…"), self.import_into_file, icon="lock")
        self.password_button = button(self.tr("Unlock…"), self.unlock_file, kind="primary", icon="lock")
        self.back_up_button = button(self.tr("Back up…"), self.back_up, icon="download")
        self.unlock_button = button(self.tr("Try again"), self._reload, icon="lock")
        self.keep_button = button(self.tr("Move it into the keyring"), self._keep_environment_key, icon="lock")
        self.replace_button = button(self.tr("Replace…"), self.replace_key, icon="key")
        self.remove_button = button(self.tr("Remove…"), self.remove_key, kind="danger", icon="trash")
        card.body.addLayout(row(self.key_lamp, self.key_word, None, spacing=10))
        card.body.addWidget(self.key_detail)
        self.key_actions = QWidget()
        buttons = (
            self.import_button,
            self.password_button,
            self.unlock_button,
            self.file_button,
            self.keep_button,
            self.back_up_button,
            self.replace_button,
            self.remove_button,
        )
        self.key_actions.setLayout(row(*buttons, None))
        card.body.addWidget(self.key_actions)
        card.body.addWidget(self._make_waiting())
        self.error = label("", wrap=True)
        self.error.setProperty("tone", Tone.ERROR.value)
        self.error.setVisible(False)
        card.body.addWidget(self.error)
        return card

    def _make_waiting(self) -> QWidget:
        self.waiting_row = QWidget()
        self.cancel_button = button(self.tr("Stop waiting"), self._stop_waiting)
        waiting = self.tr("Waiting for your keyring… It may ask for its password in a window of its own.")
        self.waiting_row.setLayout(row(label(waiting, wrap=True), None, self.cancel_button))
        self.waiting_row.setVisible(False)
        return self.waiting_row

    def _make_contract(self) -> Card:
        card = Card(self.tr("WHERE CLAIMS GO"))
        self.chain = label("", wrap=True, selectable=True)
        self.contract = CopyField(self.tr("contract address"))
        self.contract_note = label("", "muted", wrap=True)
        card.body.addWidget(self.chain)
        card.body.addWidget(self.contract)
        card.body.addWidget(self.contract_note)
        return card

    # --- showing ------------------------------------------------------------------------------------------------------

    def _show_status(self, status: NodeStatus | None) -> None:
        if status is None:
            return
        address = status.wallet.address or ""
        self.address.show_value(address)
        self.qr.show_text(address)
        self.qr.setVisible(bool(address))
        self.address_note.setText(
            self.tr("Send ETH for gas here, on {chain} only.").format(chain=status.chain.chain_name)
            if address
            else self.tr("The address appears here once a key is stored.")
        )
        self.explorer_button.setVisible(self._explorer(status) is not None)
        self._show_gas(status)
        self._is_demo = status.demo  # its key is thrown away: nothing to keep
        self._show_key(status.wallet)
        testnet = self.tr(" (testnet: no monetary value)") if status.chain.is_testnet else ""
        set_text(
            self.chain,
            self.tr("{contract} on {chain}, chain id {id}{testnet}, through {rpc}").format(
                contract=status.chain.contract_name,
                chain=status.chain.chain_name,
                id=status.chain.chain_id,
                testnet=testnet,
                rpc=status.chain.rpc,
            ),
        )
        self.contract.show_value(status.chain.contract)
        set_text(self.contract_note, status.chain.detail)

    def _show_gas(self, status: NodeStatus) -> None:
        chain = status.chain
        set_text(self.left, fmt.count(chain.checkpoints_left))
        self.left.setAccessibleName(self.tr("{count} checkpoints left").format(count=fmt.count(chain.checkpoints_left)))
        if chain.checkpoints_left is None:
            note = self.tr("checkpoints left: not known yet")
        elif chain.checkpoints_left <= LOW_CHECKPOINTS:
            note = self.tr("checkpoints left. That is little: send some ETH soon.")
        else:
            note = self.tr("checkpoints left")
        set_text(self.left_note, note)
        set_text(self.balance, fmt.wei(chain.balance_wei))
        self.balance.setToolTip(fmt.wei(chain.balance_wei, exact=True))
        set_text(self.cost, fmt.wei(chain.checkpoint_cost_wei))
        self.cost.setToolTip(fmt.wei(chain.checkpoint_cost_wei, exact=True))
        is_old = chain.as_of is not None and time.time() - chain.as_of > 60
        as_of = self.tr("as of {age}").format(age=fmt.age(chain.as_of)) if is_old else ""
        set_text(self.as_of, as_of or (self.tr("never read") if chain.as_of is None else self.tr("up to date")))

    def _show_key(self, wallet: WalletStatus) -> None:
        word = wallet_word(wallet.state).capitalize()
        tone = {WalletState.READY: Tone.OK, WalletState.LOADING: Tone.BUSY, WalletState.INVALID: Tone.ERROR}
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
        self.import_button.setVisible(wallet.state in {WalletState.NONE, WalletState.INVALID})
        is_locked_file = wallet.state is WalletState.LOCKED and wallet.source is KeySource.FILE
        self.password_button.setVisible(is_locked_file)
        self.unlock_button.setVisible(
            wallet.state in {WalletState.LOCKED, WalletState.UNAVAILABLE} and not is_locked_file
        )
        self.file_button.setVisible(wallet.state is WalletState.UNAVAILABLE)
        is_stored = is_ready and wallet.source is not KeySource.ENVIRONMENT
        self.back_up_button.setVisible(is_ready and not self._is_demo)
        self.replace_button.setVisible(is_stored)
        self.remove_button.setVisible(is_stored)
        self.keep_button.setVisible(is_ready and wallet.source is KeySource.ENVIRONMENT and not self._is_demo)

    def _explorer(self, status: NodeStatus) -> str | None:
        address = status.wallet.address
        return fmt.explorer_link(status.chain.chain_id, "address", address) if address else None

    def _open_explorer(self) -> None:
        link = self._explorer(self.bridge.status) if self.bridge.status else None
        if link:
            QDesktopServices.openUrl(QUrl(link))

    def _refresh(self) -> None:
        if self.bridge.node is not None:
            self.bridge.run(self.bridge.node.refresh_chain(), busy=self.refresh_button)

    # --- the key ------------------------------------------------------------------------------------------------------

    def import_key(self) -> HiddenEntry:
        """Ask for a key."""
        text = self.tr(
            "Paste the private key of your host address: 0x and 64 hexadecimal digits. "
            "It goes into your system's keyring and nowhere else."
        )
        dialog = HiddenEntry(self, self.tr("Import a key"), text, self._store, action=self.tr("Store the key"))
        dialog.open()
        return dialog

    def import_into_file(self) -> SecretForm:
        """Ask for a key and a password: where no keyring answers, the key is kept in an encrypted file."""
        text = self.tr(
            "No keyring answers here, so the key is kept in an encrypted file of the data directory. "
            "Its password is asked for after each start; nobody can recover it."
        )
        return ask_key_and_password(self, self.tr("Keep the key in an encrypted file"), text, self._store_in_file)

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
        return self._confirm(self.tr("Replace the key"), text, self._ask_replacement, self.tr("Go on"))

    def remove_key(self) -> TypedConfirmation:
        """Remove the key, after the address's last characters were typed."""
        text = self.tr("The key is deleted from this computer. Without a copy of your own, what it earned is lost.")
        return self._confirm(self.tr("Remove the key"), text, self._remove, self.tr("Remove the key"))

    def _confirm(self, title: str, text: str, confirmed: Callable[[], None], action: str) -> TypedConfirmation:
        status = self.bridge.status
        ending = (status.wallet.address or "")[-_TYPED_CHARACTERS:] if status else ""
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
        dialog.open()

    def _store(self, secret: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.set_key(secret))

    def _store_instead(self, secret: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.set_key(secret, replace=True))

    def _store_in_file(self, secret: str, password: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.set_key(secret, password=password))

    def _store_in_file_instead(self, secret: str, password: str) -> None:
        if self.bridge.node is not None:
            self._wait(self.bridge.node.set_key(secret, replace=True, password=password))

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

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _end_waiting(self) -> None:
        if not shiboken6.isValid(self):
            return
        self._waiting = None
        self.waiting_row.setVisible(False)
        self.key_actions.setEnabled(True)
