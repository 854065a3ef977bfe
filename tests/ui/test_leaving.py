"""Closing asks once; quitting with open work says what is open and offers ways that lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QDialog
from pytestqt.qtbot import QtBot
from ui_support import CHAIN, SERVER, FakeNode, make_job

from fabstir_desktop.jobs.events import RequestChanged
from fabstir_desktop.jobs.status import ServingState
from fabstir_desktop.ui import leaving as leaving_module
from fabstir_desktop.ui.leaving import Leaving
from fabstir_desktop.ui.main_window import MainWindow

IDLE = replace(SERVER, active_requests=0)


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


@pytest.fixture
def leaving(window: MainWindow) -> Leaving:
    return Leaving(window.bridge, window, lambda: True)


def test_closing_asks_once_and_remembers(
    qtbot: QtBot, window: MainWindow, leaving: Leaving, busy_node: FakeNode, tmp_path: Path
) -> None:
    window.close()
    assert window.isVisible()
    assert leaving.question is not None
    leaving.question.remember.setChecked(True)
    leaving.question.button_by_answer["tray"].click()
    qtbot.waitUntil(lambda: not window.isVisible())
    qtbot.waitUntil(lambda: ("save_setting", "close_action", "tray") in busy_node.calls)
    window.show()
    window.close()
    assert not window.isVisible()
    assert leaving.question is None


def test_escape_closes_nothing(qtbot: QtBot, window: MainWindow, leaving: Leaving) -> None:
    window.close()
    assert leaving.question is not None
    leaving.question.reject()
    assert window.isVisible()
    assert leaving.question is None


def test_without_a_tray_the_window_never_vanishes(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    leaving = Leaving(window.bridge, window, lambda: False)
    leaving.close_action = "tray"
    leaving.close_window()
    assert window.isMinimized()
    assert window.isVisible()


def test_quitting_with_nothing_open_asks_nothing(qtbot: QtBot, make_window: Any, node: FakeNode) -> None:
    node.status = replace(node.status, server=IDLE, chain=replace(CHAIN, open_claims=0))
    node.job_by_id = {1: make_job(1, "settled", generated=100, claimed=100)}
    window = make_window(node)
    leaving = Leaving(window.bridge, window, lambda: True)
    with qtbot.waitSignal(leaving.quitNow):
        leaving.ask_to_quit()


def test_quitting_with_open_work_says_what_is_open(leaving: Leaving) -> None:
    leaving.ask_to_quit()
    assert leaving.question is not None
    text = leaving.question.text.text()
    assert text.startswith("2 request")
    assert "611 tokens unproven" in text
    assert "1 claim" in text
    leaving.question.reject()


@pytest.mark.parametrize(("answer", "expected"), [("claim", [("checkpoint", None)]), ("quit", [])])
def test_claim_now_and_quit_anyway(
    qtbot: QtBot, leaving: Leaving, busy_node: FakeNode, answer: str, expected: list[Any]
) -> None:
    leaving.ask_to_quit()
    assert leaving.question is not None
    with qtbot.waitSignal(leaving.quitNow):
        leaving.question.button_by_answer[answer].click()
    assert [call for call in busy_node.calls if call[0] in {"checkpoint", "pause"}] == expected


def test_finishing_waits_for_the_running_requests_then_claims_then_quits(
    qtbot: QtBot, leaving: Leaving, busy_node: FakeNode
) -> None:
    ended: list[int] = []
    leaving.quitNow.connect(lambda: ended.append(1))
    leaving.ask_to_quit()
    assert leaving.question is not None
    assert leaving.question.button_by_answer["finish"].isDefault()
    leaving.question.button_by_answer["finish"].click()
    qtbot.waitUntil(lambda: ("pause", None) in busy_node.calls)
    qtbot.wait(300)
    assert ended == []
    busy_node.set_status(server=IDLE)
    busy_node.feed.publish(RequestChanged(None))
    qtbot.waitUntil(lambda: ended == [1])
    assert busy_node.calls[-1] == ("checkpoint", None)


def _begin_to_finish(qtbot: QtBot, leaving: Leaving, node: FakeNode) -> None:
    leaving.ask_to_quit()
    assert leaving.question is not None
    leaving.question.button_by_answer["finish"].click()
    qtbot.waitUntil(lambda: node.status.state is ServingState.DRAINING)
    assert node.status.sentence.endswith("then stopping")


def test_who_asks_again_while_requests_are_finished_can_stop_at_once(
    qtbot: QtBot, leaving: Leaving, busy_node: FakeNode
) -> None:
    _begin_to_finish(qtbot, leaving, busy_node)
    leaving.ask_to_quit()
    assert leaving.question is not None
    assert list(leaving.question.button_by_answer) == ["wait", "quit", "serve"]
    with qtbot.waitSignal(leaving.quitNow):
        leaving.question.button_by_answer["quit"].click()


def test_who_changes_their_mind_while_requests_are_finished_serves_on(
    qtbot: QtBot, leaving: Leaving, busy_node: FakeNode
) -> None:
    ended: list[int] = []
    leaving.quitNow.connect(lambda: ended.append(1))
    _begin_to_finish(qtbot, leaving, busy_node)
    leaving.ask_to_quit()
    assert leaving.question is not None
    leaving.question.button_by_answer["serve"].click()
    qtbot.waitUntil(lambda: busy_node.status.state is ServingState.SERVING)
    busy_node.feed.publish(RequestChanged(None))
    qtbot.waitUntil(lambda: leaving._finishing is None)
    busy_node.set_status(server=IDLE)
    qtbot.wait(200)
    assert ended == []
    assert ("checkpoint", None) not in busy_node.calls


def test_requests_that_never_end_leave_the_host_serving_not_paused(
    qtbot: QtBot, leaving: Leaving, busy_node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving_module, "_FINISH_LIMIT_S", 0.3)
    _begin_to_finish(qtbot, leaving, busy_node)
    qtbot.waitUntil(lambda: busy_node.status.state is ServingState.SERVING)
    assert ("resume",) in busy_node.calls


def test_quitting_takes_the_place_of_the_question_how_to_close(
    qtbot: QtBot, window: MainWindow, leaving: Leaving
) -> None:
    window.close()
    closing = leaving.question
    assert closing is not None
    leaving.ask_to_quit()
    assert leaving.question is not None
    assert leaving.question is not closing
    assert "finish" in leaving.question.button_by_answer
    assert not closing.isVisible()


def test_cancelling_the_question_changes_nothing(qtbot: QtBot, leaving: Leaving, busy_node: FakeNode) -> None:
    leaving.ask_to_quit()
    assert isinstance(leaving.question, QDialog)
    leaving.question.button_by_answer["cancel"].click()
    assert leaving.question is None
    assert busy_node.calls == [] or all(call[0] == "earnings_series" for call in busy_node.calls)
