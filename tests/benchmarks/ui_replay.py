"""A day's worth of events through window and tray, as fast as they are taken: what grows?

Run it by itself: `python tests/benchmarks/ui_replay.py [--hours 24]`. It prints a row for each two hours. All jobs of the day
are there from the beginning, so that whatever grows is kept by mistake. An hour has 36,000 counted pieces, 360 claims with
their transactions, 60 payments, problems that come and go, and log lines; the node behind them is played.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "ui")]

import psutil  # noqa: E402 - after the path was set
import qasync  # noqa: E402
from figures import Figure, print_figures  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402
from ui_support import FakeNode, make_job, make_transaction  # noqa: E402

from fabstir_desktop.jobs.events import EarningsChanged, JobChanged, TransactionChanged  # noqa: E402
from fabstir_desktop.jobs.states import problem  # noqa: E402
from fabstir_desktop.ui.bridge import Bridge  # noqa: E402
from fabstir_desktop.ui.log_store import LogStore  # noqa: E402
from fabstir_desktop.ui.main_window import PAGES, MainWindow  # noqa: E402
from fabstir_desktop.ui.tray import Tray  # noqa: E402

JOBS = 1_440
STEPS_AN_HOUR = 360
PIECES_A_STEP = 100
TURN_S = 0.002
MB = 1 << 20
log = logging.getLogger("fabstir_desktop.settlement.replay")


def claim(node: FakeNode, step: int) -> None:
    """A job's tokens are claimed, and the oldest transaction of the page goes."""
    job_id = step % JOBS
    job = node.job_by_id[job_id]
    node.job_by_id[job_id] = make_job(job_id, "claiming", generated=job.generated, claimed=job.generated)
    node.transaction_rows = [make_transaction(step + 1), *node.transaction_rows[:999]]
    node.feed.publish(JobChanged(job_id))
    node.feed.publish(TransactionChanged(step))


def steps(node: FakeNode, hours: float) -> Iterator[int]:
    """Publish what ten seconds bring, again and again."""
    for step in range(round(hours * STEPS_AN_HOUR)):
        for piece in range(PIECES_A_STEP):
            node.count_tokens((step * 7 + piece % 8) % JOBS, 1)
        claim(node, step)
        log.info("CHECKPOINT NEEDED for job %d with 100 tokens!", step % JOBS)
        if step % 6 == 0:
            node.feed.publish(EarningsChanged(frozenset({step % JOBS})))
        if step % 30 == 0:
            node.set_problems(*([problem("C01", "The chain cannot be reached.")] if step % 60 else []))
        yield step


def row(step: int, window: MainWindow) -> Figure:
    gc.collect()
    resident = psutil.Process().memory_info().rss / MB
    tables = f"{window.jobs.model.rowCount()} jobs"
    measured = f"{resident:.1f} MB, {len(gc.get_objects()):,} objects, {len(asyncio.all_tasks())} tasks, {tables}"
    return Figure(f"after {step / STEPS_AN_HOUR:.1f} h", "as the row above", measured)


async def replay(window: MainWindow, tray: Tray, bridge: Bridge, node: FakeNode, hours: float) -> list[Figure]:
    bridge.attach(node)  # type: ignore[arg-type]
    found = []
    marks = max(1, round(hours * STEPS_AN_HOUR / 12))
    for step in steps(node, hours):
        await asyncio.sleep(TURN_S)
        if step % 10 == 0:
            tray.update()
        if step % 100 == 0:
            window.show_page(PAGES[step // 100 % len(PAGES)])
        if (step + 1) % marks == 0:
            await asyncio.sleep(0.5)
            found.append(row(step + 1, window))
    await bridge.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    hours = parser.parse_args().hours
    app = QApplication(sys.argv[:1])
    loop = qasync.QEventLoop(app)
    store = LogStore()
    logging.getLogger().addHandler(store)
    logging.getLogger().setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="fabstir-replay-") as folder, loop:
        node = FakeNode(Path(folder))
        node.job_by_id = {number: make_job(number, "idle") for number in range(JOBS)}
        node.transaction_rows = [make_transaction(number) for number in range(1_000)]
        bridge = Bridge()
        window, tray = MainWindow(bridge, store), Tray(bridge)
        window.show()
        began = time.perf_counter()
        found = loop.run_until_complete(replay(window, tray, bridge, node, hours))
        print_figures(f"{hours:g} hours of events in {time.perf_counter() - began:.0f} s", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
