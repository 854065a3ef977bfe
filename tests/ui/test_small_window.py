"""A small window cuts nothing off: what is shown lies inside what holds it, or can be scrolled to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PySide6.QtCore import QRect, Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractScrollArea,
    QComboBox,
    QLabel,
    QLineEdit,
    QScrollArea,
    QTabBar,
    QWidget,
)
from pytestqt.qtbot import QtBot
from ui_support import FakeNode

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.pages.page import PAGES
from fabstir_desktop.ui.widgets.basics import ElidedLabel

SIZES = [(760, 520), (683, 384), (900, 560)]
"""Small, a 1366 x 768 screen at 200 %, and about where words give way to pictures."""
_LEAST_VIEW = 40
PROBLEMS = (
    Problem(
        "K01", Severity.ERROR, "No host key yet. The app can load models but cannot earn.", "Add key", page="wallet"
    ),
    Problem("G01", Severity.WARNING, "About 38 claims left.", "Fund", page="wallet", advice="Send at least 0.002 ETH."),
)


def lost_widgets(shown: QWidget) -> Iterator[str]:
    """Names those below `shown` that are cut off with no way to reach the rest, and texts cut within their widget."""
    for child in shown.children():
        if not isinstance(child, QWidget) or not child.isVisible() or child.isWindow():
            continue
        if not _holds(shown, child):
            yield f"{_name(child)} at {child.geometry().getRect()} is outside {_name(shown)} {shown.size().toTuple()}"
        if _is_cut(child):
            yield f"{_name(child)} needs {child.minimumSizeHint().toTuple()}, has {child.size().toTuple()}"
        if not isinstance(child, QAbstractScrollArea | QLineEdit | QComboBox | QTabBar):
            yield from lost_widgets(child)
        elif isinstance(child, QScrollArea) and (content := child.widget()) is not None:
            yield from _beyond_scrolling(child)
            yield from lost_widgets(content)


def _holds(parent: QWidget, child: QWidget) -> bool:
    return child.width() == 0 or child.height() == 0 or parent.rect().contains(child.geometry())


def _beyond_scrolling(area: QScrollArea) -> Iterator[str]:
    """A scroll area reaches what its bars reach: with a bar switched off the content must fit that way."""
    shown = area.widget()
    assert shown is not None
    content, room = shown.size(), area.viewport().size()
    if content.height() > 0 and room.height() < min(_LEAST_VIEW, content.height()):
        yield f"{_name(area)} shows {room.height()} of {content.height()} pixels: too little to scroll in"
    off = Qt.ScrollBarPolicy.ScrollBarAlwaysOff
    if area.horizontalScrollBarPolicy() == off and content.width() > room.width():
        yield f"the content of {_name(area)} is {content.width()} wide, {room.width()} are in sight"
    if area.verticalScrollBarPolicy() == off and content.height() > room.height():
        yield f"the content of {_name(area)} is {content.height()} high, {room.height()} are in sight"


def _is_cut(widget: QWidget) -> bool:
    """Whether a text or a button has less room than it says it needs."""
    if isinstance(widget, ElidedLabel) or not isinstance(widget, QLabel | QAbstractButton):
        return False
    if isinstance(widget, QLabel) and widget.wordWrap():
        return widget.height() < widget.heightForWidth(widget.width()) - 1
    needed = widget.minimumSizeHint()
    return widget.width() < needed.width() - 1 or widget.height() < needed.height() - 1


def _name(widget: QWidget) -> str:
    text = widget.text() if isinstance(widget, QLabel | QAbstractButton) else widget.accessibleName()
    return f"{type(widget).__name__} “{text[:40]}”"


def open_page(qtbot: QtBot, window: MainWindow, size: tuple[int, int], name: str, wanted: str = "") -> None:
    window.resize(*size)
    window.show_page(name, wanted)
    qtbot.wait(80)
    assert window.size().toTuple() == size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_every_page_keeps_all_it_shows_within_reach(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode, name: str, size: tuple[int, int]
) -> None:
    window = make_window(busy_node)
    open_page(qtbot, window, size, name)
    assert "\n".join(lost_widgets(window)) == ""
    busy_node.set_problems(*PROBLEMS)
    qtbot.waitUntil(lambda: len(window.bridge.problems) == len(PROBLEMS))
    qtbot.wait(80)
    assert "\n".join(lost_widgets(window)) == ""


@pytest.mark.parametrize("size", SIZES)
def test_a_job_s_details_are_within_reach(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode, size: tuple[int, int]
) -> None:
    window = make_window(busy_node)
    open_page(qtbot, window, size, "jobs", "4711")
    qtbot.waitUntil(window.jobs.drawer.isVisible)
    qtbot.wait(200)  # what the chain says comes a moment later
    assert "\n".join(lost_widgets(window)) == ""


@pytest.mark.parametrize("name", PAGES)
def test_empty_pages_are_within_reach(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode, name: str
) -> None:
    window = make_window(node)
    open_page(qtbot, window, (683, 384), name)
    assert "\n".join(lost_widgets(window)) == ""


@pytest.mark.parametrize("size", SIZES[:2])
def test_the_first_steps_are_within_reach(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode, size: tuple[int, int]
) -> None:
    window = make_window(busy_node)
    window.resize(*size)
    wizard = window.open_first_steps()
    wizard.resize(*size)
    for step in wizard.steps[1:]:
        qtbot.wait(40)
        assert wizard.size().toTuple() == size
        assert "\n".join(lost_widgets(wizard)) == "", step.title
        wizard.go(1)
    wizard.reject()


def test_what_is_outside_is_found(qtbot: QtBot) -> None:
    """The search itself: a child beyond the edge, a button too narrow for its word, a page wider than its view."""
    holder = QWidget()
    qtbot.addWidget(holder)
    holder.resize(200, 100)
    beyond = QLabel("beyond", holder)
    beyond.setGeometry(QRect(180, 10, 80, 30))
    narrow = QLabel("much too narrow for this", holder)
    narrow.setGeometry(QRect(10, 50, 20, 30))
    holder.show()
    found = list(lost_widgets(holder))
    assert len(found) == 2, found
