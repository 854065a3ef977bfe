"""Small dialogs: a question with named answers, and the hidden entry of a key. Opened, never run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QDialog, QLabel, QLineEdit, QVBoxLayout, QWidget

from fabstir_desktop.ui.widgets.basics import button, label, row, set_text
from fabstir_desktop.ui.words import Tone


class Question(QDialog):
    """A question with one button an answer; Escape and the close button answer with the last, or as told."""

    def __init__(
        self,
        parent: QWidget | None,
        title: str,
        text: str,
        answers: Sequence[tuple[str, str]],
        answered: Callable[[str, bool], None],
        *,
        remember: str = "",
        detail: str = "",
        otherwise: str | None = None,
    ) -> None:
        """`answers` are (word, text on the button), the default first, cancel last; `answered(word, remembered)`.

        `otherwise` is the answer of Escape where it is not the last.
        """
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._answered = answered
        self._answer = otherwise or answers[-1][0]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(12)
        self.text = label(text, "title", wrap=True)
        self.text.setMinimumWidth(self.fontMetrics().averageCharWidth() * 72)
        layout.addWidget(self.text)
        self.detail = label(detail, "muted", wrap=True)
        self.detail.setVisible(bool(detail))
        layout.addWidget(self.detail)
        self.remember = QCheckBox(remember)
        self.remember.setVisible(bool(remember))
        layout.addWidget(self.remember)
        self.button_by_answer = {}
        for place, (word, written) in enumerate(answers):
            made = button(written, partial(self._choose, word), kind="plain" if place else "primary")
            made.setDefault(place == 0)
            self.button_by_answer[word] = made
            layout.addWidget(made)
        self.finished.connect(self._report)

    def _choose(self, word: str) -> None:
        self._answer = word
        self.accept()

    def _report(self, _: int) -> None:
        self._answered(self._answer, self.remember.isChecked())


class HiddenEntry(QDialog):
    """Asks for a secret. It is shown as dots, handed over once, and wiped from the field."""

    def __init__(
        self, parent: QWidget | None, title: str, text: str, accepted: Callable[[str], None], *, action: str
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._accepted = accepted
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(12)
        explanation = label(text, wrap=True)
        explanation.setMinimumWidth(self.fontMetrics().averageCharWidth() * 72)
        explanation.setMinimumHeight(explanation.heightForWidth(explanation.minimumWidth()))
        layout.addWidget(explanation)
        self.field = _hidden_field(title)
        layout.addWidget(self.field)
        self.note = _note(self)
        layout.addWidget(self.note)
        self.accept_button = button(action, self._take, kind="primary")
        self.accept_button.setEnabled(False)
        self.accept_button.setDefault(True)
        self.cancel_button = button(self.tr("Cancel"), self.reject)
        self.field.textChanged.connect(lambda text: self.accept_button.setEnabled(bool(text.strip())))
        layout.addLayout(row(None, self.cancel_button, self.accept_button))
        self.finished.connect(lambda _: self.field.clear())

    def _take(self) -> None:
        secret = self.field.text().strip()
        self.field.clear()
        self.accept()
        self._accepted(secret)


class SecretForm(QDialog):
    """Asks for several secrets at once. Shown as dots, checked as they are typed, handed over once, and wiped."""

    def __init__(
        self,
        parent: QWidget | None,
        title: str,
        text: str,
        names: Sequence[str],
        accepted: Callable[[list[str]], None],
        *,
        action: str,
        objection: Callable[[list[str]], str] = lambda _: "",
    ) -> None:
        """`objection` says what is wrong with the entries, or nothing; it is asked once all fields have text."""
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._accepted = accepted
        self._objection = objection
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(12)
        explanation = label(text, wrap=True)
        explanation.setMinimumWidth(self.fontMetrics().averageCharWidth() * 60)
        explanation.setMinimumHeight(explanation.heightForWidth(explanation.minimumWidth()))
        layout.addWidget(explanation)
        self.fields = [_hidden_field(name) for name in names]
        for name, field in zip(names, self.fields, strict=True):
            layout.addWidget(label(name, "muted"))
            layout.addWidget(field)
            field.textChanged.connect(lambda _: self._check())
        self.note = _note(self)
        layout.addWidget(self.note)
        self.wrong = label(" ", wrap=True)
        self.wrong.setProperty("tone", Tone.ERROR.value)
        layout.addWidget(self.wrong)
        self.accept_button = button(action, self._take, kind="primary")
        self.accept_button.setEnabled(False)
        self.accept_button.setDefault(True)
        self.cancel_button = button(self.tr("Cancel"), self.reject)
        layout.addLayout(row(None, self.cancel_button, self.accept_button))
        self.finished.connect(lambda _: self._wipe())

    def _check(self) -> None:
        texts = [field.text() for field in self.fields]
        objection = self._objection(texts) if all(texts) else ""
        set_text(self.wrong, objection or " ")
        self.accept_button.setEnabled(all(texts) and not objection)

    def _take(self) -> None:
        secrets = [field.text() for field in self.fields]
        self._wipe()
        self.accept()
        self._accepted(secrets)

    def _wipe(self) -> None:
        for field in self.fields:
            field.clear()


def _note(dialog: QWidget) -> QLabel:
    """Room for two lines below a field, held from the start: nothing moves when something is said there."""
    made = label(" ", "muted", wrap=True)
    made.setMinimumHeight(2 * dialog.fontMetrics().lineSpacing())
    made.setAlignment(Qt.AlignmentFlag.AlignTop)
    return made


def _hidden_field(name: str) -> QLineEdit:
    field = QLineEdit()
    field.setEchoMode(QLineEdit.EchoMode.Password)
    field.setAccessibleName(name)
    field.setInputMethodHints(
        Qt.InputMethodHint.ImhSensitiveData | Qt.InputMethodHint.ImhNoPredictiveText | Qt.InputMethodHint.ImhHiddenText
    )
    return field


class TypedConfirmation(QDialog):
    """Asks to type a few characters before something that cannot be taken back."""

    def __init__(
        self,
        parent: QWidget | None,
        title: str,
        text: str,
        expected: str,
        confirmed: Callable[[], None],
        *,
        action: str,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._confirmed = confirmed
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(12)
        explanation = label(text, wrap=True)
        explanation.setMinimumWidth(self.fontMetrics().averageCharWidth() * 60)
        layout.addWidget(explanation)
        self.field = QLineEdit()
        self.field.setAccessibleName(title)
        layout.addWidget(self.field)
        self.accept_button = button(action, self._confirm, kind="danger")
        self.accept_button.setEnabled(False)
        self.cancel_button = button(self.tr("Cancel"), self.reject)
        self.cancel_button.setDefault(True)
        self.field.textChanged.connect(
            lambda typed: self.accept_button.setEnabled(typed.strip().lower() == expected.lower())
        )
        layout.addLayout(row(None, self.cancel_button, self.accept_button))

    def _confirm(self) -> None:
        self.accept()
        self._confirmed()
