"""What all steps share: heading, explanation, facts, and tasks that end when the steps are left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.widgets.basics import label, row, rule, set_text
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import Tone

Fact = tuple[Tone, str]
Result = TypeVar("Result")


class FactLine(QWidget):
    """One fact of a step: a shape, and what is so or what to do."""

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
    """A step: heading, explanation, facts, and what can be done here.

    Commands go through `run`: their failures are shown in the step itself, and they end with the wizard.
    """

    pageRequested = Signal(str, str)
    """Leave the first steps for a page, and what to show there."""
    settingStored = Signal(str, object)

    def __init__(self, bridge: Bridge, title: str, explanation: str) -> None:
        super().__init__()
        self.bridge = bridge
        self.title = title
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: list[FactLine] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(12)
        layout.addWidget(label(title, "heading"))
        layout.addWidget(label(explanation, "muted", wrap=True))
        layout.addWidget(rule())
        self.facts = QVBoxLayout()
        self.facts.setSpacing(8)
        layout.addLayout(self.facts)
        self.error = label("", wrap=True, selectable=True)
        self.error.setProperty("tone", Tone.ERROR.value)
        self.error.setVisible(False)
        self.body = QVBoxLayout()
        self.body.setSpacing(8)
        layout.addLayout(self.body)
        layout.addWidget(self.error)
        layout.addStretch(1)

    # --- what the wizard calls ----------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The step came on screen."""

    def show_status(self, status: NodeStatus) -> None:
        """The node's state changed."""

    def left(self) -> None:
        """The first steps are left: what still runs for them ends."""
        for task in list(self._tasks):
            task.cancel()

    # --- what steps use -----------------------------------------------------------------------------------------------

    def run(
        self,
        work: Coroutine[Any, Any, Result],
        *,
        done: Callable[[Result], None] | None = None,
        failed: Callable[[str], None] | None = None,
        busy: QWidget | None = None,
    ) -> None:
        """Run a command of this step; see Bridge.run."""
        self.show_error("")
        task = self.bridge.run(work, done=done, failed=failed or self.show_error, busy=busy)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def show_error(self, text: str) -> None:
        """Say in the step what did not work."""
        self.error.setText(text)
        self.error.setVisible(bool(text))

    def show_facts(self, facts: Sequence[Fact]) -> None:
        """Show these facts, in place of those before."""
        while len(self._lines) < len(facts):
            self._lines.append(FactLine())
            self.facts.addWidget(self._lines[-1])
        for place, line in enumerate(self._lines):
            line.setVisible(place < len(facts))
            if place < len(facts):
                line.show_fact(*facts[place])

    def texts(self) -> list[str]:
        """The facts on screen."""
        return [line.text.text() for line in self._lines if line.isVisibleTo(self)]
