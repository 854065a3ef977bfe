"""Random frames and random bytes against a server in its own process: it lives, nothing leaks, every answer is as it must be.

Each run rolls new dice; `FUZZ_SEED=... pytest` sends the frames of that run again.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from attack_support import UPGRADE, assert_log_is_clean, masked
from fuzz_support import Answers, CheckedSocket, dice_of, flood_with_frames, seed_of_this_run
from server_process_support import LOG_FILE, ServerProcess, server_process
from server_support import LIMIT_S, ask, inference, tokens_of

FLOODERS = 4
LINES = 8


async def honest(server: ServerProcess, stop: asyncio.Event) -> list[float]:
    """Ask again and again; returns the seconds each answer took."""
    times_s: list[float] = []
    async with server.connect() as socket:
        while not stop.is_set():
            began_s = time.perf_counter()
            frames = await ask(socket, inference(job_id=99, session_id="honest", id=len(times_s)))
            assert (frames[-1].get("reason"), tokens_of(frames)) == ("complete", 5), frames
            times_s.append(time.perf_counter() - began_s)
    return times_s


async def junk_connections(server: ServerProcess, dice: random.Random, count: int) -> None:
    """Connections that send anything, before or after the handshake, and go."""
    for _ in range(count):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            junk = dice.choice((b"\x1b[2J\xe2\x80\xae\r\n", dice.randbytes(dice.choice((0, 1, 10, 200)))))
            cut = UPGRADE[: dice.randrange(len(UPGRADE) + 1)]
            writer.write(dice.choice((junk, cut + junk, UPGRADE + junk, UPGRADE + masked(dice.randrange(256), junk))))
            if dice.random() < 0.5:
                await writer.drain()
                writer.transport.abort()
            else:
                writer.write_eof()
                async with asyncio.timeout(LIMIT_S):
                    await reader.read()
                writer.close()
        except ConnectionError:
            pass


async def is_empty(server: ServerProcess) -> None:
    """Wait until nothing of any client is left."""
    for name in ("connections", "sessions", "active_streams", "queued_requests"):
        await server.until_metric(f"fabstir_{name}", 0)


async def attack(server: ServerProcess, seed: int, frames: int, connections: int) -> None:
    """All flooders at once, then all junk at once; the first wrong answer ends it."""
    async with asyncio.TaskGroup() as group:
        for number in range(FLOODERS):
            group.create_task(flood_with_frames(server.port, seed, f"flooder {number}", frames // FLOODERS))
    async with asyncio.TaskGroup() as group:
        for number in range(LINES):
            group.create_task(junk_connections(server, dice_of(seed, "junk", number), connections // LINES))


async def hunt(tmp_path: Path, frames: int, connections: int) -> None:
    seed = seed_of_this_run()
    async with server_process(tmp_path, session_grace_seconds=0) as server:
        await flood_with_frames(server.port, seed, "warming", frames // 10)  # buffers and pools have their size now
        await is_empty(server)
        descriptors, memory, tasks = server.descriptors, server.memory_bytes, await server.tasks()
        stop = asyncio.Event()
        asking = asyncio.ensure_future(honest(server, stop))
        try:
            await attack(server, seed, frames, connections)
        finally:
            stop.set()
        times_s = sorted(await asking)
        assert await server.metric("fabstir_malformed_frames_total") > frames / 3, "the frames did not get there"
        await is_empty(server)
        growth = server.memory_bytes - memory
        late_ms = round(times_s[int(len(times_s) * 0.95)] * 1000, 1)
        print(json.dumps({"honest": len(times_s), "p95_ms": late_ms, "growth_bytes": growth}))
        await server.until_tasks(tasks)
        assert server.descriptors - descriptors <= 8
        assert growth < 20_000_000, growth
    assert_log_is_clean(tmp_path / LOG_FILE)


async def test_a_hundred_thousand_odd_frames_and_ten_thousand_connections_do_no_harm(tmp_path: Path) -> None:
    await hunt(tmp_path, frames=100_000, connections=10_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_million_odd_frames_and_a_hundred_thousand_connections_do_no_harm(tmp_path: Path) -> None:
    await hunt(tmp_path, frames=1_000_000, connections=100_000)


async def test_the_checked_socket_notices_what_is_wrong(tmp_path: Path) -> None:
    """The checker itself: an end that comes twice, an answer to nothing, a wrong sum, a frame behind the end, no answer."""
    request = json.dumps({"type": "prompt", "prompt": "Hi", "id": "a", "max_tokens": 2})
    chunk = {"type": "stream_chunk", "id": "a", "tokens": 1, "content": "x"}
    end = {"type": "stream_end", "id": "a", "tokens_used": 1, "reason": "complete"}
    wrong = {
        "after the request's end": [chunk, end, chunk],
        "nothing asked for": [chunk, end, end],
        "0 tokens came": [end],
        "no frame may cause": [{"type": "error", "id": "a", "code": "INTERNAL"}],
        "unanswered": [chunk],
    }
    async with server_process(tmp_path) as server:
        for what, frames in wrong.items():
            socket = await CheckedSocket.open(server.port)
            socket.answers.sent(request)
            with pytest.raises(AssertionError, match=what) as found:
                take(socket.answers, frames)
            assert '"prompt": "Hi"' in str(found.value), "the frames in question are shown"
            await socket.close()


def take(answers: Answers, frames: list[dict[str, Any]]) -> None:
    """As if these had come, and nothing more."""
    for frame in frames:
        answers.received(frame)
    answers.check_complete()
