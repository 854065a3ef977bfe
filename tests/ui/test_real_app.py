"""The real app on a virtual screen with a window manager and a panel, and a started product with a real Secret Service.

Nothing is played but the person: the model, the chain, the socket, the tray's menu and the keyring are the real ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import WINDOW, Desk
from limits import SCALE
from product_support import ask, brief_request
from screen_reading import has_colour
from websockets.asyncio.client import connect

from fabstir_desktop.ui.theme import derive_colours, fusion_palette
from fabstir_desktop.ui.words import Tone

TESTS = Path(__file__).resolve().parent.parent
READY_LIMIT_S = 90
ANSWER_LIMIT_S = 120
QUIT_LINE = -1
TABLE = (260, 200, 1000, 500)
"""Inside the rows of a page, away from the lamps of strip and footer."""
PROMPT = "Tell me a long story about a lighthouse keeper and an old radio."
FEW_TOKENS = 40


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, settings={"CHECKPOINT_THRESHOLD": "1000"})
    try:
        made.open_screen()
        yield made
    finally:
        made.stop()


def rows(desk: Desk, what: str) -> list[dict[str, Any]]:
    answer = json.loads(desk.product(what, "--json"))
    assert isinstance(answer, list)
    return answer


def job_is_settled(desk: Desk, generated: int) -> bool:
    return [(row["generated"], row["settled"]) for row in rows(desk, "jobs")] == [(generated, generated)]


def all_confirmed(desk: Desk, count: int) -> bool:
    states = [row["state"] for row in rows(desk, "transactions")]
    return len(states) == count and set(states) <= {"confirmed", "final"}


def url_of(desk: Desk) -> str:
    desk.wait_for(lambda: desk.logged("are ready") > 0, READY_LIMIT_S, "the chain")
    desk.wait_for(lambda: status(desk)["engine"]["state"] == "ready", READY_LIMIT_S, "the model")
    return str(status(desk)["server"]["url"])


def status(desk: Desk) -> dict[str, Any]:
    answer = json.loads(desk.product("status", "--json"))
    assert isinstance(answer, dict)
    return answer


def shows_confirmed(desk: Desk) -> bool:
    """Whether a row of the page is written in the colour of what is done."""
    return has_colour(desk.picture(), TABLE, derive_colours(fusion_palette(dark=False)).tones[Tone.OK])


@pytest.mark.timeout(int(300 * SCALE))
async def test_a_host_serves_claims_from_the_tray_closes_raises_and_quits_and_every_token_is_settled(
    desk: Desk,
) -> None:
    app = desk.start_app("--demo")
    async with connect(url_of(desk)) as socket:
        first = await ask(socket, brief_request(1, PROMPT, FEW_TOKENS))
        assert first.error is None
        assert first.tokens_used == first.chunk_tokens > 0
        assert rows(desk, "transactions") == [], "nothing is claimed below the threshold while the session is open"

        desk.press("ctrl+3")
        desk.wait_for(lambda: not shows_confirmed(desk), 20, "an empty page of transactions")
        desk.click_submit()
        desk.wait_for(lambda: all_confirmed(desk, 1), ANSWER_LIMIT_S, "the claim of the tray's menu")
        desk.wait_for(lambda: shows_confirmed(desk), 30, "the row that is confirmed on the screen")
        desk.wait_for(lambda: job_is_settled(desk, first.chunk_tokens), ANSWER_LIMIT_S, "the payment")

        desk.close_window()
        desk.answer("Close the window", "Return")  # "Keep serving in the tray" is the first answer
        desk.wait_for(lambda: not desk.is_shown(), 20, "the window's end")
        second = await ask(socket, brief_request(1, PROMPT, FEW_TOKENS))
        assert second.chunk_tokens > 0, "it serves with the window closed"
        generated = first.chunk_tokens + second.chunk_tokens

        desk.product()  # a second start: raises the first one's window and ends with 0
        desk.wait_for(desk.is_shown, 20, "the raised window")
        assert app.poll() is None

        desk.click_in_tray_menu(QUIT_LINE)
        desk.answer("Quit and stop serving", "Escape")  # the guard: tokens are unproven; Escape cancels
        assert app.poll() is None

        desk.click_submit()
        desk.wait_for(lambda: all_confirmed(desk, 2), ANSWER_LIMIT_S, "the second claim")
        desk.wait_for(lambda: job_is_settled(desk, generated), ANSWER_LIMIT_S, "the second payment")

    desk.click_in_tray_menu(QUIT_LINE)
    assert app.wait(20 * SCALE) == 0, desk.log.read_text()
    assert job_is_settled(desk, generated)
    assert "Traceback" not in desk.log.read_text()
    assert not desk.windows(WINDOW)


@pytest.mark.timeout(int(180 * SCALE))
def test_a_started_product_begins_to_submit_what_it_counted_once_the_keyring_holds_a_key(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    hidden = {"PYTHON_KEYRING_BACKEND", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "HOST_PRIVATE_KEY"}
    environment = {
        **{name: text for name, text in os.environ.items() if name not in hidden},
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
    }
    command = ["dbus-run-session", "--", sys.executable, str(TESTS / "ui" / "late_key_scenario.py"), str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=150 * SCALE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    assert "paid without a restart" in output, output[-6000:]
