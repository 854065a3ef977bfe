"""The rows of the engine's table: what is measured for each, and how it compares with what it must reach."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import psutil
from engine_contestants import (
    Answer,
    Contestant,
    Outcome,
    Run,
    WholeProduct,
    inference,
    job_of,
)
from engine_process_rows import kill, memory
from engine_table import CANCELS, CLOSES, SENTENCE, Field, Line, at_least, at_most, ratio, story
from product_support import Product
from websockets.asyncio.client import ClientConnection, connect

from fabstir_desktop.jobs.generation import Message

FRESH = "fresh llama-server"
"""One that has just started: it knows no beginning of the prompts. Later it has the template's in each of its slots, as we do."""

# --- streams: rates, first tokens, processor time ----------------------------------------------------------------------


async def streams(field: Field) -> list[Line]:
    """1 and 8 streams for all contestants, in turns."""
    assert field.engine is not None
    assert field.llama_server is not None
    assert field.bare is not None
    assert field.python is not None
    contestants: dict[str, Run] = {
        "engine": field.engine.run,
        "bare loop": field.bare,
        "product": field.product.run,
        "llama-server": field.llama_server.run,
        FRESH: field.llama_server.keeping_nothing.run,
        "llama-cpp-python": field.python.run,
    }
    runs: dict[tuple[str, int], list[Outcome]] = {}
    cpu_s: dict[int, list[float]] = {1: [], 8: []}
    number = 0
    for round_ in range(field.rounds + 1):
        for count in (1, 8):
            for name, run in rotated(list(contestants.items()), round_):
                number += 1
                prompts = [story(number * 100 + n) for n in range(count)]
                before = host_cpu_s(field.product.product)
                outcome = await run(prompts, field.tokens)
                if round_ > 0:  # the first round warms up
                    runs.setdefault((name, count), []).append(outcome)
                    if name == "product":
                        cpu_s[count].append((host_cpu_s(field.product.product) - before) / outcome.tokens)
    return [*rate_lines(runs), *cpu_lines(cpu_s), *told(runs, list(contestants))]


def rotated(items: list[tuple[str, Run]], by: int) -> list[tuple[str, Run]]:
    """Each round begins with another contestant: nobody always comes after the same one."""
    by %= len(items)
    return items[by:] + items[:by]


def rate_lines(runs: dict[tuple[str, int], list[Outcome]]) -> list[Line]:
    def rates(name: str, count: int) -> list[float]:
        return [run.rate for run in runs[name, count]]

    def compare(own: str, other: str, count: int) -> tuple[float, str]:
        a, b = rates(own, count), rates(other, count)
        return ratio(a, b), f"{statistics.median(a):.0f} against {statistics.median(b):.0f} tokens/s"

    lines = [
        at_least(f"engine alone, {count} stream(s), of the bare loop", 0.96, *compare("engine", "bare loop", count))
        for count in (1, 8)
    ]
    lines += [
        at_least(
            f"whole product, {count} stream(s), of llama-server", limit, *compare("product", "llama-server", count)
        )
        for count, limit in ((1, 1.10), (8, 1.12))
    ]
    own = [run.slowest_first for run in runs["product", 8]]
    for name in (FRESH, "llama-server"):
        other = [run.slowest_first for run in runs[name, 8]]
        how = f"{statistics.median(own):.2f} against {statistics.median(other):.2f} s"
        lines.append(at_most(f"slowest first token of 8, of {name}'s", 0.6, ratio(own, other), how))
    return lines


def cpu_lines(cpu_s: dict[int, list[float]]) -> list[Line]:
    return [
        at_most(
            f"host process CPU per token, {count} stream(s)", 60, 1e6 * statistics.median(values),
            f"{1e6 * min(values):.0f} to {1e6 * max(values):.0f} in {len(values)} rounds", " us", 0,
        )
        for count, values in cpu_s.items()
    ]  # fmt: skip


def told(runs: dict[tuple[str, int], list[Outcome]], names: list[str]) -> list[Line]:
    """What each made, for reading."""
    lines = []
    for count in (1, 8):
        for name in names:
            rate = statistics.median(run.rate for run in runs[name, count])
            first = statistics.median(run.slowest_first for run in runs[name, count])
            lines.append(Line(f"  {name}, {count} stream(s)", "", f"{rate:.1f} tok/s", None, f"first {first:.3f} s"))
    return lines


def host_cpu_s(product: Product) -> float:
    """Processor time of the product's own process, all threads, not of its child."""
    assert product.process is not None
    tasks = Path(f"/proc/{product.process.pid}/task")
    if not tasks.exists():
        times = psutil.Process(product.process.pid).cpu_times()
        return float(times.user + times.system)
    # The usual counters have steps of 10 ms; an answer of 128 tokens takes less.
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


# --- the second prompt of a session --------------------------------------------------------------------------------------


async def history(field: Field) -> list[Line]:
    """First token of the second prompt, with a thousand tokens of history."""
    assert field.llama_server is not None
    own: list[float] = []
    other: list[float] = []
    for round_ in range(field.rounds + 1):
        own.append(await product_second_prompt(field.product, round_))
        other.append(await second_prompt(field.llama_server, round_))
    own, other = own[1:], other[1:]
    how = f"{1e3 * statistics.median(own):.0f} against {1e3 * statistics.median(other):.0f} ms"
    figure = "second prompt after 1,000 tokens, first token, of llama-server's"
    return [at_most(figure, 1.1, ratio(own, other), how)]


def long_text(first: int, sentences: int) -> str:
    return "".join(SENTENCE.format(first * 1000 + n) for n in range(sentences)) + "What is this about?"


async def product_second_prompt(product: WholeProduct, round_: int) -> float:
    session_id = f"history-{round_}-{time.monotonic_ns() % 10**6}"
    async with connect(product.product.url, compression=None) as socket:
        await socket.recv()
        # Only a session that was opened keeps its conversation.
        await socket.send(json.dumps({"type": "session_init", "session_id": session_id, "job_id": job_of(session_id)}))
        await socket.recv()
        answer = Answer(time.perf_counter())
        end = await product.ask_on(socket, long_text(2 * round_, 38), 16, 1, answer, session_id)
        assert 900 < end["usage"]["prompt_tokens"] < 1200, end["usage"]
        second = Answer(time.perf_counter())
        end = await product.ask_on(socket, "And who wrote it down?", 8, 1, second, session_id)
        assert end["usage"]["prompt_tokens"] > 900, "the history is part of the prompt"
    return second.first_s


async def second_prompt(server: Contestant, round_: int) -> float:
    turns = [Message("user", long_text(2 * round_ + 1, 38))]
    answer = Answer(time.perf_counter())
    await server.ask(turns, 16, 1, answer)
    turns += [Message("assistant", answer.text), Message("user", "And who wrote it down?")]
    second = Answer(time.perf_counter())
    await server.ask(turns, 8, 1, second)
    return second.first_s


# --- a long prompt among streams ---------------------------------------------------------------------------------------------


async def newcomer(field: Field) -> list[Line]:
    """The worst gap of four streams while a prompt of 1,500 tokens is read."""
    assert field.llama_server is not None
    own, other = [], []
    firsts: dict[str, list[float]] = {"own": [], "other": []}
    for round_ in range(field.rounds + 1):
        gap, first = await worst_gap(field.product, 2 * round_)
        own.append(gap)
        firsts["own"].append(first)
        gap, first = await worst_gap(field.llama_server, 2 * round_ + 1)
        other.append(gap)
        firsts["other"].append(first)
    own, other = own[1:], other[1:]
    how = f"{1e3 * statistics.median(own):.0f} against {1e3 * statistics.median(other):.0f} ms; its own first token "
    how += " against ".join(f"{statistics.median(values[1:]):.1f}" for values in firsts.values()) + " s"
    return [
        at_most("worst gap of 4 streams while 1,500 tokens are read, of llama-server's", 0.7, ratio(own, other), how)
    ]


async def worst_gap(contestant: Contestant, round_: int) -> tuple[float, float]:
    await contestant.prepare(5)
    answers = [Answer(time.perf_counter()) for _ in range(4)]
    tasks = [
        asyncio.create_task(contestant.ask([Message("user", story(7000 + round_ * 10 + n))], 1000, n, answer))
        for n, answer in enumerate(answers)
    ]
    while min(len(answer.came_at) for answer in answers) < 16:
        await asyncio.sleep(0.01)
    arrived = time.perf_counter()
    newcomer_answer = Answer(arrived)
    await contestant.ask([Message("user", long_text(100 + round_, 57))], 4, 4, newcomer_answer)
    until = newcomer_answer.came_at[0]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gaps = [gap for answer in answers for gap in gaps_within(answer.came_at, arrived, until)]
    if isinstance(contestant, WholeProduct):
        await contestant.close()
    await asyncio.sleep(0.5)  # until the cancelled streams are gone
    return max(gaps), newcomer_answer.first_s


def gaps_within(came_at: Sequence[float], since: float, until: float) -> list[float]:
    """Pauses that end within the time; the last one lasts until its end, if the stream was not over before."""
    times = [at for at in came_at if at <= until]
    return [b - a for a, b in itertools.pairwise(times) if b >= since]


# --- cancel ------------------------------------------------------------------------------------------------------------------


async def cancel(field: Field) -> list[Line]:
    """Time until the slot is free, with three other streams running: seen from the client for a cancel, in the metrics for
    a closed socket."""
    cancelled: list[float] = []
    late: list[int] = []
    await asyncio.gather(*(cancel_often(field.product.product, n, cancelled, late) for n in range(4)))
    async with aiohttp.ClientSession() as session:
        url = field.product.product.http_url + "/status"
        closed = [await close_socket(field.product.product, session, url, n) for n in range(CLOSES)]
    return [
        at_most("stream_cancel to its stream_end, p99", 50, 1e3 * percentile(cancelled), spread(cancelled), " ms", 1),
        at_most(
            "tokens made after a stream_cancel was sent, p99",
            2,
            percentile(late),
            f"one of the running step and one on its way; worst {max(late)} of {len(late)}",
            "",
            0,
        ),
        at_most("closed socket to a free slot, p99", 50, 1e3 * percentile(closed), spread(closed), " ms", 1),
    ]


def percentile(values: Sequence[float] | Sequence[int], share: float = 0.99) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def spread(values: Sequence[float]) -> str:
    return f"median {1e3 * statistics.median(values):.1f}, worst {1e3 * max(values):.1f} ms of {len(values)}"


async def cancel_often(product: Product, number: int, times: list[float], late: list[int]) -> None:
    async with connect(product.url, compression=None) as socket, asyncio.timeout(120):
        await socket.recv()
        for turn in range(CANCELS // 4):
            session_id = f"cancel-{number}"
            await socket.send(inference(story(turn), 500, turn, session_id))
            if not await chunks(socket, 5):
                continue  # the model had less to say
            asked = time.perf_counter()
            await socket.send(json.dumps({"type": "stream_cancel", "session_id": session_id}))
            late.append(await tokens_to_end(socket))
            times.append(time.perf_counter() - asked)


async def tokens_to_end(socket: ClientConnection) -> int:
    """Read to the answer's end; the tokens that still came."""
    tokens = 0
    async for message in socket:
        frame = json.loads(message)
        if frame["type"] == "stream_end":
            return tokens
        tokens += frame["tokens"]
    raise AssertionError("the socket closed")


async def chunks(socket: ClientConnection, count: int) -> bool:
    """Read so many chunks; False if the answer ended before."""
    async for message in socket:
        if '"stream_end"' in str(message):
            return False
        assert '"stream_chunk"' in str(message), message
        count -= 1
        if count <= 0:
            return True
    raise AssertionError("the socket closed")


async def close_socket(product: Product, session: aiohttp.ClientSession, url: str, number: int) -> float:
    sockets = [await connect(product.url, compression=None) for _ in range(4)]
    async with asyncio.timeout(30):
        for n, socket in enumerate(sockets):
            await socket.recv()
            await socket.send(inference(story(n), 500, n, f"close-{number}-{n}"))
            await chunks(socket, 3)
        before = await active_streams(session, url)
        closed = time.perf_counter()
        sockets[0].transport.abort()
        while await active_streams(session, url) >= max(before, 1):
            await asyncio.sleep(0.002)  # who asks without a pause takes a core from the model's threads
        seconds = time.perf_counter() - closed
        for socket in sockets[1:]:
            socket.transport.abort()
        while await active_streams(session, url):
            await asyncio.sleep(0.01)
    return seconds


async def active_streams(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        return int((await response.json(content_type=None))["active_streams"])


ROWS: dict[str, Callable[[Field], Awaitable[list[Line]]]] = {
    "streams": streams,
    "history": history,
    "newcomer": newcomer,
    "cancel": cancel,
    "kill": kill,
    "memory": memory,
}
