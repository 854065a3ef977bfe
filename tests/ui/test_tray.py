"""The tray's menu: what stands in it, what it does, and that it is changed in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from ui_support import CHAIN, SERVER, FakeNode, make_job

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.status import ServingState, WalletState, WalletStatus
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.tray import Tray
from fabstir_desktop.ui.words import TrayShape


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


@pytest.fixture
def tray(window: MainWindow) -> Tray:
    made = Tray(window.bridge)
    made.update()
    return made


def test_the_menu_has_state_network_jobs_and_the_ways_out(tray: Tray) -> None:
    assert tray.head.text().startswith("Fabstir host – Serving")
    assert tray.network.text() == "TESTNET · Base Sepolia"
    assert tray.submit.text() == "Submit checkpoints now (5)"
    assert tray.job_lines[0].text() == "Submit job 4711: 140 of 1\u2009140 tokens unclaimed"
    assert [action.isVisible() for action in tray.job_lines] == [True] * 5
    assert [action.text() for action in tray.pause_menu.actions()] == [
        "After current jobs",
        "For 1 hour",
        "Until I resume",
    ]
    assert tray.quit.text() == "Quit and stop serving…"


def test_the_tool_tip_has_no_amounts_and_no_addresses(tray: Tray) -> None:
    assert tray.tooltip().replace("(s)", "") in {
        "Fabstir host – Serving, 2 requests running",
        "Fabstir host – Serving, 2 request running",
    }
    assert "0x" not in tray.tooltip()
    assert "ETH" not in tray.tooltip()


def test_the_busiest_five_jobs_have_a_line_and_the_rest_are_counted(
    qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_jobs(*(make_job(number, generated=number * 1000) for number in range(1, 9)))
    qtbot.waitUntil(lambda: 8 in window.bridge.job_by_id)
    tray.update()
    assert [line.text().split(":")[0] for line in tray.job_lines] == [
        f"Submit job {number}" for number in (8, 7, 6, 5, 4)
    ]
    assert tray.more_jobs.text() == "… and 8 more jobs"


def test_clicking_submits_all_or_one(qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode) -> None:
    tray.submitRequested.connect(window.submit)
    tray.job_lines[1].trigger()
    qtbot.waitUntil(lambda: ("checkpoint", 4698) in busy_node.calls)
    tray.submit.trigger()
    qtbot.waitUntil(lambda: ("checkpoint", None) in busy_node.calls)


def test_a_disabled_submit_gives_its_reason_as_text(
    qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_status(wallet=WalletStatus(WalletState.NONE))
    qtbot.waitUntil(lambda: window.bridge.status is busy_node.status)
    tray.update()
    assert not tray.submit.isEnabled()
    assert tray.submit_reason.isVisible()
    assert "no host key" in tray.submit_reason.text()
    assert not tray.job_lines[0].isEnabled()


def test_pause_and_resume_take_turns(qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode) -> None:
    assert tray.pause_menu.menuAction().isVisible()
    assert not tray.resume.isVisible()
    busy_node.set_status(state=ServingState.PAUSED)
    qtbot.waitUntil(lambda: window.bridge.status is busy_node.status)
    tray.update()
    assert tray.resume.isVisible()
    assert not tray.pause_menu.menuAction().isVisible()
    assert tray.shape is TrayShape.PAUSED


def test_each_state_has_its_shape(qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode) -> None:
    idle = replace(SERVER, active_requests=0, sessions=0)
    assert tray.shape is TrayShape.BUSY
    for server, shape in ((replace(idle, sessions=1), TrayShape.SERVING), (idle, TrayShape.IDLE)):
        busy_node.set_status(server=server)
        qtbot.waitUntil(lambda: window.bridge.status is busy_node.status)
        tray.update()
        assert tray.shape is shape
    busy_node.set_status(state=ServingState.STARTING)
    qtbot.waitUntil(lambda: window.bridge.status is busy_node.status)
    tray.update()
    assert tray.shape is TrayShape.OFFLINE


def test_actions_are_changed_in_place_and_only_if_something_changed(
    qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode
) -> None:
    tray.shows_amounts = False  # they are read by the minute, whatever the jobs do
    tray.update()
    before = tray.menu.actions()
    told: list[str] = []
    for action in before:
        action.changed.connect(lambda action=action: told.append(action.text()))
    tray.update()
    assert told == []
    busy_node.count_tokens(4711, 3)
    qtbot.waitUntil(lambda: window.bridge.job_by_id[4711].generated == 1143)
    tray.update()
    assert told == ["Submit job 4711: 143 of 1\u2009143 tokens unclaimed"]
    assert tray.menu.actions() == before


def test_the_worst_problem_leads_to_its_page(qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode) -> None:
    busy_node.set_problems(
        Problem("G01", Severity.WARNING, "About 38 claims left.", "Fund", page="wallet"),
        Problem("M01", Severity.ERROR, "No model selected.", "Choose", page="models"),
    )
    qtbot.waitUntil(lambda: len(window.bridge.problems) == 2)
    tray.update()
    assert tray.problem.text() == "Problem M01: No model selected."
    with qtbot.waitSignal(tray.pageRequested) as told:
        tray.problem.trigger()
    assert told.args == ["models", ""]


def test_a_demo_is_called_a_demo(qtbot: QtBot, tray: Tray, window: MainWindow, busy_node: FakeNode) -> None:
    busy_node.set_status(demo=True, chain=replace(CHAIN, is_testnet=True))
    qtbot.waitUntil(lambda: window.bridge.status is busy_node.status)
    tray.update()
    assert tray.network.text().startswith("DEMO")
    assert window.strip.demo_badge.isVisible()


def test_a_panel_that_comes_late_gets_the_icon(qtbot: QtBot, tray: Tray, monkeypatch: pytest.MonkeyPatch) -> None:
    tray.start()
    assert tray.panel.is_known is None, "offscreen has no panel"
    shown: list[str] = []
    monkeypatch.setattr(tray.icon, "show", lambda: shown.append("shown"))
    tray.panel._is_there = lambda: True
    qtbot.waitUntil(lambda: tray.panel.is_known is True, timeout=3000)
    assert shown == ["shown"]
    tray.stop()
