"""The whole tray app as its own process: starts without a network, is raised by a second start, ends at once and gracefully."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from limits import SCALE
from secrets_support import with_canary

START_LIMIT_S = 60
STOP_LIMIT_S = 5.5


def _environment(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "HOST_PRIVATE_KEY"}
    return {
        **kept,
        "QT_QPA_PLATFORM": "offscreen",
        "FABSTIR_DATA_DIR": str(data_dir),
        "RPC_URL": with_canary("http://127.0.0.1:9"),
        "API_PORT": "0",
        "XDG_CONFIG_HOME": str(data_dir / "config"),
    }


def _run(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fabstir_desktop", *arguments]
    return subprocess.run(
        command, env=_environment(data_dir), capture_output=True, text=True, timeout=START_LIMIT_S, check=False
    )


def _status(data_dir: Path) -> dict[str, Any] | None:
    done = _run(data_dir, "status", "--json")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and answer.get("server", {}).get("url") else None


@pytest.fixture
def app(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "fabstir_desktop"]
    with (tmp_path / "err").open("wb") as errors:
        process = subprocess.Popen(command, env=_environment(tmp_path), stderr=errors)
        try:
            limit = time.monotonic() + START_LIMIT_S
            while _status(tmp_path) is None:
                assert process.poll() is None, (tmp_path / "err").read_text()
                assert time.monotonic() < limit, (tmp_path / "err").read_text()
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_second_start_raises_the_first_and_a_signal_ends_it_within_five_seconds(
    app: subprocess.Popen[bytes], tmp_path: Path, name: signal.Signals
) -> None:
    second = _run(tmp_path)
    assert second.returncode == 0, second.stderr
    assert app.poll() is None
    began = time.monotonic()
    app.send_signal(name)
    assert app.wait(STOP_LIMIT_S) == 0, (tmp_path / "err").read_text()
    assert time.monotonic() - began < STOP_LIMIT_S
    errors = (tmp_path / "err").read_text()
    assert "Traceback" not in errors
    assert "never awaited" not in errors


@pytest.mark.parametrize("later_s", [0.0, 0.8])
def test_of_two_starts_at_once_one_serves_and_the_other_gives_way_without_a_question(
    tmp_path: Path, later_s: float
) -> None:
    """The second start comes while the first is still starting: it waits for it and raises its window."""
    command = [sys.executable, "-m", "fabstir_desktop"]
    processes = []
    with (tmp_path / "err").open("wb") as errors:
        try:
            for wait_s in (0.0, later_s):
                time.sleep(wait_s)
                processes.append(subprocess.Popen(command, env=_environment(tmp_path), stderr=errors))
            limit = time.monotonic() + START_LIMIT_S * SCALE
            while len([one for one in processes if one.poll() is None]) > 1:
                assert time.monotonic() < limit, (tmp_path / "err").read_text()
                time.sleep(0.1)
            assert sorted(one.poll() is None for one in processes) == [False, True]
            assert {one.poll() for one in processes} == {None, 0}, (tmp_path / "err").read_text()
            while _status(tmp_path) is None:
                assert time.monotonic() < limit, (tmp_path / "err").read_text()
            assert "cannot start" not in (tmp_path / "err").read_text()
        finally:
            for one in processes:
                one.kill()
                one.wait()


def test_a_setting_that_cannot_be_used_ends_the_start_with_one_line(tmp_path: Path) -> None:
    environment = {**_environment(tmp_path), "CHECKPOINT_THRESHOLD": "many"}
    done = subprocess.run(
        [sys.executable, "-m", "fabstir_desktop"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "CHECKPOINT_THRESHOLD" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
