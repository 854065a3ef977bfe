"""The window as a whole: what a stranger sees, keys, pausing, claiming, and that nothing moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLineEdit, QTableView, QWidget
from pytestqt.qtbot import QtBot
from ui_support import CHAIN, ENGINE, SERVER, FakeNode, make_transaction

from fabstir_desktop.errors import RpcUnreachable
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.status import PauseKind
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.pages.page import PAGES


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


def test_a_stranger_reads_whether_it_earns_what_it_earned_and_what_to_do(window: MainWindow) -> None:
    dashboard = window.dashboard
    assert dashboard.now.value.text() == "Yes"
    assert dashboard.earned.value.text() == "0.006525 ETH"
    assert dashboard.todo.value.text() == "Nothing"
    assert window.strip.word.text() == "Serving"
    assert window.strip.testnet_badge.isVisible()


def test_earning_now_is_honest_without_a_key_and_while_loading(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_status(chain=replace(CHAIN, submitting=False))
    qtbot.waitUntil(lambda: window.dashboard.now.value.text() == "Counting only")
    idle = replace(SERVER, active_requests=0)
    busy_node.set_status(engine=replace(ENGINE, state=EngineState.LOADING, load_progress=0.4), server=idle)
    qtbot.waitUntil(lambda: window.dashboard.now.value.text() == "Soon")
    busy_node.set_problems(Problem("S03", Severity.ERROR, "The model process crashed.", "Retry", page="models"))
    qtbot.waitUntil(lambda: window.dashboard.now.value.text() == "No")


def test_before_the_node_has_started_everything_is_unknown(qtbot: QtBot, bridge: Any, store: Any) -> None:
    window = MainWindow(bridge, store)
    qtbot.addWidget(window)
    window.show()
    assert window.strip.word.text() == "Starting"
    assert window.dashboard.earned.value.text() == "–"
    assert window.dashboard.todo.value.text() == "–"
    assert all(rung.tokens.text() == "–" for rung in window.dashboard.ladder.rung_by_name.values())
    assert not window.strip.button.isEnabled()


def test_ctrl_and_a_digit_opens_each_page(qtbot: QtBot, window: MainWindow) -> None:
    window.activateWindow()
    for place, name in enumerate(PAGES, start=1):
        qtbot.keyClick(window, getattr(Qt.Key, f"Key_{place}"), Qt.KeyboardModifier.ControlModifier)
        assert window.page_name == name
        assert window.rail.button_by_page[name].isChecked()


def test_everything_that_can_be_operated_has_a_name_for_screen_readers(window: MainWindow) -> None:
    nameless = []
    for name in PAGES:
        window.show_page(name)
        for widget in window.findChildren(QWidget):
            if not widget.isVisible() or widget.objectName().startswith("qt_"):
                continue
            operable = isinstance(widget, QAbstractButton | QLineEdit | QComboBox | QTableView)
            spoken = widget.accessibleName() or (widget.text() if isinstance(widget, QAbstractButton) else "")
            if operable and not spoken and type(widget).__name__ not in {"QTableCornerButton", "QToolButton"}:
                nameless.append((name, type(widget).__name__))
            if type(widget).__name__ == "QToolButton" and not spoken and widget.parent().__class__ is not QLineEdit:
                nameless.append((name, "QToolButton"))
    assert nameless == []


def test_pausing_and_resuming_from_the_strip(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    window.pause("hour")
    qtbot.waitUntil(lambda: window.strip.word.text() == "Paused")
    assert ("pause", 3600.0) in busy_node.calls
    assert window.strip.button.text() == "Resume"
    window.strip.button.click()
    qtbot.waitUntil(lambda: window.strip.word.text() == "Serving")
    assert ("resume",) in busy_node.calls


def test_pausing_after_current_jobs_is_left_to_the_node_shown_and_can_be_taken_back(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    window.pause("after_jobs")
    qtbot.waitUntil(lambda: window.strip.word.text() == "Finishing")
    assert ("pause", None, PauseKind.AFTER_JOBS) in busy_node.calls
    assert ("pause", None) not in busy_node.calls, "running jobs are not cut off"
    assert window.strip.sentence.full_text == "Finishing 2 jobs, then pausing"
    assert window.strip.button.text() == "Resume"
    window.strip.button.click()
    qtbot.waitUntil(lambda: window.strip.word.text() == "Serving")


def test_submitting_says_what_was_done_for_each_job(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    qtbot.waitUntil(window.dashboard.submit_button.isEnabled)
    window.dashboard.submit_button.click()
    qtbot.waitUntil(window.notice.isVisible)
    assert "Job 4711: 140 tokens submitted" in window.notice.text.text()
    assert ("checkpoint", None) in busy_node.calls


def test_a_failed_command_stays_on_screen_until_it_is_dismissed(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.fail_with = RpcUnreachable("no answer from sepolia.base.org")
    window.submit()
    qtbot.waitUntil(window.notice.isVisible)
    assert window.notice.text.text() == "no answer from sepolia.base.org"
    assert not window.notice._timer.isActive()


def test_nothing_moves_while_numbers_grow(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    def places() -> dict[str, Any]:
        dashboard = window.dashboard
        found = {"strip": window.strip.button.geometry(), "footer": window.footer.geometry()}
        found.update({name: rung.geometry() for name, rung in dashboard.ladder.rung_by_name.items()})
        found.update(now=dashboard.now.geometry(), earned=dashboard.earned.geometry(), todo=dashboard.todo.geometry())
        return found

    qtbot.waitUntil(lambda: window.dashboard.ladder.rung_by_name["generated"].tokens.text() != "–")
    before = places()
    for step in range(8):
        busy_node.count_tokens(4711, 10 ** (step % 4))
        busy_node.set_transactions(*(make_transaction(number, "sent") for number in range(step)))
        busy_node.set_status(server=replace(SERVER, active_requests=step))
        qtbot.wait(120)
    qtbot.waitUntil(lambda: window.bridge.job_by_id[4711].generated == busy_node.job_by_id[4711].generated)
    assert places() == before


def test_each_rung_leads_to_the_rows_that_make_it_up(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    expected = {
        "generated": ("jobs", "all"),
        "claimed": ("transactions", "claimed"),
        "proven": ("transactions", "confirmed"),
        "settled": ("jobs", "paid"),
        "withdrawn": ("transactions", "confirmed"),
    }

    def follow(rung: str) -> tuple[str, str]:
        window.show_page("dashboard")
        window.dashboard.ladder.rungChosen.emit(rung)
        page: Any = window.page_by_name[window.page_name]
        return window.page_name, next(name for name, made in page.button_by_filter.items() if made.isChecked())

    assert {rung: follow(rung) for rung in expected} == expected
    busy_node.set_status(chain=replace(CHAIN, contract_name="JobMarketplace"))
    busy_node.set_jobs()
    qtbot.waitUntil(lambda: not window.dashboard.ladder.pays_directly)
    assert follow("withdrawn") == ("transactions", "withdrawals"), (
        "a balance in the contract is taken out by transactions"
    )


def test_unknown_numbers_of_the_chain_are_shown_as_unknown_with_their_age(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    unknown = replace(CHAIN, balance_wei=None, checkpoint_cost_wei=None, checkpoints_left=None, as_of=None)
    busy_node.set_status(chain=unknown)
    wallet: Any = window.page_by_name["wallet"]
    qtbot.waitUntil(lambda: wallet.left.text() == "–")
    assert wallet.balance.text() == "–"
    assert wallet.as_of.text() == "never read"
    busy_node.set_status(chain=replace(CHAIN, as_of=1.0))
    qtbot.waitUntil(lambda: "ago" in wallet.as_of.text())


def test_the_window_fits_small_screens_and_large_text(qtbot: QtBot, window: MainWindow) -> None:
    window.resize(760, 520)
    for name in PAGES:
        window.show_page(name)
        qtbot.wait(10)
        assert window.width() <= 1000, name
