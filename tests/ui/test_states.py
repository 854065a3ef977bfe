"""All 45 states: each one's code, message and action stand on the screen, worst first, without a dialog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication, QDialog
from pytestqt.qtbot import QtBot
from ui_support import FakeNode

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.tray import Tray
from fabstir_desktop.ui.words import TrayShape

E, W, INFO = Severity.ERROR, Severity.WARNING, Severity.INFORMATION

STATES = [
    ("K01", E, "No host key yet. The app can load models but cannot earn.", "Add key", "wallet"),
    ("K02", E, "Your keyring is locked. Claims wait; nothing is lost.", "Unlock", "wallet"),
    ("K03", E, "No keyring found. Use an encrypted key file or enter the key at each start.", "Choose", "wallet"),
    ("K04", E, "Expected 0xAB..12, the keyring holds 0xCD..34. Signing is stopped.", "Review", "wallet"),
    ("K05", E, "That is not a valid key: 64 hex characters expected, got 63.", "Edit", "wallet"),
    ("K06", E, "Your key was saved in KWallet; this session uses GNOME Keyring.", "Choose", "wallet"),
    (
        "C01",
        E,
        "This RPC is on chain 1; the app works on Base Sepolia (84532). Nothing will be signed.",
        "Change RPC",
        "settings",
    ),
    ("C02", W, "No contact with Base Sepolia for 3 min. Claims are queued (2).", "Details", "logs"),
    ("C03", INFO, "The RPC limits requests; switched to the second one.", "", "settings"),
    ("C04", W, "Chain data is 4 min old.", "Switch", "settings"),
    ("C05", W, "The marketplace is paused by its operators. Claims are queued.", "Status", "transactions"),
    (
        "C06",
        E,
        "The contract at 0x.. answers differently than this version knows. Update the app.",
        "Check update",
        "settings",
    ),
    ("G01", W, "About 38 claims left.", "Fund", "wallet"),
    ("G02", E, "Not enough ETH for the next claim. Short by 0.00013 ETH. 3 claims wait.", "Fund", "wallet"),
    ("G03", W, "Gas costs 9x your cap. Claims wait until 14:25.", "Settings", "settings"),
    ("G04", W, "At 100 tokens a claim earns less than its gas. Suggested: claim every 800.", "Apply", "settings"),
    ("T01", W, "Claim for job 4709 waits 16 min.", "Speed up", "transactions"),
    ("T02", W, "The claim for job 4702 was reverted: job belongs to another host.", "Open job", "jobs"),
    ("T03", W, "Another program is sending from this address (nonce 41 was used).", "Explain", "transactions"),
    ("H01", E, "This address is not a registered host; customers cannot book it.", "Register", "wallet"),
    ("H02", W, "Host is inactive: stake 900 of 1000 FAB.", "Add stake", "wallet"),
    ("H03", W, "Customers are sent to ws://old:8080, you serve on ws://new:8083.", "Update", "settings"),
    ("H04", W, "Customers cannot reach you (timeout on port 8083).", "Re-test", "settings"),
    ("M01", E, "No model selected.", "Choose model", "models"),
    ("M02", E, "models/x.gguf is gone.", "Locate", "models"),
    ("M03", E, "The file does not match the registered model. It may be damaged.", "Re-download", "models"),
    ("M04", E, "Loaded model is not on your host's list; jobs for it would be refused.", "Register / switch", "models"),
    ("M05", W, "Needs 9.1 GB VRAM, 7.4 free: 21 of 33 layers would run on CPU.", "Smaller context", "models"),
    ("M06", INFO, "Loading llama-3-8b, 45 %.", "Cancel", "models"),
    ("S01", E, "Port 8080 is used by node.exe (4312).", "Use 8081", "settings"),
    ("S02", W, "The model process stopped; restart 2 of 3. Job 4711 ended, its 140 tokens are safe.", "Log", "logs"),
    ("S03", E, "The model process crashed 3 times in 10 min.", "Log, Retry", "logs"),
    ("S04", W, "No token for 60 s; restarting the model process.", "", "logs"),
    ("S05", INFO, "Queue full (8). New jobs are told to retry.", "", "jobs"),
    ("S06", INFO, "Paused: on battery. Resumes on mains power.", "Resume", "dashboard"),
    ("S07", INFO, "Finishing 2 jobs, then stopping. About 3 min.", "Stop now", "dashboard"),
    ("J01", INFO, "Job 4702: deposit covers 20 more tokens; generation will stop.", "", "jobs"),
    ("J02", W, "Job 4711: claim 140 tokens before 14:32 or they cannot be paid.", "Submit", "jobs"),
    ("J03", W, "Job 4690: we counted 5,000, the chain says 4,900.", "Compare", "jobs"),
    ("J04", INFO, "20 tokens are under the minimum of 100 and cannot be claimed.", "Why", "jobs"),
    ("D01", E, "The job ledger cannot be written. Serving is stopped to protect earnings.", "Free space", "settings"),
    ("D02", E, "Another copy is using this data (pid 4312).", "Show it", "settings"),
    ("U01", INFO, "Version 1.1 will be installed when no job runs.", "Now / later", "settings"),
    ("N01", INFO, "Your desktop has no tray; the window stays in the taskbar.", "How to", "settings"),
]


def test_the_list_of_states_is_complete() -> None:
    assert len({code for code, *_ in STATES}) == len(STATES) == 44  # the 45th is the healthy one, below


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


def test_a_healthy_host_shows_no_problem_and_says_that_nothing_needs_doing(window: MainWindow) -> None:
    assert window.problems.texts() == []
    assert not window.problems.isVisible()
    assert window.dashboard.todo.value.text() == "Nothing"
    assert window.dashboard.now.value.text() == "Yes"


def test_every_state_shows_its_code_message_and_action_where_it_is_mended_and_in_the_tray(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    tray = Tray(window.bridge)
    for code, severity, message, action, page in STATES:
        window.show_page("dashboard")
        busy_node.set_problems(Problem(code, severity, message, action, page=page))
        qtbot.waitUntil(lambda code=code: [code] == [text.split()[1] for text in window.problems.texts()])
        shown = window.problems.texts()[0]
        assert message in shown
        assert action in shown
        assert window.problems.isVisible()
        tray.update()
        if severity is INFO:
            assert not tray.problem.isVisible()
        else:
            assert message in tray.problem.text()
            assert tray.shape is (TrayShape.ERROR if severity is E else TrayShape.ATTENTION)
            assert window.dashboard.todo.detail.full_text in {action, message}
        window.show_page(page)
        assert len(window.problems.texts()) == 1
    dialogs = [
        widget for widget in QApplication.topLevelWidgets() if isinstance(widget, QDialog) and widget.isVisible()
    ]
    assert dialogs == []


def test_all_states_at_once_stand_worst_first_in_one_list(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_problems(
        *(Problem(code, severity, text, action, page=page) for code, severity, text, action, page in STATES)
    )
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
