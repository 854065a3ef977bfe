"""What a screen reader says: everything that takes the focus, or shows something without text, has a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleInterface
from PySide6.QtWidgets import QDialog, QWidget
from pytestqt.qtbot import QtBot
from ui_support import FakeNode

from fabstir_desktop.jobs.inspections import BundleText
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.ui.dialogs.bundle import BundlePreview
from fabstir_desktop.ui.dialogs.prompts import HiddenEntry, Question, TypedConfirmation
from fabstir_desktop.ui.dialogs.secrets import ask_new_password
from fabstir_desktop.ui.leaving import Leaving
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.pages.page import PAGES
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.widgets.qr import QrCode
from fabstir_desktop.ui.words import Tone

PICTURES = (Lamp, QrCode)
WITHIN = {"qt_spinbox_lineedit", "qt_scrollarea_viewport", "qt_scrollarea_hcontainer", "qt_scrollarea_vcontainer"}
"""Parts of a control that is named itself."""


def nameless(window: QWidget) -> list[str]:
    """What a screen reader meets in this window without a name to say."""
    root = QAccessible.queryAccessibleInterface(window)
    assert root is not None
    return [_where(widget) for widget in _widgets(root) if _needs_name(widget) and not _spoken(widget)]


def _widgets(interface: QAccessibleInterface) -> Iterator[QWidget]:
    """The tree as screen readers walk it; rows and cells speak through their model, which has tests of its own."""
    found = interface.object()
    if isinstance(found, QWidget):
        if not found.isVisible():
            return
        yield found
    if interface.role() in {QAccessible.Role.Table, QAccessible.Role.List, QAccessible.Role.Tree}:
        return
    for place in range(interface.childCount()):
        child = interface.child(place)
        if child is not None and child.isValid():
            yield from _widgets(child)


def _needs_name(widget: QWidget) -> bool:
    if widget.objectName() in WITHIN or isinstance(widget, QDialog):
        return False
    return isinstance(widget, PICTURES) or bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus)


def _spoken(widget: QWidget) -> str:
    interface = QAccessible.queryAccessibleInterface(widget)
    return interface.text(QAccessible.Text.Name).strip() if interface is not None else ""


def _where(widget: QWidget) -> str:
    names, at = [], widget
    while at is not None:
        names.append(type(at).__name__)
        at = at.parentWidget()
    return " < ".join(names[:5]) + f" ({widget.objectName()})"


@pytest.mark.parametrize("name", PAGES)
def test_every_page(qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode, name: str) -> None:
    window = make_window(busy_node)
    busy_node.set_problems(Problem("T02", Severity.WARNING, "Job 4711: refused.", "Open job", "4711", page=name))
    qtbot.waitUntil(lambda: len(window.bridge.problems) == 1)
    window.show_page(name, "4711" if name == "jobs" else "")
    if name == "dashboard":
        window.dashboard.table_button.click()
    window.notice.say("Something was done.", Tone.OK)
    qtbot.wait(60)
    assert nameless(window) == []
    if name == "jobs":
        window.jobs.drawer.claims.parent().parent().setCurrentIndex(1)  # type: ignore[union-attr,attr-defined]
        assert nameless(window) == []


def test_every_step_of_the_first_steps(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode
) -> None:
    wizard = make_window(busy_node).open_first_steps()
    for step in wizard.steps:
        qtbot.wait(20)
        assert (step.title, nameless(wizard)) == (step.title, [])
        if step is not wizard.steps[-1]:
            wizard.go(1)
    wizard.reject()


def test_every_dialog(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode, tmp_path: Path
) -> None:
    window = make_window(busy_node)
    leaving = Leaving(window.bridge, window, lambda: True)
    leaving.ask_to_quit()
    dialogs: list[QDialog] = [
        leaving.question,
        HiddenEntry(window, "Import a key", "Paste it.", lambda _: None, action="Store"),
        TypedConfirmation(window, "Remove", "Type 9fE0.", "9fE0", lambda: None, action="Remove"),
        Question(window, "Sure?", "It goes.", [("yes", "Yes"), ("no", "No")], lambda *_: None, otherwise="no"),
        BundlePreview(window, [BundleText("log.txt", "a line", 1)], window.bridge),
        ask_new_password(window, "Back up the key", "It is encrypted.", lambda _: None),
    ]
    for dialog in dialogs:
        dialog.open()
        qtbot.wait(20)
        assert dialog.windowTitle()
        assert (dialog.windowTitle(), nameless(dialog)) == (dialog.windowTitle(), [])
        dialog.reject()


def test_a_nameless_control_is_found(qtbot: QtBot) -> None:
    """The search itself."""
    holder, lamp = QWidget(), Lamp()
    qtbot.addWidget(holder)
    lamp.setParent(holder)
    lamp.setAccessibleName("")
    holder.show()
    assert len(nameless(holder)) == 1
