"""The wallet on a real Secret Service (GNOME Keyring), each case in a D-Bus session and home of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wallet_support import CANARY

TESTS = Path(__file__).resolve().parent.parent
LIMIT_S = 60
BARE_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """A virtual screen for the keyring's own password prompt."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        with os.fdopen(reading) as answer:
            number = answer.readline().strip()
        assert number, "Xvfb did not start"
        with subprocess.Popen(
            ["openbox"], env={**os.environ, "DISPLAY": f":{number}"}, stderr=subprocess.DEVNULL
        ) as manager:
            yield f":{number}"
            manager.terminate()
        server.terminate()


def run_scenario(
    name: str, home: Path, display: str | None = None, bus: Path | None = None, script: str = "keyring_scenarios.py"
) -> str:
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    environment = {
        name: text
        for name, text in os.environ.items()
        if name not in {"PYTHON_KEYRING_BACKEND", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"}
    }
    environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "XDG_DATA_HOME": str(home / "share")}
    environment |= {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "XDG_CONFIG_HOME": str(home / "config")}
    if display is not None:
        environment["DISPLAY"] = display
    session = ["dbus-run-session", *(["--config-file", str(bus)] if bus else []), "--"]
    command = [*session, sys.executable, str(TESTS / script), name]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    assert f"passed {name}" in output, output
    assert CANARY[:12] not in output
    return output


def test_a_key_is_kept_for_other_processes_and_replaced_or_removed_only_when_asked(tmp_path: Path) -> None:
    run_scenario("kept", tmp_path)


def test_a_locked_keyring_that_can_ask_nobody_is_a_state_and_not_a_hang(tmp_path: Path) -> None:
    run_scenario("no_screen", tmp_path)


def test_the_window_waits_for_a_locked_keyring_can_leave_it_and_unlocks_it_from_the_problem(
    tmp_path: Path, screen: str
) -> None:
    run_scenario("window", tmp_path, screen, script="ui/keyring_window_scenario.py")


def test_a_dismissed_prompt_leaves_the_wallet_locked_and_an_answered_one_opens_it(tmp_path: Path, screen: str) -> None:
    run_scenario("dismissed", tmp_path, screen)


def test_a_prompt_nobody_answers_ends_the_wait_and_stores_nothing_late(tmp_path: Path, screen: str) -> None:
    run_scenario("abandoned", tmp_path, screen)


def test_without_a_keyring_the_wallet_says_so_and_finds_one_that_comes_later(tmp_path: Path) -> None:
    bus = tmp_path / "bus.conf"
    bus.write_text(BARE_BUS, encoding="utf-8")
    run_scenario("nothing", tmp_path, bus=bus)
