"""The engine and the whole product against their peers: `python tests/benchmarks/engine.py [--only ROW ...] [--rounds N]`.

One table. Contestants take turns within each round and the medians of all rounds are told, because a shared machine's speed
drifts; ratios are taken within a round. Nothing here passes or fails a build: the table is for reading.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from engine_contestants import (  # noqa: E402
    EngineAlone,
    WholeProduct,
    bare_loop,
    environment,
    served_llama,
    served_python,
)
from engine_rows import ROWS, Field, Line  # noqa: E402
from engine_support import ready_engine  # noqa: E402
from product_support import Product  # noqa: E402


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), default=list(ROWS), metavar="ROW", help=list_rows())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--sessions", type=int, default=200, help="that come and go before memory is read")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=2048)
    options = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores", flush=True)
    lines: list[Line] = []
    async with contextlib.AsyncExitStack() as stack:
        field = await make_field(stack, options)
        for name in [row for row in ROWS if row in options.only]:
            print(f"... {name}", flush=True)
            lines += await ROWS[name](field)
    print(f"load average at the end: {os.getloadavg()[0]:.2f}\n")
    show(lines)


def list_rows() -> str:
    return "one or more of " + ", ".join(ROWS)


async def make_field(stack: contextlib.AsyncExitStack, options: argparse.Namespace) -> Field:
    """Start all contestants that the chosen rows need; each loads the model once."""
    setup = (options.window, 8, options.threads)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    product = Product(folder / "product", environment(*setup))
    stack.callback(product.kill)
    await product.start()
    field = Field(options.rounds, options.tokens, setup, folder, WholeProduct(product), options.sessions)
    if set(options.only) & {"streams", "history", "newcomer"}:
        field.llama_server = await stack.enter_async_context(served_llama(*setup))
    if "streams" in options.only:
        engine = await ready_engine(parallel=8, context_window=options.window, threads=options.threads)
        stack.push_async_callback(engine.stop)
        field.engine = EngineAlone(engine)
        field.bare = await stack.enter_async_context(bare_loop(*setup))
        field.python = await stack.enter_async_context(served_python(options.window, options.threads))
    stack.push_async_callback(field.product.close)
    return field


def show(lines: list[Line]) -> None:
    width = max(len(line.figure) for line in lines)
    print(f"{'figure':{width}}  {'must reach':>16}  {'measured':>12}      how")
    for line in lines:
        verdict = {True: "yes", False: "NO", None: ""}[line.reached]
        print(f"{line.figure:{width}}  {line.must_reach:>16}  {line.measured:>12}  {verdict:3} {line.how}")


if __name__ == "__main__":
    asyncio.run(main())
