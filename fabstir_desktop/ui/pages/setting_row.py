"""One setting: what it does, its value, its default, when a change takes effect, and who else decides it."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from PySide6.QtCore import QCoreApplication, Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QFrame, QGridLayout, QLineEdit, QWidget

from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.widgets.basics import icon_button, label, row, set_text
from fabstir_desktop.ui.words import Tone

SETTINGS_SOURCE = "settings.toml"


class SettingRow(QFrame):
    """Edits one field. Emits what to store; None means back to the default."""

    storeRequested = Signal(str, object)

    def __init__(self, name: str, title: str, field: FieldInfo) -> None:
        super().__init__()
        self.name = name
        self._field = field
        self._value: Any = None
        self.editor, self._read, self._write = self._make_editor()
        self.editor.setAccessibleName(title)
        description = say(field.description or "")
        self.editor.setAccessibleDescription(description)
        self.title = label(title, "title")
        self.title.setBuddy(self.editor)
        self.description = label(description, "muted", wrap=True)
        self.facts = label("", "muted", wrap=True)
        self.lock = label("", wrap=True)
        self.lock.setProperty("tone", Tone.BUSY.value)
        self.error = label("", wrap=True)
        self.error.setProperty("tone", Tone.ERROR.value)
        self.reset_button = icon_button(
            "undo",
            self.tr("Back to the default: {title}").format(title=title),
            lambda: self.storeRequested.emit(name, None),
        )
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 8, 0, 8)
        grid.setHorizontalSpacing(20)
        grid.setVerticalSpacing(2)
        grid.addWidget(self.title, 0, 0)
        grid.addWidget(self.description, 1, 0)
        grid.addWidget(self.facts, 2, 0)
        grid.addWidget(self.lock, 3, 0)
        grid.addWidget(self.error, 4, 0)
        grid.addLayout(row(self.editor, self.reset_button), 0, 1, 3, 1)
        grid.setColumnStretch(0, 3)
        grid.setColumnStretch(1, 2)
        self.lock.setVisible(False)
        self.error.setVisible(False)

    # --- showing ------------------------------------------------------------------------------------------------------

    def show_value(self, value: Any) -> None:
        """Show the value in use."""
        self._value = value
        self._write(value)
        effect = say(str((self._field.json_schema_extra or {}).get("effect", "")))  # type: ignore[union-attr]
        default = _as_text(self._field.get_default(call_default_factory=True)) or self.tr("automatic")
        set_text(
            self.facts,
            self.tr("Default: {default} · takes effect {effect} · {variable}").format(
                default=default, effect=effect, variable=self.name.upper()
            ),
        )

    def show_source(self, source: str) -> None:
        """Lock the field if something stronger than the file decides it."""
        is_locked = source not in {"default", SETTINGS_SOURCE}
        self.editor.setEnabled(not is_locked)
        self.reset_button.setEnabled(source == SETTINGS_SOURCE)
        self.lock.setVisible(is_locked)
        set_text(self.lock, self.tr("Set by the {source}; it cannot be changed here.").format(source=source))

    def show_error(self, text: str) -> None:
        """Say why the value was not stored; the field shows the value in use again."""
        self.error.setText(text)
        self.error.setVisible(bool(text))

    # --- editing ------------------------------------------------------------------------------------------------------

    def _make_editor(self) -> tuple[QWidget, Callable[[], Any], Callable[[Any], None]]:
        choices = _choices(self._field.annotation)
        if choices:
            return self._make_choice(choices)
        if self._field.annotation is bool:
            return self._make_switch()
        return self._make_line()

    def _make_choice(self, choices: tuple[str, ...]) -> tuple[QWidget, Callable[[], Any], Callable[[Any], None]]:
        box = QComboBox()
        for choice in choices:
            box.addItem(choice.replace("_", " "), choice)
        box.activated.connect(lambda _: self._store())
        return box, box.currentData, lambda value: box.setCurrentIndex(max(box.findData(value), 0))

    def _make_switch(self) -> tuple[QWidget, Callable[[], Any], Callable[[Any], None]]:
        check = QCheckBox(self.tr("Yes"))
        check.clicked.connect(lambda _: self._store())
        return check, check.isChecked, lambda value: check.setChecked(bool(value))

    def _make_line(self) -> tuple[QWidget, Callable[[], Any], Callable[[Any], None]]:
        line = QLineEdit()
        line.setPlaceholderText(self.tr("automatic"))
        line.editingFinished.connect(self._store)
        return line, lambda: line.text().strip(), lambda value: line.setText(_as_text(value))

    def _store(self) -> None:
        value = self._read()
        if _as_text(value) == _as_text(self._value):
            self.show_error("")
            return
        self.storeRequested.emit(self.name, None if value == "" else _typed(value, self._field.annotation))


def _choices(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _typed(value: Any, annotation: Any) -> Any:
    """Read text as the number the setting wants; what is no number goes on as it is, and is refused with the reason."""
    wanted = get_args(annotation) if get_origin(annotation) in {typing.Union, types.UnionType} else (annotation,)
    if isinstance(value, str):
        for kind in (int, float):
            if kind in wanted:
                try:
                    return kind(value)
                except ValueError:
                    return value
    return value


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return QCoreApplication.translate("settings", "yes") if value else QCoreApplication.translate("settings", "no")
    if isinstance(value, tuple | list):
        return ", ".join(str(part) for part in value)
    return str(value)
