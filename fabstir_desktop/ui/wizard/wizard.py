"""The dialog around the steps: back, on, later. It holds no rules; each step is also a page or a part of one."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QDialog, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.status import NodeStatus, WalletState
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.widgets.basics import button, label, row, rule, scroll_page, set_text
from fabstir_desktop.ui.wizard.habits import HabitsStep
from fabstir_desktop.ui.wizard.money import GasStep, KeyStep, NetworkStep
from fabstir_desktop.ui.wizard.serving import ModelStep, ReachStep, SelfTestStep
from fabstir_desktop.ui.wizard.start import MachineStep, WelcomeStep
from fabstir_desktop.ui.wizard.step import Step


class Wizard(QDialog):
    """The first steps. `pageRequested` leaves them for a page; `settingStored` is for what takes effect at once."""

    pageRequested = Signal(str, str)
    settingStored = Signal(str, object)

    def __init__(self, bridge: Bridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("First steps"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._bridge = bridge
        self._make_steps(bridge)
        self._stack = QStackedWidget()
        for step in self.steps:
            area = scroll_page(step)
            area.setAccessibleName(step.title)
            self._stack.addWidget(area)
            step.pageRequested.connect(self._leave_for)
            step.settingStored.connect(self.settingStored)
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
        self.resize(self.fontMetrics().averageCharWidth() * 100, self.fontMetrics().height() * 34)
        for other in self.findChildren(QPushButton):
            other.setAutoDefault(other is self.next_button)
        self.next_button.setDefault(True)
        bridge.statusChanged.connect(self._show_status)
        self._show_status(bridge.status)
        self._show_place()

    def _make_steps(self, bridge: Bridge) -> None:
        self.welcome = WelcomeStep(bridge)
        self.machine = MachineStep(bridge)
        self.key = KeyStep(bridge)
        self.network = NetworkStep(bridge)
        self.gas = GasStep(bridge)
        self.model = ModelStep(bridge)
        self.reach = ReachStep(bridge)
        self.test = SelfTestStep(bridge)
        self.habits = HabitsStep(bridge)
        self.steps: list[Step] = [
            self.welcome,
            self.machine,
            self.key,
            self.network,
            self.gas,
            self.model,
            self.reach,
            self.test,
            self.habits,
        ]

    # --- going --------------------------------------------------------------------------------------------------------

    def go(self, by: int) -> None:
        """Go on or back; after the last step the wizard is done."""
        place = self._stack.currentIndex() + by
        if place >= len(self.steps):
            self.accept()
            return
        self._stack.setCurrentIndex(max(place, 0))
        self.current.opened()
        self._show_place()

    def done(self, result: int) -> None:
        """End what still runs for the steps, then close: nothing answers to a window that is gone."""
        self._bridge.statusChanged.disconnect(self._show_status)
        for step in self.steps:
            step.left()
        super().done(result)

    def _leave_for(self, page: str, wanted: str) -> None:
        self.reject()
        self.pageRequested.emit(page, wanted)

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

    def _show_status(self, status: NodeStatus | None) -> None:
        if status is not None:
            for step in self.steps:
                step.show_status(status)


def needs_first_steps(status: NodeStatus) -> bool:
    """Whether nothing that serving needs is there yet: no model, and no key that could sign, for whatever reason."""
    has_no_key = status.wallet.state not in {WalletState.READY, WalletState.LOADING}
    return has_no_key and status.engine.state is EngineState.NO_MODEL
