"""The wallet: address, gas money counted in checkpoints, and (key_panel) where the key lives and what can be done with it."""

from __future__ import annotations

import time

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices

from fabstir_desktop.jobs.gas_money import WARN_CHECKPOINTS
from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.key_panel import KeyPanel
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.widgets.basics import Card, CopyField, button, label, row, set_text
from fabstir_desktop.ui.widgets.flow import tiles
from fabstir_desktop.ui.widgets.qr import QrCode


class WalletPage(Page):
    """The host's address, its gas money and its key."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge)
        self.keys = KeyPanel(bridge)
        layout = self.lay_out(self.tr("Wallet"))
        least = self.fontMetrics().averageCharWidth() * 56
        layout.addLayout(tiles(self._make_address(), self._make_gas(), spacing=12, least=least))
        key_card = Card(self.tr("HOST KEY"))
        key_card.body.addWidget(self.keys)
        layout.addWidget(key_card)
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
        testnet = self.tr(" (testnet: no monetary value)") if status.chain.is_testnet else ""
        set_text(
            self.chain,
            self.tr("{contract} on {chain}{testnet}, through {rpc}").format(
                contract=status.chain.contract_name,
                chain=self._chain_in_full(status),
                testnet=testnet,
                rpc=status.chain.rpc,
            ),
        )
        self.contract.show_value(status.chain.contract)
        set_text(self.contract_note, status.chain.detail)

    def _chain_in_full(self, status: NodeStatus) -> str:
        name, chain_id = status.chain.chain_name, str(status.chain.chain_id)
        return name if chain_id in name else self.tr("{chain}, chain id {id}").format(chain=name, id=chain_id)

    def _show_gas(self, status: NodeStatus) -> None:
        chain = status.chain
        set_text(self.left, fmt.count(chain.checkpoints_left))
        self.left.setAccessibleName(self.tr("{count} checkpoints left").format(count=fmt.count(chain.checkpoints_left)))
        if chain.checkpoints_left is None:
            note = self.tr("checkpoints left: not known yet")
        elif chain.checkpoints_left <= WARN_CHECKPOINTS:
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
