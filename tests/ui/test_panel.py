"""The panel that shows the icon: late, never, restarted, in another scheme; and what a click on the icon means."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QSystemTrayIcon
from pytestqt.qtbot import QtBot
from ui_support import FakeNode

from fabstir_desktop.jobs.status import ServingState
from fabstir_desktop.jobs.views import EarningsPoint, TokenAmount
from fabstir_desktop.ui import tray as tray_module
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.panel import GONE_LOOKS, PATIENCE_LOOKS, PanelWatch
from fabstir_desktop.ui.tray import Tray
from fabstir_desktop.ui.words import TrayShape

CLICK = QSystemTrayIcon.ActivationReason.Trigger
DOUBLE_CLICK = QSystemTrayIcon.ActivationReason.DoubleClick


class PlayedPanel:
    def __init__(self) -> None:
        self.is_there = False
        self.told: list[str] = []
        self.watch = PanelWatch(is_there=lambda: self.is_there)
        self.watch.appeared.connect(lambda: self.told.append("appeared"))
        self.watch.missing.connect(lambda: self.told.append("missing"))

    def look(self, times: int) -> None:
        for _ in range(times):
            self.watch.look()


@pytest.fixture
def panel(qapp: object) -> PlayedPanel:
    return PlayedPanel()


@pytest.fixture
def tray(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> Tray:
    return Tray(make_window(busy_node).bridge)


# --- late, never, restarted -----------------------------------------------------------------------------------------


def test_a_panel_that_comes_within_half_a_minute_was_never_missing(panel: PlayedPanel) -> None:
    panel.look(PATIENCE_LOOKS - 1)
    assert panel.told == []
    panel.is_there = True
    panel.look(3)
    assert panel.told == ["appeared"]


def test_no_panel_is_told_once_and_one_that_comes_much_later_too(panel: PlayedPanel) -> None:
    panel.look(PATIENCE_LOOKS * 3)
    assert panel.told == ["missing"]
    assert panel.watch.is_known is False
    panel.is_there = True
    panel.look(1)
    assert panel.told == ["missing", "appeared"]


def test_a_panel_that_is_restarted_is_not_missed_and_one_that_died_is(panel: PlayedPanel) -> None:
    panel.is_there = True
    panel.look(1)
    panel.is_there = False
    panel.look(GONE_LOOKS - 1)
    panel.is_there = True
    panel.look(1)
    assert panel.told == ["appeared"]
    panel.is_there = False
    panel.look(GONE_LOOKS + 3)
    assert panel.told == ["appeared", "missing"]


# --- clicks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(tray_module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.skipif(sys.platform == "darwin", reason="a click opens the menu there")
def test_a_double_click_is_one_wish(tray: Tray, clock: list[float]) -> None:
    told: list[int] = []
    tray.toggleRequested.connect(lambda: told.append(1))
    for reason, after_s in ((CLICK, 0.0), (DOUBLE_CLICK, 0.1), (CLICK, 0.2)):
        clock[0] += after_s
        tray._activate(reason)
    assert len(told) == 1
    clock[0] += 2.0
    tray._activate(CLICK)
    assert len(told) == 2


def test_on_macos_a_click_is_left_to_the_menu(tray: Tray, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    tray.toggleRequested.connect(lambda: told.append(1))
    monkeypatch.setattr(tray_module.sys, "platform", "darwin")
    tray._activate(CLICK)
    assert told == []


# --- tints ----------------------------------------------------------------------------------------------------------


def test_the_icon_is_drawn_anew_when_the_scheme_changes_though_the_state_does_not(tray: Tray) -> None:
    tray.update()
    before, shape = tray.icon.icon().cacheKey(), tray.shape
    tray.update()
    assert tray.icon.icon().cacheKey() == before, "nothing is drawn for nothing"
    tray.scheme = "dark" if not tray._is_panel_dark() else "light"
    QGuiApplication.styleHints().colorSchemeChanged.emit(Qt.ColorScheme.Dark)
    assert tray.icon.icon().cacheKey() != before
    assert tray.shape is shape


def test_no_line_moves_under_the_hand_while_the_menu_is_open(qtbot: QtBot, tray: Tray, busy_node: FakeNode) -> None:
    tray.update()
    seen = [action.isVisible() for action in tray.menu.actions()]
    tray.menu.popup(QPoint(0, 0))
    busy_node.set_status(state=ServingState.PAUSED)
    qtbot.waitUntil(lambda: tray._bridge.status is busy_node.status)
    tray.update()
    assert [action.isVisible() for action in tray.menu.actions()] == seen
    assert tray.shape is TrayShape.PAUSED, "the icon goes on telling"
    tray.menu.close()
    tray.update()
    assert tray.resume.isVisible()


# --- the lines of today ---------------------------------------------------------------------------------------------


def test_what_was_settled_today_stands_in_the_menu_and_not_in_the_tool_tip(
    qtbot: QtBot, tray: Tray, busy_node: FakeNode
) -> None:
    busy_node.points = [
        EarningsPoint(0.0, 100, 100, (TokenAmount("ETH", 41_500_000_000_000_000), TokenAmount("USDC", 415_000))),
    ]
    tray.update()
    qtbot.waitUntil(lambda: bool(tray._today))
    tray.update()
    assert tray.today.isVisible()
    assert tray.today.text().startswith("Today: 0.0415 ETH  +  ")
    assert tray.today.text().endswith("settled")
    assert "ETH" not in tray.tooltip()
    since = next(call for call in busy_node.calls if call[0] == "earnings_series" and call[2] == 86_400)[1]
    assert since % 60 == 0


def test_amounts_can_be_hidden_and_then_are_not_even_read(tray: Tray, busy_node: FakeNode) -> None:
    tray.shows_amounts = False
    tray._today = "Today: 1 ETH settled"
    tray.update()
    assert not tray.today.isVisible()
    assert [call for call in busy_node.calls if call[0] == "earnings_series" and call[2] == 86_400] == []


def test_that_the_computer_is_kept_awake_is_said_while_it_is(tray: Tray) -> None:
    tray.update()
    assert not tray.awake.isVisible()
    tray.is_kept_awake = lambda: True
    tray.update()
    assert tray.awake.isVisible()
    assert tray.awake.text().startswith("Keeping the computer awake: 2 request")


def test_a_pause_on_its_way_can_be_taken_back_from_the_menu(qtbot: QtBot, tray: Tray, busy_node: FakeNode) -> None:
    busy_node.set_status(state=ServingState.DRAINING, sentence="Finishing 2 jobs, then pausing")
    qtbot.waitUntil(lambda: tray._bridge.status is busy_node.status)
    tray.update()
    assert tray.resume.isVisible()
    assert not tray.pause_menu.menuAction().isVisible()
    assert "Finishing" in tray.head.text()
