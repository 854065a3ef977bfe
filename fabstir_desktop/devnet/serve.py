"""The child process that runs the embedded chain: `python -m fabstir_desktop.devnet.serve`.

It listens on 127.0.0.1, writes one line of JSON with its port to standard output when it is ready, and ends when standard
input ends. Its parent holds the other side of that pipe and never writes: so it ends with its parent, even after kill -9.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from aiohttp import web

from fabstir_desktop.devnet.evm import DevChain
from fabstir_desktop.devnet.rpc import RpcMethods

HOST = "127.0.0.1"
MAX_BODY_BYTES = 4 * 1024 * 1024
IDLE_AFTER_S = 60.0
IDLE_BLOCK_TIME_S = 5.0
"""Every block is kept: a chain on which nothing happens for a while makes fewer of them."""

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until standard input ends; return the exit code."""
    options = _parser().parse_args(arguments)
    _die_with_parent(has_main_thread_parent=options.die_with_parent)
    funded = {bytes.fromhex(address.removeprefix("0x")): int(wei) for address, wei in options.fund}
    chain = DevChain(options.chain_id, funded)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl+C reaches the whole group; the parent says goodbye by itself
        asyncio.run(_serve(chain, options.port, options.block_time))
    return 0


async def _serve(chain: DevChain, port: int, block_time_s: float) -> None:
    methods = RpcMethods(chain)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=methods.answer(await request.read()), content_type="application/json")

    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        bound_port = runner.addresses[0][1]
        sys.stdout.write(json.dumps({"port": bound_port, "chain_id": chain.chain_id}) + "\n")
        sys.stdout.flush()
        await _mine_for_ever(chain, block_time_s)
    finally:
        await runner.cleanup()


async def _mine_for_ever(chain: DevChain, block_time_s: float) -> None:
    """Mine a block every `block_time_s`; with 0 the chain mines by itself at each transaction."""
    if block_time_s <= 0:
        await asyncio.Event().wait()
    chain.is_automining = False
    last_block = last_work = due = time.monotonic()
    while True:
        due = max(due + block_time_s, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        now = time.monotonic()
        is_busy = len(chain.pool) > 0
        if is_busy:
            last_work = now
        if is_busy or now - last_work < IDLE_AFTER_S or now - last_block >= IDLE_BLOCK_TIME_S:
            chain.mine()
            last_block = now


def _die_with_parent(*, has_main_thread_parent: bool) -> None:
    """End at the end of standard input; on Linux the kernel also ends us with the thread that started us."""

    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait_for_the_end, name="parent watch", daemon=True).start()
    if has_main_thread_parent and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fabstir_desktop.devnet.serve")
    parser.add_argument("--chain-id", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--block-time", type=float, default=0.0)
    parser.add_argument("--fund", nargs=2, action="append", default=[], metavar=("ADDRESS", "WEI"))
    parser.add_argument("--die-with-parent", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
