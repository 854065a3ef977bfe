"""All 45 states, as the product brings them about: code, message and action stand on the screen, without a dialog."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication, QDialog
from pytestqt.qtbot import QtBot
from state_producers import PRODUCERS, produce_now
from ui_support import FakeNode

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.states import STATES, problem
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.tray import Tray
from fabstir_desktop.ui.words import TrayShape

E, W, INFO = Severity.ERROR, Severity.WARNING, Severity.INFORMATION

WORDS = {
    "U01": "Version 1.1 will be installed when no job runs.",
    "D02": "Another copy is using this data (pid 4312).",
    "N01": "Your desktop shows no tray; the window stays in the taskbar.",
}
"""What stands for the states that only the whole app, or no part of this version, brings about."""


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    """All states: made by the rooms that know them, each on a loop of its own in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        made = [
            problem(code, WORDS[code])
            if code in WORDS
            else pool.submit(produce_now, code, tmp_path_factory.mktemp(code)).result()
            for code in STATES
        ]
    assert [one.code for one in made] == list(STATES)
    return made


def test_the_list_of_states_is_complete() -> None:
    added = {"C07", "X01", "X02", "X03", "X04"}
    assert len(set(STATES) - added) == 44  # the 45th is the healthy one, below
    assert set(WORDS) == set(STATES) - set(PRODUCERS)


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


def test_a_healthy_host_shows_no_problem_and_says_that_nothing_needs_doing(window: MainWindow) -> None:
    assert window.problems.texts() == []
    assert not window.problems.isVisible()
    assert window.dashboard.todo.value.text() == "Nothing"
    assert window.dashboard.now.value.text() == "Yes"


def test_every_state_shows_its_code_message_and_action_where_it_is_mended_and_in_the_tray(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, states: list[Problem]
) -> None:
    tray = Tray(window.bridge)
    for made in states:
        window.show_page("dashboard")
        busy_node.set_problems(made)
        qtbot.waitUntil(lambda code=made.code: [code] == [text.split()[1] for text in window.problems.texts()])
        shown = window.problems.texts()[0]
        assert made.message in shown
        assert made.action in shown
        assert made.advice in shown
        assert window.problems.isVisible()
        tray.update()
        if made.severity is INFO:
            assert not tray.problem.isVisible()
        else:
            assert made.code in tray.problem.text()
            assert tray.problem.text().split(": ", 1)[1].removesuffix("…") in made.message
            assert len(tray.problem.text()) < 90
            assert tray.shape is (TrayShape.ERROR if made.severity is E else TrayShape.ATTENTION)
            assert window.dashboard.todo.detail.full_text in {made.action, made.message}
        window.show_page(made.page)
        assert len(window.problems.texts()) == 1
    dialogs = [
        widget for widget in QApplication.topLevelWidgets() if isinstance(widget, QDialog) and widget.isVisible()
    ]
    assert dialogs == []


def test_all_states_at_once_stand_worst_first_in_one_list(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, states: list[Problem]
) -> None:
    busy_node.set_problems(*states)
    qtbot.waitUntil(lambda: len(window.problems.texts()) == len(STATES))
    words = [text.split()[0] for text in window.problems.texts()]
    order = {"Problem": 0, "Warning": 1, "Note": 2}
    assert [order[word] for word in words] == sorted(order[word] for word in words)


def test_the_action_leads_to_the_page_where_it_is_mended(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    busy_node.set_problems(Problem("T02", W, "reverted", "Open job", subject="4702", page="jobs"))
    qtbot.waitUntil(lambda: len(window.problems.texts()) == 1)
    window.problems._rows[0].action_button.click()
    assert window.page_name == "jobs"
    assert window.jobs.drawer.job_id.shown.text() == "4702"


def test_a_problem_that_is_gone_leaves_the_screen(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    busy_node.set_problems(Problem("G01", W, "About 38 claims left.", "Fund", page="wallet"))
    qtbot.waitUntil(lambda: len(window.problems.texts()) == 1)
    busy_node.set_problems()
    qtbot.waitUntil(lambda: window.problems.texts() == [])
    assert window.dashboard.todo.value.text() == "Nothing"
