"""Key, network and gas money: what a payment needs."""

from __future__ import annotations

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices

from fabstir_desktop.jobs.status import ChainState, ChainStatus, NodeStatus, WalletState
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.key_panel import KeyPanel
from fabstir_desktop.ui.widgets.basics import CopyField, button, row
from fabstir_desktop.ui.widgets.qr import QrCode
from fabstir_desktop.ui.wizard.step import Fact, Step
from fabstir_desktop.ui.words import Tone

GOOD_FOR_CHECKPOINTS = 100
"""Gas money for this many checkpoints is enough to begin with."""
_FAUCETS = {84532: "https://docs.base.org/get-started/get-funds"}


class KeyStep(Step):
    """The key, with the same panel as on the Wallet page: its dialogs, its waiting and its errors are here."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(
            bridge,
            self.tr("Host key"),
            self.tr(
                "The private key signs your claims. It is kept in this system's keyring, or in an encrypted file whose "
                "password is asked for at each start, and nowhere else. You can go on without one: tokens are counted "
                "and claimed once a key is there."
            ),
        )
        self.keys = KeyPanel(bridge)
        self.body.addWidget(self.keys)

    def show_status(self, status: NodeStatus) -> None:
        """Show the address, in full."""
        address = status.wallet.address
        is_ready = status.wallet.state is WalletState.READY and address is not None
        told = self.tr("Your address is {address}").format(address=address)
        self.show_facts([(Tone.OK, told)] if is_ready else [])

    def left(self) -> None:
        """Wait for the keyring no more."""
        super().left()
        self.keys.abandon()

    def texts(self) -> list[str]:
        """The facts on screen, the panel's among them."""
        return [self.keys.key_word.text(), self.keys.key_detail.text(), *super().texts()]


class NetworkStep(Step):
    """RPC, chain and contract, asked anew on wish."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge, self.tr("Network"), self.tr("Claims are made on one chain and one contract only."))
        self.again_button = button(self.tr("Test again"), self._test, icon="refresh")
        self.settings_button = button(
            self.tr("Change it in Settings"), lambda: self.pageRequested.emit("settings", "rpc_url")
        )
        self.body.addLayout(row(self.again_button, self.settings_button, None))

    def _test(self) -> None:
        if self.bridge.node is not None:
            self.run(self.bridge.node.refresh_chain(), busy=self.again_button)

    def show_status(self, status: NodeStatus) -> None:
        """Show what RPC and contract answered."""
        chain = status.chain
        tone = {ChainState.READY: Tone.OK, ChainState.CONNECTING: Tone.BUSY}.get(chain.state, Tone.ERROR)
        facts = [
            (
                tone,
                self.tr("{chain} ({id}) through {rpc}").format(
                    chain=chain.chain_name, id=chain.chain_id, rpc=chain.rpc
                ),
            ),
            (tone, self.tr("{name} at {address}").format(name=chain.contract_name, address=chain.contract)),
        ]
        if chain.detail:
            facts.append((tone, chain.detail))
        if chain.head_age_s is not None:
            facts.append((Tone.QUIET, self.tr("Newest block {age} ago").format(age=fmt.duration(chain.head_age_s))))
        self.show_facts(facts)


class GasStep(Step):
    """Where to send ETH for gas, how much is there and how much is missing; follows the chain."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(
            bridge,
            self.tr("Gas money"),
            self.tr("Each claim is a transaction that your address pays a small fee for."),
        )
        self.address = CopyField(self.tr("address"))
        self.qr = QrCode(self.tr("The address as a QR code"))
        self.faucet_button = button(self.tr("Where to get test ETH"), self._open_faucets, icon="open")
        self.body.addWidget(self.address)
        self.body.addLayout(row(self.qr, None))
        self.body.addLayout(row(self.faucet_button, None))

    def show_status(self, status: NodeStatus) -> None:
        """Show address, balance and what is missing."""
        address = status.wallet.address or ""
        self.address.show_value(address)
        self.address.setVisible(bool(address))
        self.qr.show_text(address)
        self.qr.setVisible(bool(address))
        self.faucet_button.setVisible(bool(address) and status.chain.chain_id in _FAUCETS)
        self.show_facts(self._facts(status.chain) if address else [self._no_address()])

    def _no_address(self) -> Fact:
        return Tone.QUIET, self.tr("There is no address yet: it comes with the host key.")

    def _facts(self, chain: ChainStatus) -> list[Fact]:
        left, cost, balance = chain.checkpoints_left, chain.checkpoint_cost_wei, chain.balance_wei
        if left is None or cost is None or balance is None:
            return [(Tone.QUIET, self.tr("The balance is not known yet."))]
        told = self.tr("{balance}: enough for about {left} checkpoints of {cost} each").format(
            balance=fmt.wei(balance), left=fmt.count(left), cost=fmt.wei(cost)
        )
        facts = [(Tone.OK if left > 0 else Tone.WARNING, told)]
        missing = GOOD_FOR_CHECKPOINTS * cost - balance
        if missing > 0:
            wanted = self.tr("For {count} checkpoints send {missing} more to this address, on {chain} only.")
            told = wanted.format(count=GOOD_FOR_CHECKPOINTS, missing=fmt.wei(missing), chain=chain.chain_name)
            facts.append((Tone.WARNING, told))
        return facts

    def _open_faucets(self) -> None:
        status = self.bridge.status
        link = _FAUCETS.get(status.chain.chain_id) if status is not None else None
        if link is not None:
            QDesktopServices.openUrl(QUrl(link))
