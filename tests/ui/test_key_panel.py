"""The key's panel where the key is another than expected, or its keyring does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from ui_support import ADDRESS, WALLET, FakeNode

from fabstir_desktop.jobs.states import problem
from fabstir_desktop.jobs.status import KeySource, WalletState, WalletStatus
from fabstir_desktop.ui.dialogs.prompts import TypedConfirmation
from fabstir_desktop.ui.main_window import MainWindow

FOUND = "0xCD34000000000000000000000000000000000abC"


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    made = make_window(busy_node)
    made.show_page("wallet")
    return made


def other_key() -> WalletStatus:
    detail = f"Expected the key of {ADDRESS}, the GNOME Keyring holds that of {FOUND}; signing is stopped."
    return WalletStatus(WalletState.OTHER_KEY, ADDRESS, KeySource.KEYRING, "GNOME Keyring", detail, "Accept it.", FOUND)


def show(qtbot: QtBot, window: MainWindow, node: FakeNode, wallet: WalletStatus) -> None:
    node.set_status(wallet=wallet)
    qtbot.waitUntil(lambda: window.bridge.status is not None and window.bridge.status.wallet == wallet)


def test_another_key_is_accepted_only_after_its_address_was_typed(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    show(qtbot, window, busy_node, other_key())
    keys = window.wallet.keys
    assert FOUND in keys.key_detail.text()
    assert not keys.import_button.isVisible()
    assert window.wallet.address.shown.toolTip() == ADDRESS
    dialog = keys.accept_found_key()
    assert isinstance(dialog, TypedConfirmation)
    dialog.field.setText(ADDRESS[-4:])
    assert not dialog.accept_button.isEnabled()
    dialog.field.setText(FOUND[-4:])
    qtbot.mouseClick(dialog.accept_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: ("accept_found_key",) in busy_node.calls)
    qtbot.waitUntil(keys.back_up_button.isVisible)


def test_review_leads_to_the_button_that_decides(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    show(qtbot, window, busy_node, other_key())
    busy_node.set_problems(problem("K04", other_key().detail))
    qtbot.waitUntil(lambda: len(window.problems.texts()) == 1)
    window.problems._rows[0].action_button.click()
    assert window.focusWidget() is window.wallet.keys.accept_button


def test_a_keyring_that_takes_its_time_shows_that_it_is_waited_for_and_can_be_left(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    keys = window.wallet.keys
    assert not keys.waiting_row.isVisible()
    show(qtbot, window, busy_node, WalletStatus(WalletState.LOADING, detail="The key is being looked for."))
    qtbot.waitUntil(keys.waiting_row.isVisible)
    keys.cancel_button.click()
    assert busy_node.calls[-1] == ("abandon_key_wait",)
    show(qtbot, window, busy_node, WalletStatus(WalletState.LOCKED, None, KeySource.KEYRING, "keyring"))
    assert not keys.waiting_row.isVisible()
    assert keys.unlock_button.isVisible()


def test_a_look_that_is_quick_shows_no_waiting(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    keys = window.wallet.keys
    show(qtbot, window, busy_node, WalletStatus(WalletState.LOADING))
    show(qtbot, window, busy_node, WALLET)
    qtbot.wait(600)
    assert not keys.waiting_row.isVisible()
