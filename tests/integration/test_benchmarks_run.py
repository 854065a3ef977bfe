"""The engine's benchmark runs to its table: a harness that nobody runs rots unseen. What it measures here means nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from limits import scaled

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "engine.py"


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_the_engines_benchmark_prints_its_table() -> None:
    small = ["--rounds", "1", "--tokens", "8", "--sessions", "8", "--window", "512", "--only", "kill", "memory"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(BENCHMARK), *small, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), scaled(300))
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    for figure in ("SIGKILL of the child", "KV, without a window", "KV, tray application"):
        assert figure in text, text
