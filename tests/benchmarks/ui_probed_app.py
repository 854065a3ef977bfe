"""The real tray app with a probe in its loop; started by `ui_serving.py`, with the product's own arguments.

The probe asks for a turn every 5 ms and writes down, in a file that PROBE_REPORT names: when it came (monotonic, in seconds),
how late, and what the loop's own thread computed meanwhile (in milliseconds). On a machine whose cores others want too,
lateness is theirs as well; what was computed is ours alone. PROBE_JOBS jobs get a token each, ten times a second, in the real
ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from fabstir_desktop.__main__ import main
from fabstir_desktop.jobs.events import JobChanged, TokensCounted
from fabstir_desktop.node import HostNode

EVERY_S = 0.005
CHANGES_EVERY_S = 0.1
FIRST_JOB = 700_000


async def sample(report: Path) -> None:
    """Write down how late each turn came."""
    loop, found = asyncio.get_running_loop(), []
    try:
        while True:
            due, worked = loop.time() + EVERY_S, time.thread_time()
            await asyncio.sleep(EVERY_S)
            late, worked = loop.time() - due, time.thread_time() - worked
            found.append((time.monotonic(), round(late * 1000, 3), round(worked * 1000, 3)))
    finally:
        report.write_text(json.dumps(found))


async def change_jobs(node: HostNode, count: int) -> None:
    """One token for each job, again and again."""
    ledger = node._ledger
    assert ledger is not None
    tickets = {job: await ledger.open_ticket(job, f"probe-{job}") for job in range(FIRST_JOB, FIRST_JOB + count)}
    for job in tickets:
        node.feed.publish(JobChanged(job))
    while True:
        await asyncio.sleep(CHANGES_EVERY_S)
        totals = {job: ledger.add_tokens(ticket, (1,)) for job, ticket in tickets.items()}
        for job, total in totals.items():
            node.feed.publish(TokensCounted(job, f"probe-{job}", 1, await total))


def probe(report: Path, jobs: int) -> None:
    """Begin with the node."""
    start = HostNode.start

    async def start_and_watch(node: HostNode) -> None:
        await start(node)
        node._tasks.start(sample(report), "probe")
        if jobs:
            node._tasks.start(change_jobs(node, jobs), "changing jobs")

    HostNode.start = start_and_watch  # type: ignore[method-assign]


if __name__ == "__main__":
    probe(Path(os.environ["PROBE_REPORT"]), int(os.environ.get("PROBE_JOBS", "0")))
    sys.exit(main())
