"""First steps: what the app does, this computer, key, chain, gas, model, a self-test, habits.

It can be left at any step and opened again from Settings; every step is also a page. It holds no rules of its own: it
shows the node's state and opens the same dialogs as the pages do.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QDialog, QPlainTextEdit, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from fabstir_desktop.jobs.checks import Check
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.status import ChainState, NodeStatus, WalletState
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.machine import MachineFact, look_at_machine
from fabstir_desktop.ui.widgets.basics import CopyField, button, label, row, rule, set_text
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.widgets.qr import QrCode
from fabstir_desktop.ui.words import Tone, wallet_word

_TEST_LINES = 200


class StepLine(QWidget):
    """One fact of a step: a shape, a word and what to do."""

    def __init__(self) -> None:
        super().__init__()
        self._lamp = Lamp()
        self.text = label(wrap=True, selectable=True)
        layout = row(self._lamp, self.text, spacing=10)
        layout.setStretch(1, 1)
        self.setLayout(layout)

    def show_fact(self, tone: Tone, text: str) -> None:
        """Show a fact."""
        self._lamp.show_tone(tone, text)
        set_text(self.text, text)


class Step(QWidget):
    """A step: heading, explanation, facts, and what can be done here."""

    def __init__(self, title: str, explanation: str, *actions: QWidget) -> None:
        super().__init__()
        self.title = title
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(12)
        layout.addWidget(label(title, "heading"))
        layout.addWidget(label(explanation, "muted", wrap=True))
        layout.addWidget(rule())
        self.body = QVBoxLayout()
        self.body.setSpacing(8)
        layout.addLayout(self.body)
        if actions:
            layout.addLayout(row(*actions, None))
        layout.addStretch(1)
        self._lines: list[StepLine] = []

    def show_facts(self, facts: Sequence[tuple[Tone, str]]) -> None:
        """Show these facts, in place of those before."""
        while len(self._lines) < len(facts):
            self._lines.append(StepLine())
            self.body.addWidget(self._lines[-1])
        for place, line in enumerate(self._lines):
            line.setVisible(place < len(facts))
            if place < len(facts):
                line.show_fact(*facts[place])

    def texts(self) -> list[str]:
        """The facts on screen."""
        return [line.text.text() for line in self._lines if line.isVisibleTo(self)]


class Wizard(QDialog):
    """The first steps. `keyRequested` and `modelRequested` open the dialogs of their pages."""

    keyRequested = Signal()
    modelRequested = Signal()

    def __init__(self, bridge: Bridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("First steps"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._bridge = bridge
        self._stack = QStackedWidget()
        self.steps = self._make_steps()
        for step in self.steps:
            self._stack.addWidget(step)
        self.progress = label("", "muted")
        self.back_button = button(self.tr("Back"), lambda: self.go(-1), icon="back")
        self.next_button = button(self.tr("Continue"), lambda: self.go(1), kind="primary")
        self.later_button = button(self.tr("Leave; I do the rest later"), self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(28, 24, 28, 20)
        layout.setSpacing(16)
        layout.addWidget(self._stack, 1)
        layout.addWidget(rule())
        layout.addLayout(row(self.later_button, None, self.progress, self.back_button, self.next_button))
        character = self.fontMetrics().averageCharWidth()
        self.resize(character * 96, self.fontMetrics().height() * 32)
        for other in self.findChildren(QPushButton):
            other.setAutoDefault(other is self.next_button)
        self.next_button.setDefault(True)
        bridge.statusChanged.connect(self._show_status)
        self._show_status(bridge.status)
        self._show_place()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _make_steps(self) -> list[Step]:
        self.welcome = Step(
            self.tr("What this does"),
            self.tr(
                "Your computer answers prompts with a language model, and is paid on chain for every token it made."
            ),
        )
        self.machine = Step(
            self.tr("This computer"), self.tr("You can go on with warnings; they cost speed, not money.")
        )
        key_button = button(self.tr("Import a key…"), self.keyRequested.emit, kind="primary", icon="key")
        self.key = Step(
            self.tr("Host key"),
            self.tr("The private key signs your claims. It goes into this system's keyring and nowhere else."),
            key_button,
        )
        self.network = Step(self.tr("Network"), self.tr("Claims are made on one chain and one contract only."))
        self.gas = self._make_gas()
        model_button = button(self.tr("Choose a GGUF file…"), self.modelRequested.emit, kind="primary", icon="models")
        self.model = Step(
            self.tr("Model"),
            self.tr("The file stays where it is. A model that fits into memory answers fast."),
            model_button,
        )
        self.test = self._make_test()
        self.habits = self._make_habits()
        self._show_welcome()
        return [self.welcome, self.machine, self.key, self.network, self.gas, self.model, self.test, self.habits]

    def _make_gas(self) -> Step:
        self.address = CopyField(self.tr("address"))
        self.qr = QrCode(self.tr("The address as a QR code"))
        step = Step(
            self.tr("Gas money"), self.tr("Each claim is a transaction that your address pays a small fee for.")
        )
        step.body.addWidget(self.address)
        step.body.addLayout(row(self.qr, None))
        return step

    def _make_test(self) -> Step:
        self.test_button = button(self.tr("Run the self-test"), self.run_test, kind="primary", icon="play")
        step = Step(
            self.tr("Self-test"),
            self.tr("A real prompt through the real socket, counted; then the chain is asked. No transaction is sent."),
            self.test_button,
        )
        self.answer = QPlainTextEdit()
        self.answer.setReadOnly(True)
        self.answer.setProperty("role", "mono")
        self.answer.setMaximumBlockCount(_TEST_LINES)
        self.answer.setPlaceholderText(self.tr("The answer appears here."))
        self.answer.setAccessibleName(self.tr("The answer of the self-test"))
        step.body.addWidget(self.answer)
        return step

    def _make_habits(self) -> Step:
        step = Step(self.tr("Habits"), self.tr("All of this can be changed in Settings."))
        self.keep_serving = QCheckBox(self.tr("Keep serving in the tray when the window is closed"))
        self.start_hidden = QCheckBox(self.tr("Start in the tray without opening the window"))
        for check, name, values in (
            (self.keep_serving, "close_action", ("tray", "ask")),
            (self.start_hidden, "start_hidden", (True, False)),
        ):
            check.clicked.connect(
                lambda on, name=name, values=values: self._store(name, values[0] if on else values[1])
            )
            step.body.addWidget(check)
        return step

    def _store(self, name: str, value: object) -> None:
        if self._bridge.node is not None:
            self._bridge.run(self._bridge.node.save_setting(name, value))

    # --- going --------------------------------------------------------------------------------------------------------

    def go(self, by: int) -> None:
        """Go on or back; after the last step the wizard is done."""
        place = self._stack.currentIndex() + by
        if place >= len(self.steps):
            self.accept()
            return
        self._stack.setCurrentIndex(max(place, 0))
        if self.current is self.machine and self._bridge.node is not None:
            self._bridge.run(look_at_machine(self._bridge.node.settings.data_dir), done=self._show_machine)
        self._show_place()

    @property
    def current(self) -> Step:
        """The step on screen."""
        return self.steps[self._stack.currentIndex()]

    def _show_place(self) -> None:
        place, last = self._stack.currentIndex(), len(self.steps) - 1
        self.back_button.setEnabled(place > 0)
        self.next_button.setText(self.tr("Start serving") if place == last else self.tr("Continue"))
        self.next_button.setFocus()
        set_text(self.progress, self.tr("Step {place} of {all}").format(place=place + 1, all=last + 1))
        self.setAccessibleDescription(f"{self.progress.text()}: {self.current.title}")

    # --- showing ------------------------------------------------------------------------------------------------------

    def _show_welcome(self) -> None:
        self.welcome.show_facts(
            [
                (
                    Tone.OK,
                    self.tr("You are paid per token, by a contract. Every token is counted once and claimed once."),
                ),
                (Tone.OK, self.tr("Your key, the prompts and the answers never leave this computer through this app.")),
                (Tone.QUIET, self.tr("It uses your processor or GPU, memory, electricity and network while jobs run.")),
                (Tone.WARNING, self.tr("On a testnet what you earn has no monetary value.")),
            ]
        )

    def _show_machine(self, facts: list[MachineFact]) -> None:
        self.machine.show_facts([(Tone.OK if fact.is_enough else Tone.WARNING, fact.text) for fact in facts])

    def _show_status(self, status: NodeStatus | None) -> None:
        if status is None:
            return
        self._show_key(status)
        self._show_network(status)
        self._show_gas(status)
        self._show_model(status)

    def _show_key(self, status: NodeStatus) -> None:
        wallet = status.wallet
        tone = Tone.OK if wallet.state is WalletState.READY else Tone.WARNING
        facts = [(tone, wallet_word(wallet.state).capitalize() + (f" ({wallet.location})" if wallet.location else ""))]
        if wallet.address:
            facts.append((Tone.OK, self.tr("Your address is {address}").format(address=wallet.address)))
        facts.extend((Tone.QUIET, text) for text in (wallet.detail, wallet.action) if text)
        self.key.show_facts(facts)

    def _show_network(self, status: NodeStatus) -> None:
        chain = status.chain
        tone = {ChainState.READY: Tone.OK, ChainState.CONNECTING: Tone.BUSY}.get(chain.state, Tone.ERROR)
        facts = [
            (
                tone,
                self.tr("{chain} ({id}) through {rpc}").format(
                    chain=chain.chain_name, id=chain.chain_id, rpc=chain.rpc
                ),
            )
        ]
        facts.append((tone, self.tr("{name} at {address}").format(name=chain.contract_name, address=chain.contract)))
        if chain.detail:
            facts.append((tone, chain.detail))
        if chain.head_age_s is not None:
            facts.append((Tone.QUIET, self.tr("Newest block {age} ago").format(age=fmt.duration(chain.head_age_s))))
        self.network.show_facts(facts)

    def _show_gas(self, status: NodeStatus) -> None:
        chain, address = status.chain, status.wallet.address or ""
        self.address.show_value(address)
        self.qr.show_text(address)
        left = chain.checkpoints_left
        if left is None:
            facts = [(Tone.QUIET, self.tr("The balance is not known yet."))]
        else:
            text = self.tr("{balance}: enough for about {left} checkpoints of {cost} each")
            amounts = {
                "balance": fmt.wei(chain.balance_wei),
                "left": fmt.count(left),
                "cost": fmt.wei(chain.checkpoint_cost_wei),
            }
            facts = [(Tone.OK if left > 0 else Tone.WARNING, text.format(**amounts))]
        self.gas.show_facts(facts)

    def _show_model(self, status: NodeStatus) -> None:
        engine = status.engine
        if engine.model is not None and engine.state is EngineState.READY:
            text = self.tr("{name} is loaded, {size}").format(
                name=engine.model.name, size=fmt.size(engine.model.size_bytes)
            )
            self.model.show_facts([(Tone.OK, text)])
        elif engine.state is EngineState.LOADING:
            percent = round(engine.load_progress * 100)
            self.model.show_facts([(Tone.BUSY, self.tr("Loading, {percent} %").format(percent=percent))])
        else:
            self.model.show_facts([(Tone.WARNING, engine.detail or self.tr("No model is loaded."))])

    # --- the self-test ------------------------------------------------------------------------------------------------

    def run_test(self) -> None:
        """Stream an answer and show what was found."""
        node = self._bridge.node
        if node is None:
            return
        self.answer.clear()
        self.test.show_facts([(Tone.BUSY, self.tr("A prompt is on its way…"))])
        self._bridge.run(
            node.self_test(self._show_text), done=self._show_checks, failed=self._fail, busy=self.test_button
        )

    def _show_text(self, text: str) -> None:
        self.answer.insertPlainText(text)

    def _show_checks(self, checks: list[Check]) -> None:
        facts = []
        for check in checks:
            text = f"{check.name}: {check.detail}" + ("" if check.passed else f" – {check.action}")
            facts.append((Tone.OK if check.passed else Tone.ERROR, text))
        self.test.show_facts(facts)

    def _fail(self, text: str) -> None:
        self.test.show_facts([(Tone.ERROR, text)])


def needs_first_steps(status: NodeStatus) -> bool:
    """Whether nothing that serving needs is there yet: neither key nor model."""
    return status.wallet.state is WalletState.NONE and status.engine.state is EngineState.NO_MODEL
