"""A stranger's first evening with the real app, by keyboard alone: the first steps, a job, and the ways to quit.

No keyring answers here, as on many a machine: the key goes into an encrypted file. Model, socket, chain, window manager and
panel are the real ones.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from engine_support import small_model_path
from host_environment import chain_environment
from limits import SCALE
from product_support import ask, brief_request
from secrets_support import canary_key
from websockets.asyncio.client import connect

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import DemoWorld, deploy_demo

FIRST_STEPS = "First steps"
PASSWORD = "correct-horse-battery"
TO_FILE_BUTTON = ("Tab", "Tab", "Tab")  # the step itself, *Try again*, *Keep it in an encrypted file…*
TO_MODEL_BUTTON = ("Tab", "Tab")  # the step itself, *Choose a GGUF file…*
TO_TEST_BUTTON = ("Tab", "Tab", "Tab")  # the step itself, the answer, *Run the self-test*
QUIT_LINE = -1
ANSWERS = {"finish": ("Return",), "claim": ("Tab", "space"), "leave": ("Tab", "Tab", "space")}
PROMPT = "Tell me a long story about a lighthouse keeper and an old radio."


@pytest.fixture
async def world() -> AsyncIterator[DemoWorld]:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        yield await deploy_demo(chain, host_key=canary_key())


@pytest.fixture
def desk(world: DemoWorld, tmp_path: Path) -> Iterator[Desk]:
    settings = {
        **chain_environment(world),
        "CHECKPOINT_THRESHOLD": "1000",
        "API_PORT": "0",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
    made = Desk(tmp_path, settings=settings)
    try:
        made.open_screen()
        yield made
    finally:
        made.stop()


def status(desk: Desk) -> dict[str, Any]:
    answer = json.loads(desk.product("status", "--json"))
    assert isinstance(answer, dict)
    return answer


def wait_for_keyboard(desk: Desk, title: str) -> None:
    def has_keyboard() -> bool:
        return desk.run("xdotool", "getwindowfocus", "getwindowname") == title

    desk.wait_for(has_keyboard, 60, f"the keyboard at {title!r}")


def write(desk: Desk, text: str) -> None:
    desk.run("xdotool", "type", "--delay", "20", text)


def generated_tokens(desk: Desk) -> int:
    url = status(desk)["server"]["url"].replace("ws://", "http://").removesuffix("/v1/ws")
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
        found = re.search(r"^fabstir_tokens_generated_total(?:\{[^}]*\})? (\d+)", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def walk_first_steps(desk: Desk, world: DemoWorld) -> None:
    wait_for_keyboard(desk, FIRST_STEPS)
    desk.press("Return", "Return", *TO_FILE_BUTTON, "space")
    wait_for_keyboard(desk, "Keep the key in an encrypted file")
    write(desk, world.host_key)
    for _ in range(2):
        desk.press("Tab")
        write(desk, PASSWORD)
    desk.press("Return")
    desk.wait_for(lambda: status(desk)["wallet"]["state"] == "ready", 60, "the key")
    assert status(desk)["wallet"]["address"] == world.host_address

    wait_for_keyboard(desk, FIRST_STEPS)
    desk.press("Return", "Return", "Return", *TO_MODEL_BUTTON, "space")
    wait_for_keyboard(desk, "Choose a model")
    write(desk, str(small_model_path()))
    desk.press("Return")
    desk.wait_for(lambda: status(desk)["engine"]["state"] == "ready", 90, "the model")

    wait_for_keyboard(desk, FIRST_STEPS)
    before = generated_tokens(desk)
    desk.press("Return", "Return", *TO_TEST_BUTTON, "space")
    desk.wait_for(lambda: generated_tokens(desk) > before + 10, 90, "the answer of the self-test")
    desk.wait_for(lambda: status(desk)["server"]["active_requests"] == 0, 90, "the end of the self-test")
    desk.press("Return", "Return")
    desk.wait_for(lambda: not desk.is_shown(f"^{FIRST_STEPS}"), 20, "the end of the first steps")


@pytest.mark.timeout(int(400 * SCALE))
async def test_first_steps_by_keyboard_then_a_job_and_quitting_in_each_way_loses_nothing(
    desk: Desk, world: DemoWorld
) -> None:
    app = desk.launch_app()
    walk_first_steps(desk, world)
    assert json.loads(desk.product("transactions", "--json")) == [], "the self-test sends nothing"
    # The key's file asks for its password after each start; counting and quitting do not wait for it.
    generated = 0
    for way, keys in ANSWERS.items():
        if way != "finish":
            app = desk.launch_app()
            desk.wait_for(lambda: desk.logged("Listening on") > 0, 90, "the start")
            desk.wait_for(lambda: status(desk)["engine"]["state"] == "ready", 90, "the model")
        async with connect(status(desk)["server"]["url"]) as socket:
            answer = await ask(socket, brief_request(world.job_ids[0], PROMPT, 30))
            assert answer.error is None, answer.error
            generated += answer.chunk_tokens
            desk.click_in_tray_menu(QUIT_LINE)
            desk.answer("Quit and stop serving", *keys)
            assert app.wait(60 * SCALE) == 0, desk.log.read_text()
        [job] = json.loads(desk.product("jobs", "--json"))
        assert job["generated"] == generated, way
        assert "Traceback" not in desk.log.read_text()
