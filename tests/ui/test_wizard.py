"""The first steps: by keyboard, leavable anywhere, true to the node's state, ended by a self-test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from ui_support import ADDRESS, CHAIN, ENGINE, FakeNode, make_status

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.status import WalletState, WalletStatus
from fabstir_desktop.ui.dialogs.prompts import HiddenEntry
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.wizard import Wizard, needs_first_steps

EMPTY = {
    "wallet": WalletStatus(WalletState.NONE),
    "engine": replace(ENGINE, model=None, state=EngineState.NO_MODEL),
    "chain": replace(CHAIN, balance_wei=None, checkpoints_left=None),
}


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], node: FakeNode) -> MainWindow:
    node.status = replace(node.status, **EMPTY)  # type: ignore[arg-type]
    return make_window(node)


@pytest.fixture
def wizard(window: MainWindow) -> Wizard:
    return window.open_first_steps()


def _go_to(wizard: Wizard, step: Any) -> None:
    while wizard.current is not step:
        wizard.go(1)


def test_they_are_offered_only_while_there_is_neither_key_nor_model() -> None:
    assert needs_first_steps(make_status(**EMPTY))
    assert not needs_first_steps(make_status(wallet=EMPTY["wallet"]))
    assert not needs_first_steps(make_status())


def test_return_walks_through_all_steps_and_ends(qtbot: QtBot, wizard: Wizard) -> None:
    seen = []
    with qtbot.waitSignal(wizard.accepted):
        for _ in wizard.steps:
            seen.append(wizard.current.title)
            assert f"Step {len(seen)} of 8" in wizard.progress.text()
            qtbot.keyClick(wizard, Qt.Key.Key_Return)
    assert seen == [
        "What this does",
        "This computer",
        "Host key",
        "Network",
        "Gas money",
        "Model",
        "Self-test",
        "Habits",
    ]


def test_escape_leaves_at_any_step_and_they_can_be_opened_again(
    qtbot: QtBot, window: MainWindow, wizard: Wizard
) -> None:
    wizard.go(3)
    with qtbot.waitSignal(wizard.rejected):
        qtbot.keyClick(wizard, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not window.findChildren(Wizard))
    window.settings_page.wizard_button.click()
    assert window.findChild(Wizard) is not None


def test_opening_them_twice_gives_the_same(window: MainWindow, wizard: Wizard) -> None:
    assert window.open_first_steps() is wizard


def test_each_step_shows_what_is_missing_and_then_what_is_there(
    qtbot: QtBot, window: MainWindow, wizard: Wizard, node: FakeNode
) -> None:
    def shown() -> str:
        return " | ".join(wizard.current.texts())

    _go_to(wizard, wizard.key)
    assert "No key" in shown()
    _go_to(wizard, wizard.gas)
    assert "not known yet" in shown()
    _go_to(wizard, wizard.model)
    assert "No model is loaded" in shown()
    node.status = make_status()
    node.set_status(sentence="Serving")
    qtbot.waitUntil(lambda: "tiny-vicuna-1b.Q4_K_M is loaded" in shown())
    wizard.go(-1)
    assert "enough for about 7\u2009045 checkpoints" in shown()
    assert wizard.qr.accessibleDescription() == ADDRESS
    wizard.go(-1)
    assert "Base Sepolia (84532)" in shown()
    wizard.go(-1)
    assert "Key ready (GNOME Keyring)" in shown()


def test_this_computer_is_looked_at(qtbot: QtBot, wizard: Wizard) -> None:
    _go_to(wizard, wizard.machine)
    qtbot.waitUntil(lambda: len(wizard.machine.texts()) == 3)
    assert "memory free" in wizard.machine.texts()[1]


def test_the_key_step_opens_the_hidden_entry(qtbot: QtBot, window: MainWindow, wizard: Wizard) -> None:
    wizard.keyRequested.emit()
    qtbot.waitUntil(lambda: window.findChild(HiddenEntry) is not None)


def test_the_self_test_streams_the_answer_and_shows_each_check(qtbot: QtBot, wizard: Wizard) -> None:
    _go_to(wizard, wizard.test)
    wizard.test_button.click()
    qtbot.waitUntil(lambda: len(wizard.test.texts()) == 2)
    assert wizard.answer.toPlainText() == "A lighthouse warns ships."
    assert wizard.test.texts() == [
        "answer: 57 tokens streamed, 57 counted by the client",
        "gas money: no ETH at the address – send some",
    ]


def test_a_self_test_that_cannot_run_says_why(qtbot: QtBot, wizard: Wizard, node: FakeNode) -> None:
    _go_to(wizard, wizard.test)
    node.fail_with = EnvironmentFault("the node is not started")
    wizard.test_button.click()
    qtbot.waitUntil(lambda: wizard.test.texts() == ["the node is not started"])
    qtbot.waitUntil(wizard.test_button.isEnabled)


def test_habits_are_stored_at_once(qtbot: QtBot, wizard: Wizard, node: FakeNode) -> None:
    _go_to(wizard, wizard.habits)
    wizard.keep_serving.click()
    qtbot.waitUntil(lambda: ("save_setting", "close_action", "tray") in node.calls)
