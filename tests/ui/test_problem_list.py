"""The list of problems: readable however many stand, one row a kind, and each action leads to where it is mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from ui_support import FakeNode, make_transaction

from fabstir_desktop.jobs.states import STATES, problem
from fabstir_desktop.ui.main_window import MainWindow


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    made = make_window(busy_node)
    made.resize(1240, 840)
    return made


def show(qtbot: QtBot, window: MainWindow, node: FakeNode, *problems: Any) -> None:
    node.set_problems(*problems)
    qtbot.waitUntil(lambda: tuple(window.bridge.problems) == tuple(node.problems))
    QApplication.processEvents()


def a_code_each() -> list[Any]:
    return [problem(code, f"{state.title}, said at length for {code}.") for code, state in STATES.items()]


def test_a_hundred_problems_keep_the_window_its_size_and_every_row_readable(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    many = [problem("J04", f"Job {job}: 20 tokens cannot be claimed.", subject=str(job)) for job in range(60)]
    show(qtbot, window, busy_node, *a_code_each(), *many)
    assert window.height() == 840
    assert window.problems.height() <= 840 * 0.4
    line = window.problems.fontMetrics().height()
    shown = [row for row in window.problems._rows if row.isVisibleTo(window.problems)]
    assert len(shown) == len(STATES)
    assert all(row.height() >= line + 16 for row in shown)
    assert all(row.message.height() >= line for row in shown)
    assert window.problems._area.verticalScrollBar().maximum() > 0


def test_problems_that_come_while_the_window_is_open_are_in_sight(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    """Their rows once lay in an area without height: room was made for them, and it was empty."""
    show(qtbot, window, busy_node, problem("K03", "No keyring was found."), problem("G01", "About 38 claims left."))
    qtbot.wait(50)
    assert window.problems._area.geometry() == window.problems.rect()
    assert not window.problems._rows[1].visibleRegion().isEmpty()


def test_problems_that_come_after_the_hidden_list_was_laid_out_are_in_sight(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    """A picture lays out what is hidden too: the list without problems, which has no height."""
    window.grab()
    show(qtbot, window, busy_node, problem("K03", "No keyring was found."), problem("G01", "About 38 claims left."))
    qtbot.wait(50)
    assert window.problems._area.geometry() == window.problems.rect()
    assert [row.visibleRegion().isEmpty() for row in window.problems._rows] == [False, False]


def test_problems_never_make_the_window_ask_for_more_room(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    before = window.minimumSizeHint()
    show(qtbot, window, busy_node, problem("K03", "No keyring was found.", advice="Install one. " * 30))
    assert window.minimumSizeHint().width() <= before.width()


def test_many_of_one_kind_are_one_row_that_opens(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    several = [problem("T02", f"Job {job}: refused.", subject=str(job)) for job in (4702, 4711, 4712)]
    show(qtbot, window, busy_node, *several)
    assert len(window.problems.texts()) == 1
    row = window.problems._rows[0]
    assert "(3)" in row.message.text()
    assert "4702" in row.advice.text()
    row.toggle_button.click()
    assert all(f"Job {job}" in window.problems.texts()[0] for job in (4702, 4711, 4712))
    row._members[1].action_button.click()
    assert window.page_name == "jobs"
    assert window.jobs.drawer.job_id.shown.text() == "4711"
    row.toggle_button.click()
    assert not row._members[0].isVisibleTo(window.problems)


def test_what_only_reports_can_be_put_away_and_what_must_be_mended_cannot(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    report = problem("J04", "Job 5: 20 tokens cannot be claimed.", subject="5")
    show(qtbot, window, busy_node, problem("M01", "No model selected."), report)
    first, second = window.problems._rows[:2]
    assert not first.dismiss_button.isVisible()
    second.dismiss_button.click()
    assert busy_node.calls[-1] == ("dismiss", ["J04"])
    qtbot.waitUntil(lambda: len(window.problems.texts()) == 1)


def test_long_advice_stands_below_the_message_and_the_button_stays_short(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    advice = "Install and start GNOME Keyring, KWallet or KeePassXC, or keep the key in an encrypted file."
    show(qtbot, window, busy_node, problem("K03", "No keyring answers.", advice=advice))
    row = window.problems._rows[0]
    assert row.advice.text() == advice
    assert row.action_button.text() == "Choose a place"
    assert row.action_button.accessibleName() == "Choose a place: K03"


def test_every_action_is_a_few_words() -> None:
    assert all(len(state.action) <= 18 for state in STATES.values())


@pytest.mark.parametrize("code", [code for code, state in STATES.items() if state.target])
def test_an_action_of_a_setting_leads_to_that_very_setting(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, code: str
) -> None:
    show(qtbot, window, busy_node, problem(code, "What is wrong."))
    if not STATES[code].action:
        return
    window.problems._rows[0].action_button.click()
    assert window.page_name == "settings"
    shown = window.settings_page.row_by_name[STATES[code].target]
    qtbot.waitUntil(lambda: not shown.visibleRegion().isEmpty())
    qtbot.waitUntil(lambda: window.settings_page.focusWidget() is shown.editor)


def test_a_waiting_claim_leads_to_its_transaction(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    waiting = make_transaction(7, "sent")
    busy_node.set_transactions(make_transaction(1), waiting, make_transaction(2))
    qtbot.waitUntil(lambda: len(window.bridge.transactions) == 3)
    show(qtbot, window, busy_node, problem("T01", "A claim waits 16 minutes.", subject=waiting.tx_hash))
    window.problems._rows[0].action_button.click()
    page: Any = window.page_by_name["transactions"]
    assert window.page_name == "transactions"
    assert page.speed_up_button.isEnabled()
    assert waiting.tx_hash in page.detail.text()


def test_what_is_one_step_is_done_at_once(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    for shown, call in (
        (problem("S06", "Paused: on battery."), "resume"),
        (problem("J02", "Job 4711: claim 140 tokens.", subject="4711"), "checkpoint"),
        (problem("S03", "The model process crashed."), "load_again"),
    ):
        window.show_page("dashboard")
        show(qtbot, window, busy_node, shown)
        window.problems._rows[0].action_button.click()
        qtbot.waitUntil(lambda call=call: call in [made[0] for made in busy_node.calls])  # type: ignore[misc]
