"""The real app beside a real panel that comes late, never comes, or is restarted; and a session that ends."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk
from limits import SCALE

OFFLINE = {"RPC_URL": "http://127.0.0.1:9", "API_PORT": "0", "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
STARTED = "Listening on"


@pytest.fixture
def bare_desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, settings=OFFLINE)
    try:
        made.open_screen(with_panel=False)
        yield made
    finally:
        made.stop()


def problem_codes(desk: Desk) -> set[str]:
    return {problem["code"] for problem in json.loads(desk.product("status", "--json"))["problems"]}


@pytest.mark.timeout(int(300 * SCALE))
def test_a_hidden_start_waits_for_a_late_panel_and_its_icon_opens_the_window(bare_desk: Desk) -> None:
    desk = bare_desk
    app = desk.launch_app("--hidden")
    desk.wait_for(lambda: desk.logged(STARTED) > 0, 90, "the start")
    assert not desk.is_shown(), "no window beside a panel that is late"
    desk.start_panel()
    desk.wait_for(lambda: desk.tray_icon() is not None, 40, "the icon in the late panel")
    assert not desk.is_shown()
    assert "N01" not in problem_codes(desk)
    desk.click(*(desk.tray_icon() or (0, 0)))
    desk.wait_for(desk.is_shown, 20, "the window of the icon")

    desk.end_panel()
    desk.start_panel()
    desk.wait_for(lambda: desk.tray_icon() is not None, 40, "the icon in the restarted panel")
    desk.open_tray_menu()
    desk.press("Escape")
    app.send_signal(signal.SIGTERM)
    assert app.wait(20 * SCALE) == 0, desk.log.read_text()
    assert "Traceback" not in desk.log.read_text()


@pytest.mark.timeout(int(300 * SCALE))
def test_without_any_panel_a_hidden_start_shows_its_window_in_the_end_and_says_why(bare_desk: Desk) -> None:
    desk = bare_desk
    app = desk.launch_app("--hidden")
    desk.wait_for(lambda: desk.logged(STARTED) > 0, 90, "the start")
    desk.wait_for(desk.is_shown, 90, "the window that has nowhere to hide")
    desk.wait_for(lambda: "N01" in problem_codes(desk), 30, "the note about the tray")
    desk.start_panel()
    desk.wait_for(lambda: "N01" not in problem_codes(desk), 30, "the end of the note")
    app.send_signal(signal.SIGTERM)
    assert app.wait(20 * SCALE) == 0, desk.log.read_text()


@pytest.mark.timeout(int(200 * SCALE))
def test_a_process_that_stood_still_says_so_and_goes_on(bare_desk: Desk) -> None:
    """As after a sleep of the machine: nothing ran, and the clocks went on."""
    desk = bare_desk
    app = desk.launch_app()
    desk.wait_for(lambda: desk.logged(STARTED) > 0, 90, "the start")
    app.send_signal(signal.SIGSTOP)
    time.sleep(23)  # the very thing that is tested: longer than any busy loop
    app.send_signal(signal.SIGCONT)
    desk.wait_for(lambda: desk.logged("Back after 2") > 0, 30, "the word about it")
    assert json.loads(desk.product("status", "--json"))["state"] == "serving"
    app.send_signal(signal.SIGTERM)
    assert app.wait(20 * SCALE) == 0, desk.log.read_text()
    assert "Traceback" not in desk.log.read_text()
