"""The benchmarks run to their tables: a harness that nobody runs rots unseen. What they measure here means nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from limits import scaled

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


async def table_of(name: str, *options: str) -> str:
    """What the benchmark prints; it must end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(BENCHMARKS / name), *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), scaled(300))
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_the_engines_benchmark_prints_its_table() -> None:
    small = ["--rounds", "1", "--tokens", "8", "--sessions", "8", "--window", "512", "--only", "kill", "memory"]
    text = await table_of("engine.py", *small)
    for figure in ("SIGKILL of the child", "KV, without a window", "KV, tray application"):
        assert figure in text, text


async def test_the_replay_of_a_days_events_prints_its_table() -> None:
    text = await table_of("ui_replay.py", "--hours", "0.04")
    assert "after 0.0 h" in text, text


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_the_benchmark_of_the_working_window_prints_its_table() -> None:
    text = await table_of("ui_serving.py", "--seconds", "3", "--streams", "1", "--jobs", "5", "--starts", "1")
    for figure in ("start to serving", "loop lag, 99 %", "memory of the GUI process"):
        assert figure in text, text
