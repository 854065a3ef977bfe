"""The ledger under the loop of the window: the same answers, and the loop never waits for the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, sys, time
from pathlib import Path
import qasync
from PySide6.QtWidgets import QApplication
sys.path.insert(0, sys.argv[2])
from ledger_support import count, opened, plan

async def measure_lag(lags):
    while True:
        started = time.perf_counter()
        await asyncio.sleep(0)
        lags.append(time.perf_counter() - started)
        await asyncio.sleep(0.001)

async def main():
    lags = []
    watch = asyncio.create_task(measure_lag(lags))
    async with opened(Path(sys.argv[1])) as ledger:
        tickets = [await ledger.open_ticket(job, "s") for job in range(8)]
        for turn in range(50):
            totals = await asyncio.gather(*(ledger.add_tokens(ticket, [turn]) for ticket in tickets))
        slow = ledger._engine.write(lambda db: time.sleep(0.5), durable=True)
        before = len(lags)
        await slow
        ticks = len(lags) - before
        await plan(ledger, 1, 0, 50)
        assert (await ledger.account(1)).open_claims == 1
    watch.cancel()
    print(totals, "ticked" if ticks > 20 else f"stood still: {ticks}")

app = QApplication([])
with qasync.QEventLoop(app) as loop:
    loop.run_until_complete(main())
"""


def test_it_works_and_does_not_block_under_the_windows_loop(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "ledger.db"), str(Path(__file__).parent.parent)],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.strip() == "[50, 50, 50, 50, 50, 50, 50, 50] ticked", result.stderr
