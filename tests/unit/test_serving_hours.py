"""When the host pauses by itself, and that what is done by hand is stronger."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fabstir_desktop.awake import Awake, inhibiting_command
from fabstir_desktop.errors import SettingError
from fabstir_desktop.habits import Habits, is_on_battery
from fabstir_desktop.jobs.diagnosis import describe_state
from fabstir_desktop.jobs.generation import EngineState, EngineStatus
from fabstir_desktop.jobs.serving_hours import AutomaticPause, PauseCause, decide_pause, parse_serving_hours
from fabstir_desktop.jobs.status import ServingState
from fabstir_desktop.settings import load_settings


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-02T{clock}:00")


def decide(clock: str, *spans: str, wants: bool = False, battery: bool = False) -> AutomaticPause | None:
    return decide_pause(at(clock), parse_serving_hours(spans), pause_on_battery=wants, on_battery=battery)


@pytest.mark.parametrize(
    ("clock", "spans", "hours_left"),
    [
        ("12:00", (), None),
        ("12:00", ("08:00-18:00",), None),
        ("08:00", ("08:00-18:00",), None),
        ("18:00", ("08:00-18:00",), 14),
        ("07:00", ("08:00-18:00",), 1),
        ("23:30", ("22:00-07:00",), None),
        ("06:59", ("22:00-07:00",), None),
        ("07:00", ("22:00-07:00",), 15),
        ("12:00", ("22:00-07:00", "13:00-14:00"), 1),
        ("15:00", ("00:00-01:00", "13:00-14:00"), 9),
        ("15:00", ("05:00-05:00",), None),
    ],
)
def test_outside_the_serving_hours_it_pauses_until_the_next_span(
    clock: str, spans: tuple[str, ...], hours_left: int | None
) -> None:
    due = decide(clock, *spans)
    if hours_left is None:
        assert due is None
    else:
        assert due is not None
        assert (due.cause, due.duration_s) == (PauseCause.HOURS, hours_left * 3600)


def test_on_battery_it_pauses_only_if_the_setting_says_so() -> None:
    assert decide("12:00", battery=True) is None
    assert decide("12:00", wants=True) is None
    due = decide("12:00", wants=True, battery=True)
    assert due is not None
    assert due.cause is PauseCause.BATTERY
    assert due.duration_s is None


def test_hours_that_cannot_be_read_end_the_start_with_the_settings_name(tmp_path: Path) -> None:
    for wrong in ("8-18", "25:00-07:00", "always", "08:00-18:61"):
        with pytest.raises(SettingError, match=r"SERVING_HOURS .*22:00-07:00"):
            load_settings({"data_dir": tmp_path, "serving_hours": wrong})
    settings = load_settings({"data_dir": tmp_path, "serving_hours": "22:00-07:00, 12:00-13:00"})
    assert settings.serving_hours == ("22:00-07:00", "12:00-13:00")


def test_the_sentence_says_why_it_pauses_and_when_it_goes_on() -> None:
    engine = EngineStatus(EngineState.READY, "", None, 0, 0, 1, 0.0, 1.0, 0, None)

    def sentence(clock: str | None, reason: str) -> str:
        return describe_state(
            ServingState.PAUSED,
            engine=engine,
            submitting=True,
            active_requests=0,
            problems=(),
            resume_clock=clock,
            pause_reason=reason,
        )

    assert sentence("22:00", "outside the serving hours") == "Paused until 22:00: outside the serving hours"
    assert sentence(None, "the computer runs on battery") == "Paused: the computer runs on battery"
    assert sentence("22:00", "") == "Paused until 22:00"
    assert sentence(None, "") == "Paused until you resume"


class PlayedNode:
    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.serving_state = ServingState.SERVING
        self.status: Any = SimpleNamespace(server=SimpleNamespace(active_requests=0))
        self.pause_reason = ""
        self.duration_s: float | None = None

    async def pause(self, duration_s: float | None = None, *, reason: str = "") -> None:
        self.serving_state, self.pause_reason, self.duration_s = ServingState.PAUSED, reason, duration_s

    async def resume(self) -> None:
        self.serving_state, self.pause_reason, self.duration_s = ServingState.SERVING, "", None


class Scene:
    """A node whose battery and clock the test plays."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.node = PlayedNode(load_settings({"data_dir": tmp_path, **settings}))
        self.battery = False
        self.time = at("12:00")
        self.awake = Awake([sys.executable, "-c", "import sys; sys.stdin.read()"])
        self.habits = Habits(self.node, awake=self.awake, on_battery=lambda: self.battery, now=lambda: self.time)

    async def look(self) -> ServingState:
        await self.habits.look()
        return self.node.serving_state


async def test_it_pauses_on_battery_and_resumes_with_mains_power(tmp_path: Path) -> None:
    scene = Scene(tmp_path, pause_on_battery=True)
    assert await scene.look() is ServingState.SERVING
    scene.battery = True
    assert await scene.look() is ServingState.PAUSED
    assert "battery" in scene.node.pause_reason
    scene.battery = False
    assert await scene.look() is ServingState.SERVING


async def test_who_resumes_by_hand_is_not_paused_again_for_the_same_cause(tmp_path: Path) -> None:
    scene = Scene(tmp_path, pause_on_battery=True)
    scene.battery = True
    assert await scene.look() is ServingState.PAUSED
    await scene.node.resume()
    assert await scene.look() is ServingState.SERVING
    scene.battery = False
    assert await scene.look() is ServingState.SERVING
    scene.battery = True
    assert await scene.look() is ServingState.PAUSED


async def test_a_pause_by_hand_outlasts_the_cause(tmp_path: Path) -> None:
    scene = Scene(tmp_path, pause_on_battery=True)
    await scene.node.pause()
    scene.battery = True
    assert await scene.look() is ServingState.PAUSED
    scene.battery = False
    assert await scene.look() is ServingState.PAUSED


async def test_the_schedule_pauses_with_its_end_and_another_cause_takes_over(tmp_path: Path) -> None:
    scene = Scene(tmp_path, pause_on_battery=True, serving_hours="22:00-07:00")
    assert await scene.look() is ServingState.PAUSED
    assert scene.node.duration_s == 10 * 3600
    scene.battery = True
    await scene.look()
    assert "battery" in scene.node.pause_reason
    assert scene.node.duration_s is None
    scene.battery, scene.time = False, at("22:00")
    assert await scene.look() is ServingState.SERVING


@pytest.mark.parametrize(
    ("battery", "expected"),
    [(None, False), (SimpleNamespace(power_plugged=None), False), (SimpleNamespace(power_plugged=True), False),
     (SimpleNamespace(power_plugged=False), True)],
)  # fmt: skip
def test_a_computer_is_on_battery_only_if_the_system_says_so(
    battery: object, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.sensors_battery", lambda: battery, raising=False)
    assert is_on_battery() is expected


@pytest.mark.skipif(sys.platform == "win32", reason="there it is a call and not a process")
async def test_the_machine_is_kept_awake_while_a_request_runs_and_no_longer(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    await scene.look()
    assert not scene.awake.is_held
    scene.node.status.server.active_requests = 1
    await scene.look()
    process = scene.awake._process
    assert process is not None
    assert process.poll() is None
    await scene.look()
    assert scene.awake._process is process
    scene.node.status.server.active_requests = 0
    await scene.look()
    assert process.returncode is not None
    scene.node.status.server.active_requests = 1
    await scene.look()
    again = scene.awake._process
    await scene.habits.stop()
    assert again is not None
    assert again.returncode is not None


async def test_the_setting_lets_the_machine_sleep(tmp_path: Path) -> None:
    scene = Scene(tmp_path, keep_awake=False)
    scene.node.status.server.active_requests = 1
    await scene.look()
    assert not scene.awake.is_held


def test_what_keeps_awake_ends_with_the_app_even_if_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    command = inhibiting_command()
    assert command is not None
    assert command[0] == "/bin/systemd-inhibit"
    program = (
        "import os, signal; from fabstir_desktop.awake import Awake;"
        f"awake = Awake({command[-1:]!r}); awake.hold(); print(awake._process.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    limit = time.monotonic() + 10
    while Path(f"/proc/{int(done.stdout)}/stat").exists():
        state = Path(f"/proc/{int(done.stdout)}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            break
        assert time.monotonic() < limit, "it outlived the app"
        time.sleep(0.02)


def test_a_program_that_cannot_be_started_is_no_error() -> None:
    awake = Awake(["/no/such/program"])
    awake.hold()
    assert awake.is_held
    awake.release()
