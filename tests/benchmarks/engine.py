"""The engine against its peers, in the same minutes on the same machine: `python tests/benchmarks/engine.py`.

Rounds are interleaved (every contestant once a round, in turn) and medians are told, because a shared machine's speed drifts.
Nothing here passes or fails: the table is for reading.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import aiohttp  # noqa: E402
from engine_support import ask, collect, ready_engine, small_model_path  # noqa: E402
from llama_server_support import llama_server  # noqa: E402

from fabstir_desktop.inference.client import EngineClient  # noqa: E402

PEERS = Path(__file__).with_name("engine_peers.py")
PROMPT = "Please tell me a long and detailed story about the sea, the number {} and all the animals in it."


@dataclass
class Outcome:
    """One run: seconds to each stream's first token, seconds in all, tokens made."""

    firsts: list[float]
    seconds: float
    tokens: int


Run = Callable[[list[str], int], Awaitable[Outcome]]


@dataclass
class Figures:
    """A contestant's runs by number of streams."""

    runs: dict[int, list[Outcome]] = field(default_factory=dict)

    def rate(self, streams: int) -> float:
        return statistics.median(run.tokens / run.seconds for run in self.runs[streams])

    def slowest_first(self, streams: int) -> float:
        return statistics.median(max(run.firsts) for run in self.runs[streams])


@contextlib.asynccontextmanager
async def peer(kind: str, model: Path, window: int, parallel: int, threads: int) -> AsyncIterator[Run]:
    """A contestant in a process of its own."""
    arguments = [str(PEERS), kind, str(model), str(window), str(parallel), str(threads)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"READY"
    stdin, stdout = process.stdin, process.stdout

    async def run(prompts: list[str], count: int) -> Outcome:
        stdin.write(json.dumps([prompts, count]).encode() + b"\n")
        return Outcome(*json.loads(await stdout.readline()))

    try:
        yield run
    finally:
        stdin.close()
        await process.wait()


def own(engine: EngineClient) -> Run:
    async def run(prompts: list[str], count: int) -> Outcome:
        started = time.perf_counter()
        answers = await asyncio.gather(
            *(collect(engine, ask(prompt, count, temperature=0.7, seed=seed)) for seed, prompt in enumerate(prompts))
        )
        seconds = time.perf_counter() - started
        return Outcome([a.first_token_s for a in answers], seconds, sum(len(a.token_ids) for a in answers))

    return run


def http(session: aiohttp.ClientSession, url: str) -> Run:
    async def one(prompt: str, count: int, seed: int, started: float) -> tuple[float, int]:
        body = {
            "messages": [{"role": "user", "content": prompt}], "max_tokens": count, "stream": True, "seed": seed,
            "temperature": 0.7, "top_p": 0.95, "top_k": 40, "min_p": 0.05, "stream_options": {"include_usage": True},
        }  # fmt: skip
        first, tokens = 0.0, 0
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    part = json.loads(line[6:])
                    if part["choices"] and part["choices"][0]["delta"].get("content"):
                        first = first or time.perf_counter() - started
                    tokens = (part.get("usage") or {}).get("completion_tokens", tokens)
        return first, tokens

    async def run(prompts: list[str], count: int) -> Outcome:
        started = time.perf_counter()
        results = await asyncio.gather(*(one(p, count, seed, started) for seed, p in enumerate(prompts)))
        return Outcome([first for first, _ in results], time.perf_counter() - started, sum(n for _, n in results))

    return run


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=2048)
    options = parser.parse_args()
    model, parallel = small_model_path(), max(options.streams)
    async with contextlib.AsyncExitStack() as stack:
        setup = (model, options.window, parallel, options.threads)
        engine = await ready_engine(parallel=parallel, context_window=options.window, threads=options.threads)
        stack.push_async_callback(engine.stop)
        url = stack.enter_context(
            llama_server(model, window=options.window, parallel=parallel, threads=options.threads)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        contestants: dict[str, Run] = {
            "engine": own(engine),
            "bare loop": await stack.enter_async_context(peer("bare", *setup)),
            "llama-server": http(session, url),
            "llama-cpp-python": await stack.enter_async_context(peer("llama", *setup)),
        }
        figures = await measure(contestants, options)
    show(figures, options.streams)


async def measure(contestants: dict[str, Run], options: argparse.Namespace) -> dict[str, Figures]:
    figures = {name: Figures() for name in contestants}
    number = 0
    for round_ in range(options.rounds + 1):
        for streams in options.streams:
            for name, run in contestants.items():
                number += 1
                prompts = [PROMPT.format(number * 100 + n) for n in range(streams)]
                outcome = await run(prompts, options.tokens)
                if round_ > 0:  # the first round warms up
                    figures[name].runs.setdefault(streams, []).append(outcome)
    return figures


def show(figures: dict[str, Figures], stream_counts: list[int]) -> None:
    for streams in stream_counts:
        print(f"\n{streams} stream(s)         tokens/s   of engine   slowest first token")
        base = figures["engine"]
        for name, figure in figures.items():
            ratio = figure.rate(streams) / base.rate(streams)
            print(f"  {name:18} {figure.rate(streams):8.1f} {ratio:10.2f} {figure.slowest_first(streams):16.3f} s")


if __name__ == "__main__":
    asyncio.run(main())
