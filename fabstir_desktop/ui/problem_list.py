"""Problems as one list, worst first: shape, word, code, cause, and the action that leads to where it is mended.

Several of one code are one row with their number, which opens to show each. The list takes the height of a few rows at
most and scrolls beyond: the page below stays in sight however much is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from PySide6.QtCore import QCoreApplication, QEvent, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.states import state_of
from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.widgets.basics import button, column, hold_width, icon_button, label, row, set_text, set_tone
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import action_word, severity_tone, severity_word, state_title

ROWS_SHOWN = 3
"""Rows in sight; more scroll."""
_SHARE_OF_WINDOW = 0.34
_MEMBERS_SHOWN = 50
"""Of one kind; the rest is on the page that the row leads to."""
_SPACING = 8

Group = tuple[Problem, ...]


class _Member(QWidget):
    """One of several problems of a kind, in an opened row."""

    actionRequested = Signal(object)
    dismissRequested = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._problem: Problem | None = None
        self.message = label(wrap=True, selectable=True)
        self.action_button = button("", lambda: self.actionRequested.emit(self._problem))
        self.dismiss_button = icon_button("close", self.tr("Put away"), lambda: self.dismissRequested.emit(self._group))
        layout = row(self.message, spacing=10)
        layout.setStretch(0, 1)
        layout.addWidget(self.action_button)
        layout.addWidget(self.dismiss_button)
        self.setLayout(layout)

    @property
    def _group(self) -> Group:
        return () if self._problem is None else (self._problem,)

    def show_problem(self, problem: Problem) -> None:
        """Become this problem."""
        self._problem = problem
        set_text(self.message, _message(problem))
        _show_action(self.action_button, problem, problem.subject or problem.code)
        self.dismiss_button.setVisible(state_of(problem).is_dismissible)
        self.dismiss_button.setAccessibleName(self.tr("Put away: {message}").format(message=say(problem.message)))


class ProblemRow(QFrame):
    """One problem, or all of one code."""

    actionRequested = Signal(object)
    dismissRequested = Signal(object)
    """The problems to put away, as a tuple."""
    toggled = Signal(str, bool)
    """The code, and whether its row is open now."""

    def __init__(self) -> None:
        super().__init__()
        self._group: Group = ()
        self._members: list[_Member] = []
        self._is_open = False
        self._lamp = Lamp(scale=1.2)
        self.word = label()
        hold_width(self.word, f"{severity_word(Severity.ERROR)} M00")
        self.message = label(wrap=True, selectable=True)
        self.advice = label("", "muted", wrap=True)
        self.toggle_button = button(self.tr("Show each"), self._toggle)
        self.action_button = button("", self._act)
        self.dismiss_button = icon_button("close", self.tr("Put away"), self._dismiss)
        texts = column(self.message, self.advice, spacing=2)
        head = row(self._lamp, self.word, spacing=10)
        head.addLayout(texts, 1)
        for control in (self.toggle_button, self.action_button, self.dismiss_button):
            head.addWidget(control)
        self._more = column(spacing=4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 8, 10, 8)
        layout.addLayout(head)
        layout.addLayout(self._more)

    def show_group(self, group: Group, *, is_open: bool) -> None:
        """Become these problems of one code."""
        self._group, self._is_open = group, is_open
        first, is_one = group[0], len(group) == 1
        tone = severity_tone(first.severity)
        set_tone(self, tone, "problem")
        set_tone(self.word, tone)
        word = f"{severity_word(first.severity)} {first.code}"
        self._lamp.show_tone(tone, word)
        set_text(self.word, word)
        text = _message(first) if is_one else f"{state_title(state_of(first))} ({len(group)})"
        set_text(self.message, text)
        advice = say(first.advice) if is_one else "" if is_open else _message(first)
        set_text(self.advice, advice)
        self.advice.setVisible(bool(advice))
        self.setAccessibleName(f"{word}: {text}")
        _show_action(self.action_button, first, first.code)
        self.dismiss_button.setVisible(state_of(first).is_dismissible)
        self.dismiss_button.setAccessibleName(self.tr("Put away: {message}").format(message=text))
        self._show_members(group if not is_one and is_open else ())
        self._show_toggle(is_one, word)

    def _show_toggle(self, is_one: bool, word: str) -> None:
        self.toggle_button.setVisible(not is_one)
        text = self.tr("Show fewer") if self._is_open else self.tr("Show each")
        self.toggle_button.setText(text)
        self.toggle_button.setAccessibleName(f"{text}: {word}")

    def _show_members(self, group: Group) -> None:
        shown = group[:_MEMBERS_SHOWN]
        while len(self._members) < len(shown):
            added = _Member()
            added.actionRequested.connect(self.actionRequested)
            added.dismissRequested.connect(self.dismissRequested)
            self._members.append(added)
            self._more.addWidget(added)
        for place, member in enumerate(self._members):
            if place < len(shown):
                member.show_problem(shown[place])
            member.setVisible(place < len(shown))

    def text(self) -> str:
        """What is on screen, for tests and screen readers."""
        parts: list[QLabel | QPushButton] = [self.word, self.message, self.advice, self.action_button]
        parts += [member.message for member in self._members]
        return " ".join(part.text() for part in parts if part.isVisibleTo(self) and part.text())

    def _toggle(self) -> None:
        self.toggled.emit(self._group[0].code, not self._is_open)

    def _act(self) -> None:
        if self._group:
            first = self._group[0]
            self.actionRequested.emit(first if len(self._group) == 1 else replace(first, subject=""))

    def _dismiss(self) -> None:
        self.dismissRequested.emit(self._group)


class ProblemList(QWidget):
    """The problems that stand; rows stay in place while their texts change."""

    actionRequested = Signal(object)
    dismissRequested = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[ProblemRow] = []
        self._groups: tuple[Group, ...] = ()
        self._open: set[str] = set()
        self._content = QWidget()
        self._content.setObjectName("page")
        self._layout = QVBoxLayout(self._content)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(_SPACING)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setAccessibleName(self.tr("Problems"))
        self._area.setWidget(self._content)
        self._content.installEventFilter(self)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._area)
        # Fitting resizes this widget. Done while a layout is at work, that goes on with the size from before, and leaves rows
        # that nobody sees: it waits for the next turn.
        self._fit_soon = QTimer(self)
        self._fit_soon.setSingleShot(True)
        self._fit_soon.timeout.connect(self._fit)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.setVisible(False)

    def show_problems(self, problems: tuple[Problem, ...]) -> None:
        """Show these, worst first as they come; those of one code and severity stand together."""
        self._groups = tuple(tuple(group) for _, group in groupby(problems, lambda one: (one.severity, one.code)))
        while len(self._rows) < len(self._groups):
            self._rows.append(self._make_row())
        for place, shown in enumerate(self._rows):
            if place < len(self._groups):
                group = self._groups[place]
                shown.show_group(group, is_open=group[0].code in self._open)
            shown.setVisible(place < len(self._groups))
        self.setVisible(bool(self._groups))
        self._fit()

    def texts(self) -> list[str]:
        """What is on screen, a text a row, for tests and screen readers."""
        return [shown.text() for shown in self._rows if shown.isVisibleTo(self)]

    def sizeHint(self) -> QSize:
        """As high as it is held."""
        return QSize(self._content.sizeHint().width(), self._height())

    def minimumSizeHint(self) -> QSize:
        """It scrolls: it never makes a window grow."""
        return QSize(0, self._height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Another width wraps texts anew."""
        super().resizeEvent(event)
        self._fit_soon.start(0)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Fit again once the rows know their size."""
        if watched is self._content and event.type() == QEvent.Type.LayoutRequest:
            self._fit_soon.start(0)
        return super().eventFilter(watched, event)

    def _make_row(self) -> ProblemRow:
        made = ProblemRow()
        made.actionRequested.connect(self.actionRequested)
        made.dismissRequested.connect(self.dismissRequested)
        made.toggled.connect(self._toggle)
        self._layout.addWidget(made)
        return made

    def _toggle(self, code: str, is_open: bool) -> None:
        (self._open.add if is_open else self._open.discard)(code)
        self.show_problems(tuple(problem for group in self._groups for problem in group))

    def _fit(self) -> None:
        height = self._height()
        if self.height() != height:
            self.setFixedHeight(height)

    def _height(self) -> int:
        """All rows if they are few; else some, within a share of the window. An opened row may take that share."""
        width = max(self._area.viewport().width(), 1)
        heights = [_height_at(shown, width) for shown in self._rows[: len(self._groups)]]
        wanted = sum(heights) + _SPACING * max(len(heights) - 1, 0)
        first = sum(heights[:ROWS_SHOWN]) + _SPACING * (ROWS_SHOWN - 1)
        share = round(self.window().height() * _SHARE_OF_WINDOW)
        return min(wanted, max(min(first, share), heights[0] if heights and not self._open else 0))


def _height_at(shown: QWidget, width: int) -> int:
    return shown.heightForWidth(width) if shown.hasHeightForWidth() else shown.sizeHint().height()


def _message(problem: Problem) -> str:
    is_named = not problem.subject or problem.subject in problem.message
    message = say(problem.message)
    return message if is_named else f"{message} ({problem.subject})"


def _show_action(control: QPushButton, problem: Problem, about: str) -> None:
    text = action_word(problem.action)
    control.setVisible(bool(text))
    control.setEnabled(bool(problem.page))
    if control.text() != text:
        control.setText(text)
    said = QCoreApplication.translate("ProblemList", "{action}: {about}").format(action=text, about=about)
    control.setAccessibleName(said)
