"""What the host is told beside the tray: by kind, once, not while it is seen, and never one upon the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from ui_support import FakeNode, make_job

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.jobs.status import ServingState
from fabstir_desktop.settings import Settings
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.notifications import PAYMENTS_EVERY_S, QUIET_S, Notifier

ERROR = Problem("M01", Severity.ERROR, "No model selected.", "Choose", page="models")
WARNING = Problem("G01", Severity.WARNING, "About 38 claims left.", "Fund", page="wallet")


class Desk:
    """A notifier, what it told, and the hands of its clock."""

    def __init__(self, window: MainWindow, settings: Settings) -> None:
        self.told: list[str] = []
        self.is_seen = False
        self.now = 1000.0
        self.notifier = Notifier(
            window.bridge,
            settings,
            show=self.told.append,
            is_window_seen=lambda: self.is_seen,
            clock=lambda: self.now,
        )


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


@pytest.fixture
def desk(window: MainWindow, busy_node: FakeNode) -> Desk:
    return Desk(window, busy_node.settings)


def show(qtbot: QtBot, window: MainWindow, node: FakeNode, *problems: Problem) -> None:
    node.set_problems(*problems)
    qtbot.waitUntil(lambda: window.bridge.problems == tuple(node.problems))


def test_a_new_error_is_told_once_and_only_while_the_window_is_not_seen(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, desk: Desk
) -> None:
    for problems, seen, expected in (
        ((ERROR, WARNING), True, []),
        ((ERROR, WARNING), False, []),
        ((WARNING,), False, []),
        ((ERROR,), False, ["No model selected."]),
        ((ERROR, WARNING), False, ["No model selected."]),
    ):
        desk.is_seen = seen
        show(qtbot, window, busy_node, *problems)
        assert desk.told == expected


def test_warnings_are_told_where_the_host_wants_them(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, desk: Desk
) -> None:
    desk.notifier.choose("notify_warnings", "tray")
    desk.notifier.choose("notify_errors", "none")
    show(qtbot, window, busy_node, ERROR, WARNING)
    assert desk.told == ["About 38 claims left."]


def test_many_at_once_are_one_with_their_number(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, desk: Desk
) -> None:
    desk.notifier.choose("notify_warnings", "tray")
    several = [problem("T02", f"Job {job}: refused.", subject=str(job)) for job in range(5)]
    show(qtbot, window, busy_node, ERROR, *several)
    assert desk.told == ["No model selected."]
    desk.now += QUIET_S
    desk.notifier.flush()
    assert desk.told[1:] == ["Job 0: refused.\nand 4 more"]
    desk.notifier.flush()
    assert len(desk.told) == 2


def test_a_click_leads_to_what_was_told_last(qtbot: QtBot, window: MainWindow, busy_node: FakeNode, desk: Desk) -> None:
    show(qtbot, window, busy_node, ERROR)
    with qtbot.waitSignal(desk.notifier.openRequested) as opened:
        desk.notifier.open_last()
    assert opened.args == ["models", ""]


def test_settled_tokens_are_told_without_amounts_and_seldom(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, desk: Desk
) -> None:
    desk.notifier.choose("notify_payments", "tray")
    first = window.bridge.earnings
    assert first is not None
    desk.notifier.take_earnings(first)
    desk.notifier.take_earnings(replace(first, settled=first.settled + 100))
    assert desk.told == ["100 tokens were settled."]
    desk.notifier.take_earnings(replace(first, settled=first.settled + 150))
    assert len(desk.told) == 1
    desk.now += PAYMENTS_EVERY_S
    busy_node.set_jobs(make_job(1, generated=1))
    desk.notifier.take_earnings(replace(first, settled=first.settled + 250))
    assert desk.told[1:] == ["150 tokens were settled."]


def test_a_pause_by_itself_and_its_end_are_told_and_one_by_hand_is_not(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, desk: Desk
) -> None:
    def become(state: ServingState, sentence: str, reason: str) -> None:
        busy_node.pause_reason = reason
        busy_node.set_status(state=state, sentence=sentence)
        qtbot.waitUntil(lambda: window.bridge.status is not None and window.bridge.status.sentence == sentence)
        desk.now += QUIET_S

    become(ServingState.PAUSED, "Paused until you resume", "")
    become(ServingState.SERVING, "Serving, waiting for jobs", "")
    assert desk.told == []
    become(ServingState.PAUSED, "Paused: on battery", "on battery")
    become(ServingState.SERVING, "Serving, 1 request running", "")
    assert desk.told == ["Paused: on battery", "Serving again"]


def test_every_kind_is_a_setting_that_works_at_once(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, desk: Desk
) -> None:
    window.show_page("settings", "notify_payments")
    shown = window.settings_page.row_by_name["notify_payments"]
    window.settings_page.settingStored.connect(desk.notifier.choose)
    with qtbot.waitSignal(window.settings_page.settingStored):
        shown.storeRequested.emit("notify_payments", "tray")
    assert "notify_payments" in {kind.value for kind in desk.notifier.wanted}
