"""The first steps: by keyboard, leavable anywhere, true to the node's state, ended by a self-test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from ui_support import ADDRESS, CHAIN, ENGINE, FakeNode, make_status

from fabstir_desktop.errors import EnvironmentFault, KeyInvalid, ModelFileError, SettingError
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.status import WalletState, WalletStatus
from fabstir_desktop.settings import save_setting
from fabstir_desktop.ui.dialogs.prompts import HiddenEntry, SecretForm
from fabstir_desktop.ui.key_panel import KeyPanel
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


@pytest.mark.parametrize("state", [WalletState.NONE, WalletState.UNAVAILABLE, WalletState.LOCKED, WalletState.INVALID])
def test_they_are_offered_wherever_no_key_can_sign_also_without_a_keyring(state: WalletState) -> None:
    assert needs_first_steps(make_status(**{**EMPTY, "wallet": WalletStatus(state)}))


def test_return_walks_through_all_steps_and_ends(qtbot: QtBot, wizard: Wizard) -> None:
    seen = []
    with qtbot.waitSignal(wizard.accepted):
        for _ in wizard.steps:
            seen.append(wizard.current.title)
            assert f"Step {len(seen)} of 9" in wizard.progress.text()
            qtbot.keyClick(wizard, Qt.Key.Key_Return)
    assert seen == [
        "What this does",
        "This computer",
        "Host key",
        "Network",
        "Gas money",
        "Model",
        "Going public",
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
    assert "comes with the host key" in shown()
    assert not wizard.gas.qr.isVisibleTo(wizard), "no empty square"
    assert not wizard.gas.address.isVisibleTo(wizard)
    _go_to(wizard, wizard.model)
    assert "No model is loaded" in shown()
    node.status = make_status()
    node.set_status(sentence="Serving")
    qtbot.waitUntil(lambda: "tiny-vicuna-1b.Q4_K_M is loaded" in shown())
    wizard.go(-1)
    assert wizard.gas.qr.isVisibleTo(wizard)
    assert "enough for about 7\u2009045 checkpoints" in shown()
    assert wizard.gas.qr.accessibleDescription() == ADDRESS
    wizard.go(-1)
    assert "Base Sepolia (84532)" in shown()
    wizard.go(-1)
    assert "Key ready, kept in GNOME Keyring" in shown()
    assert ADDRESS in shown()


def test_this_computer_is_looked_at(qtbot: QtBot, wizard: Wizard) -> None:
    _go_to(wizard, wizard.machine)
    qtbot.waitUntil(lambda: len(wizard.machine.texts()) == 5)
    assert "memory free" in wizard.machine.texts()[1]
    assert "ws://127.0.0.1:8080" in wizard.machine.texts()[3]
    assert "GPU" in wizard.machine.texts()[4]


# --- the key, inside the wizard -------------------------------------------------------------------------------------


@pytest.fixture
def keys(qtbot: QtBot, wizard: Wizard) -> KeyPanel:
    _go_to(wizard, wizard.key)
    qtbot.waitUntil(wizard.key.keys.import_button.isVisible)
    return wizard.key.keys


def test_the_key_is_asked_for_in_a_dialog_of_the_wizard_that_says_whose_key_it_is(
    qtbot: QtBot, wizard: Wizard, keys: KeyPanel, node: FakeNode
) -> None:
    keys.import_button.click()
    dialog = wizard.findChild(HiddenEntry)
    assert dialog is not None
    assert dialog.parentWidget() is not None
    assert dialog.parentWidget().window() is wizard
    account = Account.create()
    dialog.field.setText("0x" + account.key.hex())
    qtbot.waitUntil(lambda: account.address in dialog.note.text())
    assert [call for call in node.calls if call[0] == "set_key"] == [], "nothing is stored before it is agreed to"
    dialog.accept_button.click()
    qtbot.waitUntil(lambda: ("set_key", 66, False) in node.calls)
    qtbot.waitUntil(lambda: f"Your address is {ADDRESS}" in wizard.key.texts())


def test_a_key_that_cannot_be_stored_is_explained_in_the_wizard(
    qtbot: QtBot, wizard: Wizard, keys: KeyPanel, node: FakeNode
) -> None:
    node.fail_with = KeyInvalid("that is not a private key: 64 hexadecimal digits expected, got 63")
    dialog = keys.import_key()
    dialog.field.setText("ab" * 31 + "a")
    dialog.accept_button.click()
    qtbot.waitUntil(keys.error.isVisible)
    assert "got 63" in keys.error.text()
    assert wizard.current is wizard.key


def test_waiting_for_the_keyring_is_shown_in_the_wizard_and_can_be_abandoned_there(
    qtbot: QtBot, keys: KeyPanel, node: FakeNode
) -> None:
    node.hold = asyncio.Event()
    dialog = keys.import_key()
    dialog.field.setText("ab" * 32)
    dialog.accept_button.click()
    qtbot.waitUntil(keys.waiting_row.isVisible)
    keys.cancel_button.click()
    qtbot.waitUntil(lambda: not keys.waiting_row.isVisible())
    assert keys.key_actions.isEnabled()


def test_leaving_while_the_keyring_is_asked_ends_the_wait(
    qtbot: QtBot, window: MainWindow, wizard: Wizard, keys: KeyPanel, node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.hold = asyncio.Event()
    dialog = keys.import_key()
    dialog.field.setText("ab" * 32)
    dialog.accept_button.click()
    qtbot.waitUntil(keys.waiting_row.isVisible)
    wizard.reject()
    qtbot.waitUntil(lambda: not window.findChildren(Wizard))
    node.hold.set()
    qtbot.wait(200)
    assert window.bridge._tasks == {task for task in window.bridge._tasks if "refresh" in task.get_name()}
    assert not caplog.records


def test_without_a_keyring_a_key_can_be_kept_in_a_file_or_made_anew_with_a_copy(
    qtbot: QtBot, window: MainWindow, wizard: Wizard, node: FakeNode, tmp_path: Path
) -> None:
    node.set_status(wallet=WalletStatus(WalletState.UNAVAILABLE, detail="No keyring answers."))
    _go_to(wizard, wizard.key)
    keys = wizard.key.keys
    qtbot.waitUntil(lambda: "No keyring answers." in " ".join(wizard.key.texts()))
    assert keys.file_button.isVisible()
    chooser = keys.create_key()
    chooser.fileSelected.emit(str(tmp_path / "copy.json"))
    chooser.close()
    form = keys.findChild(SecretForm)
    assert form is not None
    for field in form.fields:
        field.setText("correct horse")
    form.accept_button.click()
    qtbot.waitUntil(lambda: ("create_key", tmp_path / "copy.json", len("correct horse"), True) in node.calls)


# --- model, reach, self-test ----------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_is_explained_in_the_wizard(
    qtbot: QtBot, wizard: Wizard, node: FakeNode, tmp_path: Path
) -> None:
    _go_to(wizard, wizard.model)
    node.fail_with = ModelFileError("broken.gguf is not a GGUF file")
    wizard.model.load(tmp_path / "broken.gguf")
    qtbot.waitUntil(wizard.model.error.isVisible)
    assert "not a GGUF file" in wizard.model.error.text()


def test_a_model_is_loaded_and_its_fit_told(qtbot: QtBot, wizard: Wizard, node: FakeNode, tmp_path: Path) -> None:
    _go_to(wizard, wizard.model)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    wizard.model.load(tmp_path / "small.gguf")
    qtbot.waitUntil(lambda: ("load_model", tmp_path / "small.gguf") in node.calls)
    qtbot.waitUntil(lambda: any("small needs about" in text for text in wizard.model.texts()))


def test_who_can_connect_is_said_and_the_public_address_is_tried(qtbot: QtBot, wizard: Wizard, node: FakeNode) -> None:
    _go_to(wizard, wizard.reach)
    assert "no customer can reach you yet" in " ".join(wizard.reach.texts())
    wizard.reach.check_button.click()
    qtbot.waitUntil(lambda: "No public address is set" in wizard.reach.texts()[-1])
    assert ("check_reach",) in node.calls


def test_a_step_leads_to_its_page_and_leaves_the_first_steps(qtbot: QtBot, window: MainWindow, wizard: Wizard) -> None:
    _go_to(wizard, wizard.reach)
    wizard.reach.settings_button.click()
    qtbot.waitUntil(lambda: not window.findChildren(Wizard))
    assert window.page_name == "settings"


def test_the_self_test_streams_the_answer_and_shows_each_check(qtbot: QtBot, wizard: Wizard) -> None:
    _go_to(wizard, wizard.test)
    wizard.test.test_button.click()
    qtbot.waitUntil(lambda: len(wizard.test.texts()) == 2)
    assert wizard.test.answer.toPlainText() == "A lighthouse warns ships."
    assert wizard.test.texts() == [
        "answer: 57 tokens streamed, 57 counted by the client",
        "gas money: no ETH at the address – send some",
    ]


def test_a_self_test_that_cannot_run_says_why(qtbot: QtBot, wizard: Wizard, node: FakeNode) -> None:
    _go_to(wizard, wizard.test)
    node.fail_with = EnvironmentFault("the node is not started")
    wizard.test.test_button.click()
    qtbot.waitUntil(lambda: wizard.test.texts() == ["the node is not started"])
    qtbot.waitUntil(wizard.test.test_button.isEnabled)


def test_leaving_during_the_self_test_ends_it_without_a_word(
    qtbot: QtBot, window: MainWindow, wizard: Wizard, node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    _go_to(wizard, wizard.test)
    node.hold = asyncio.Event()
    told: list[str] = []
    window.bridge.failed.connect(told.append)
    wizard.test.test_button.click()
    qtbot.waitUntil(lambda: ("self_test",) in node.calls)
    wizard.reject()
    qtbot.waitUntil(lambda: not window.findChildren(Wizard))
    node.hold.set()
    node.set_status(sentence="Serving")
    qtbot.wait(200)
    assert told == []
    assert not caplog.records


# --- habits ---------------------------------------------------------------------------------------------------------


def _at_habits(qtbot: QtBot, wizard: Wizard) -> Any:
    _go_to(wizard, wizard.habits)
    qtbot.waitUntil(wizard.habits.keep_serving.isEnabled)
    return wizard.habits


def test_habits_show_what_is_stored(qtbot: QtBot, wizard: Wizard, node: FakeNode) -> None:
    folder = node.settings.data_dir
    for name, value in (("close_action", "tray"), ("start_hidden", True), ("keep_awake", False)):
        save_setting(folder, name, value)
    habits = _at_habits(qtbot, wizard)
    assert habits.keep_serving.isChecked()
    assert habits.start_hidden.isChecked()
    assert not habits.keep_awake.isChecked()
    assert not habits.pause_on_battery.isChecked()


def test_what_the_environment_decides_is_shown_and_locked(
    qtbot: QtBot, wizard: Wizard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAUSE_ON_BATTERY", "true")
    habits = _at_habits(qtbot, wizard)
    assert habits.pause_on_battery.isChecked()
    assert not habits.pause_on_battery.isEnabled()
    assert "PAUSE_ON_BATTERY" in habits.pause_on_battery.toolTip()


def test_habits_are_stored_at_once_and_take_effect(
    qtbot: QtBot, window: MainWindow, wizard: Wizard, node: FakeNode
) -> None:
    habits = _at_habits(qtbot, wizard)
    with qtbot.waitSignal(window.settings_page.settingStored) as stored:
        habits.keep_serving.click()
    assert stored.args == ["close_action", "tray"]
    assert ("save_setting", "close_action", "tray") in node.calls


def test_a_habit_that_cannot_be_stored_says_so_and_shows_the_old_value(
    qtbot: QtBot, wizard: Wizard, node: FakeNode
) -> None:
    habits = _at_habits(qtbot, wizard)
    node.fail_with = SettingError("settings.toml cannot be written: the disk is full")
    habits.start_hidden.click()
    qtbot.waitUntil(habits.error.isVisible)
    assert "disk is full" in habits.error.text()
    qtbot.waitUntil(lambda: not habits.start_hidden.isChecked())
