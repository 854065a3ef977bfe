"""How fast claims get into blocks, and how much is asked of an RPC: on anvil with blocks every two seconds.

Run it by itself: `python tests/benchmarks/settlement.py [JOBS]`; it prints one table. Blocks are counted from the one that was
the newest when the jobs crossed the threshold to the one that had the last claim.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from chain_support import Anvil, World, build_world
from played_server import PlayedServer, Step, played, vllm
from product_support import Product
from settlement_support import Room, room_in

from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.settings import Settings

BLOCK_S, POLL_S, THRESHOLD = 2.0, 2.0, 100
IDLE_S = 60.0
ROW = "{:<44} {:>14} {:>14} {:>22}"


@asynccontextmanager
async def new_world(jobs: int) -> AsyncIterator[World]:
    anvil = await Anvil.start(block_time_s=BLOCK_S, arguments=["--slots-in-an-epoch", "1", "--balance", "10000000"])
    try:
        async with ChainClient(anvil.rpc_url) as client:
            yield await build_world(anvil, client, jobs=jobs)
    finally:
        await anvil.stop()


async def cross(room: Room, job_id: int) -> None:
    """The token that makes the job due."""
    await room.generate(job_id, 1, session_id=f"s{job_id}")


async def all_at_once(jobs: int, folder: Path, **more: bool) -> None:
    """All jobs cross the threshold in the same moment; their claims leave through one key."""
    name = f"{jobs} jobs at once, {'batched' if more else 'one by one'}"
    async with new_world(jobs) as world, room_in(world, folder, settlement_poll_seconds=POLL_S, **more) as room:
        await room.ready()
        if more:  # switching it on takes a block or two of its own, once
            await room.wait(lambda: room.settlement.batching.active, 90)
        for job_id in world.demo.job_ids:
            await room.generate(job_id, THRESHOLD - 1, session_id=f"s{job_id}", step=THRESHOLD)
        first, began = await world.block_number(), time.perf_counter()
        await asyncio.gather(*(cross(room, job_id) for job_id in world.demo.job_ids))
        while len(logs := await world.logs(first)) < 2 * jobs:
            await asyncio.sleep(0.1)
        took_s = time.perf_counter() - began
        blocks = max(int(entry["blockNumber"], 16) for entry in logs) - first
        print(
            ROW.format(name, f"{took_s:.1f} s", f"{blocks} blocks", f"{jobs / took_s:.1f} claims a second"), flush=True
        )


async def requests(folder: Path) -> None:
    """What the RPC is asked in a minute without work, and for one claim beyond that."""
    async with new_world(1) as world, room_in(world, folder, settlement_poll_seconds=POLL_S) as room:
        pool = room.settlement._pool
        await room.ready()
        await room.generate(world.job_id, THRESHOLD - 1, step=THRESHOLD)
        await asyncio.sleep(2 * POLL_S)
        before = pool.request_count
        await asyncio.sleep(IDLE_S)
        idle = (pool.request_count - before) * 60 / IDLE_S
        print(ROW.format("RPC calls of an idle minute", f"{idle:.0f}", "", ""), flush=True)
        before, began = pool.request_count, time.perf_counter()
        await cross(room, world.job_id)
        await room.settled(world.job_id, 60)
        calls = pool.request_count - before - idle * (time.perf_counter() - began) / 60
        print(ROW.format("RPC calls of one claim", f"{calls:.0f}", "", ""), flush=True)


async def start_up(folder: Path) -> None:
    """The whole product over a ledger with 10,000 jobs and 1,000,000 tokens, from its start until it serves."""
    from ledger import JOBS, fill

    await fill(folder / "ledger.db")
    # As it is where it was installed: its modules are compiled once, not at each start.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder.parent / "compiled")}
    subprocess.run(
        [sys.executable, "-c", "import fabstir_desktop.headless, fabstir_desktop.cli"],
        env={**os.environ, **compiled},
        check=True,
    )
    async with played(PlayedServer(lambda _: vllm([Step("a", (1,))], "length"))) as server:
        for name in ("first", "again"):
            product = Product(folder, {"ENGINE_URL": server.url, "RPC_URL": "http://127.0.0.1:9", **compiled})
            began = time.perf_counter()
            try:
                await product.start()
                took_s = time.perf_counter() - began
                used = psutil.Process(product.process.pid).cpu_times() if product.process else None
            finally:
                product.kill()
            cpu = f"{used.user + used.system:.2f} s of CPU" if used else ""
            row = (f"start to serving, {JOBS:,} jobs ({name})", f"{took_s:.2f} s", cpu, "with the interpreter")
            print(ROW.format(*row), flush=True)


async def main(jobs: int, folder: Path) -> None:
    """All rows."""
    logging.disable(logging.CRITICAL)
    await all_at_once(jobs, folder / "single")
    if "batch_claims" in Settings.model_fields:
        await all_at_once(jobs, folder / "batched", batch_claims=True)
    await requests(folder / "requests")
    (folder / "start").mkdir()
    await start_up(folder / "start")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, Path(temporary)))
