"""Random frames and random bytes against a server in its own process: it lives, nothing leaks, an honest client is served."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest
from attack_support import UPGRADE, masked, raw_socket
from server_support import ServerProcess, ask, inference, server_process, tokens_of

SEEDS: list[dict[str, object]] = [
    {"type": "inference", "request": {"model": "m", "prompt": "Hi", "max_tokens": 3, "job_id": 5, "session_id": "s"}},
    {"type": "prompt", "prompt": "Hi", "max_tokens": 2, "jobId": "7", "sessionId": "t", "id": 4, "temperature": 0.7},
    {"type": "session_init", "session_id": "u", "job_id": 2**256 - 1, "chain_id": 84532, "id": "A"},
    {"type": "stream_cancel", "session_id": "s"},
    {"type": "session_end", "session_id": "t"},
    {"type": "ping"},
    {"type": "prompt", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stop": ["x"], "seed": 1},
]
ODD_VALUES = (
    "null", "true", "-1", "1e999", "NaN", "1.5", '""', '"\\ud800"', "[]", "{}", "9" * 100, '"' + "é" * 300 + '"',
    "[" * 20 + "]" * 20, '"1n"', "0", "1e3", '"\\u0000"',
)  # fmt: skip


def odd_frame(dice: random.Random) -> bytes:
    """A frame that is nearly right: fields replaced, bytes flipped, cut or doubled."""
    text = json.dumps(dice.choice(SEEDS))
    for _ in range(dice.randrange(3)):
        at = text.find(":", dice.randrange(len(text)))
        if at > 0:
            end = min((place for place in (text.find(",", at), text.find("}", at)) if place > 0), default=len(text))
            text = text[: at + 1] + dice.choice(ODD_VALUES) + text[end:]
    data = bytearray(text.encode())
    for _ in range(dice.choice((0, 0, 1, 3))):
        data[dice.randrange(len(data))] = dice.randrange(128)
    cut = bytes(data[: dice.choice((len(data), len(data), dice.randrange(1, len(data) + 1)))])
    if dice.random() < 0.001:
        return cut  # not always UTF-8: that ends the connection, as it must
    return cut.decode("utf-8", "replace").encode()


async def flood_with_frames(server: ServerProcess, dice: random.Random, count: int) -> None:
    """Send `count` odd frames over sockets that are renewed now and then; read all that comes back."""
    left = count
    while left > 0:
        reader, writer = await raw_socket(server.port)
        drain = asyncio.ensure_future(_swallow(reader))
        for _ in range(min(left, dice.randrange(1, 2000))):
            writer.write(masked(0x81, odd_frame(dice)))
            left -= 1
            if left % 50 == 0:
                try:
                    await writer.drain()
                    await asyncio.sleep(0)
                except ConnectionError:
                    break
                if drain.done():
                    break
        writer.close()
        await drain


async def _swallow(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1 << 16):
            pass
    except ConnectionError:
        pass


async def honest(server: ServerProcess, stop: asyncio.Event) -> list[float]:
    """Ask again and again; returns how long each answer took."""
    times: list[float] = []
    async with server.connect() as socket:
        while not stop.is_set():
            began = time.perf_counter()
            frames = await ask(socket, inference(job_id=99, session_id="honest", id=len(times)))
            assert (frames[-1].get("reason"), tokens_of(frames)) == ("complete", 5)
            times.append(time.perf_counter() - began)
    return times


async def hunt(tmp_path: Path, frames: int, connections: int) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with server_process(tmp_path, session_grace_seconds=0) as server:
        stop = asyncio.Event()
        asking = asyncio.ensure_future(honest(server, stop))
        await flood_with_frames(server, dice, frames // 10)  # buffers and pools have their size now
        descriptors, memory = server.descriptors, server.memory_bytes
        await asyncio.gather(*(flood_with_frames(server, random.Random(dice.random()), frames // 4) for _ in range(4)))
        await asyncio.gather(
            *(junk_connections(server, random.Random(dice.random()), connections // 8) for _ in range(8))
        )
        stop.set()
        times = sorted(await asking)
        assert server.is_alive
        assert await server.metric("fabstir_malformed_frames_total") > frames / 3, "the frames did not get there"
        await server.until_metric("fabstir_connections", 0)
        await server.until_metric("fabstir_sessions", 0)
        await server.until_metric("fabstir_active_streams", 0)
        assert server.descriptors - descriptors <= 8
        growth = server.memory_bytes - memory
        assert growth < 20_000_000, growth
        late = times[int(len(times) * 0.95)]
        print(json.dumps({"honest": len(times), "p95_ms": round(late * 1000, 1), "growth_bytes": growth}))
        assert late < 0.5


async def junk_connections(server: ServerProcess, dice: random.Random, count: int) -> None:
    """Connections that send anything, before or after the handshake, and go."""
    for _ in range(count):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            junk = dice.randbytes(dice.choice((0, 1, 10, 200)))
            cut = UPGRADE[: dice.randrange(len(UPGRADE) + 1)]
            writer.write(dice.choice((junk, cut + junk, UPGRADE + junk, UPGRADE + masked(dice.randrange(256), junk))))
            if dice.random() < 0.5:
                await writer.drain()
                writer.transport.abort()
            else:
                writer.write_eof()
                async with asyncio.timeout(10):
                    await reader.read()
                writer.close()
        except ConnectionError:
            pass


async def test_a_hundred_thousand_odd_frames_and_ten_thousand_connections_do_no_harm(tmp_path: Path) -> None:
    await hunt(tmp_path, frames=100_000, connections=10_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_million_odd_frames_and_a_hundred_thousand_connections_do_no_harm(tmp_path: Path) -> None:
    await hunt(tmp_path, frames=1_000_000, connections=100_000)
