"""Problems as one list, worst first: shape, word, code, cause, and the action that leads to where it is mended."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QVBoxLayout, QWidget

from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.ui.widgets.basics import button, label, row, set_text, set_tone
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import severity_tone, severity_word


class ProblemRow(QFrame):
    """One problem."""

    actionRequested = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._problem: Problem | None = None
        self._lamp = Lamp(scale=1.2)
        self.word = label()
        self.message = label(wrap=True, selectable=True)
        self.action_button = button("", self._act)
        layout = row(self._lamp, self.word, spacing=10)
        layout.setContentsMargins(14, 8, 10, 8)
        layout.addWidget(self.message, 1)
        layout.addWidget(self.action_button)
        self.setLayout(layout)

    def show_problem(self, problem: Problem) -> None:
        """Become this problem."""
        self._problem = problem
        tone = severity_tone(problem.severity)
        set_tone(self, tone, "problem")
        set_tone(self.word, tone)
        word = f"{severity_word(problem.severity)} {problem.code}"
        self._lamp.show_tone(tone, word)
        set_text(self.word, word)
        subject = f" ({problem.subject})" if problem.subject and problem.subject not in problem.message else ""
        set_text(self.message, problem.message + subject)
        self.setAccessibleName(f"{word}: {problem.message}")
        self.action_button.setVisible(bool(problem.action))
        self.action_button.setEnabled(bool(problem.page))
        if self.action_button.text() != problem.action:
            self.action_button.setText(problem.action)

    def _act(self) -> None:
        if self._problem is not None:
            self.actionRequested.emit(self._problem)


class ProblemList(QWidget):
    """The problems that stand; rows stay in place while their texts change."""

    actionRequested = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(8)
        self._rows: list[ProblemRow] = []
        self.setVisible(False)

    def show_problems(self, problems: tuple[Problem, ...]) -> None:
        """Show these, in this order."""
        while len(self._rows) < len(problems):
            added = ProblemRow()
            added.actionRequested.connect(self.actionRequested)
            self._rows.append(added)
            self._layout.addWidget(added)
        for place, shown in enumerate(self._rows):
            if place < len(problems):
                shown.show_problem(problems[place])
            shown.setVisible(place < len(problems))
        self.setVisible(bool(problems))

    def texts(self) -> list[str]:
        """What is on screen, for tests and screen readers."""
        return [
            f"{shown.word.text()} {shown.message.text()} {shown.action_button.text()}"
            for shown in self._rows
            if shown.isVisibleTo(self)
        ]
