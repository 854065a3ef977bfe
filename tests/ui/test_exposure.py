"""Being reachable by others is a deliberate act: read, agreed to, and in sight for as long as it lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot
from ui_support import SERVER, FakeNode

from fabstir_desktop.ui.main_window import MainWindow


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


@pytest.fixture
def page(qtbot: QtBot, window: MainWindow) -> Any:
    window.show_page("settings")
    qtbot.waitUntil(lambda: all(row.facts.text() for row in window.settings_page.row_by_name.values()))
    return window.settings_page


def enter(page: Any, name: str, text: str) -> Any:
    """What a host does: type, and leave the field. Leaving is said twice, as Qt does when a dialog opens."""
    row = page.row_by_name[name]
    row.editor.setText(text)
    row.editor.editingFinished.emit()
    row.editor.editingFinished.emit()
    return row


def choose(page: Any, name: str, value: str) -> Any:
    row = page.row_by_name[name]
    row.editor.setCurrentIndex(row.editor.findData(value))
    row.editor.activated.emit(row.editor.currentIndex())
    return row


def shown(question: Any) -> str:
    return " ".join(text.text() for text in question.findChildren(QLabel))


def stored(tmp_path: Path) -> str:
    file = tmp_path / "settings.toml"
    return file.read_text() if file.exists() else ""


def test_listening_beyond_this_machine_is_stored_only_after_the_host_read_what_becomes_reachable(
    qtbot: QtBot, page: Any, busy_node: FakeNode, tmp_path: Path
) -> None:
    row = enter(page, "api_host", "0.0.0.0")
    assert page.question.isVisible()
    for word in ("every network of this machine", "port 8080", "not encrypted", "paid jobs"):
        assert word in shown(page.question)
    assert ("save_setting", "api_host", "0.0.0.0") not in busy_node.calls
    page.question.reject()
    qtbot.waitUntil(lambda: page.question is None)
    assert row.editor.text() == "127.0.0.1"
    assert stored(tmp_path) == ""
    enter(page, "api_host", "0.0.0.0")
    page.question.button_by_answer["open"].click()
    qtbot.waitUntil(lambda: 'api_host = "0.0.0.0"' in stored(tmp_path))
    qtbot.waitUntil(lambda: row.editor.text() == "0.0.0.0")


@pytest.mark.parametrize("answer", ["cancel", "open"])
def test_free_use_for_everyone_is_asked_for_also_while_the_port_is_this_machines_own(
    qtbot: QtBot, page: Any, tmp_path: Path, answer: str
) -> None:
    row = choose(page, "free_use", "everyone")
    assert "earn nothing" in shown(page.question)
    page.question.button_by_answer[answer].click()
    if answer == "open":
        qtbot.waitUntil(lambda: 'free_use = "everyone"' in stored(tmp_path))
    qtbot.waitUntil(lambda: row.editor.currentData() == ("everyone" if answer == "open" else "loopback"))
    assert bool(stored(tmp_path)) == (answer == "open")


def test_each_step_further_out_is_asked_for_and_steps_back_are_not(
    qtbot: QtBot, page: Any, busy_node: FakeNode, tmp_path: Path
) -> None:
    enter(page, "api_host", "0.0.0.0")
    page.question.button_by_answer["open"].click()
    qtbot.waitUntil(lambda: "0.0.0.0" in stored(tmp_path))
    choose(page, "free_use", "everyone")
    assert "earn nothing" in shown(page.question)
    page.question.button_by_answer["open"].click()
    qtbot.waitUntil(lambda: "everyone" in stored(tmp_path))
    choose(page, "free_use", "nobody")
    assert page.question is None
    qtbot.waitUntil(lambda: 'free_use = "nobody"' in stored(tmp_path))
    enter(page, "api_host", "127.0.0.1")
    assert page.question is None
    qtbot.waitUntil(lambda: "127.0.0.1" in stored(tmp_path))


def test_settings_that_open_nothing_are_stored_without_a_question(qtbot: QtBot, page: Any, tmp_path: Path) -> None:
    enter(page, "checkpoint_threshold", "800")
    assert page.question is None
    qtbot.waitUntil(lambda: "800" in stored(tmp_path))
    row = enter(page, "api_port", "many")
    qtbot.waitUntil(row.error.isVisible)
    assert page.question is None


def test_the_strip_shows_what_others_can_reach_for_as_long_as_they_can(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    badge = window.strip.public_badge
    assert not badge.isVisible()
    sentences = ("Anyone who reaches port 8080 can connect.", "They can send prompts for paid jobs.")
    busy_node.set_status(server=replace(SERVER, exposure=sentences))
    qtbot.waitUntil(badge.isVisible)
    assert badge.text() == "PUBLIC"
    assert all(sentence in badge.toolTip() for sentence in sentences)
    assert all(sentence in badge.accessibleDescription() for sentence in sentences)
    busy_node.set_status(server=SERVER)
    qtbot.waitUntil(lambda: not badge.isVisible())
