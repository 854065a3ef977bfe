"""The waiting line of the real engine, filled by one party at the port: others are served all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import ready_engine
from server_support import World, inference, make_settings, receive, send, until

LINE = 32


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    engine = await ready_engine(parallel=1)
    settings = make_settings(tmp_path, trusted_proxies=("127.0.0.1",), free_use="everyone")
    made = World(settings, engine, None)  # type: ignore[arg-type]
    made.url = await made.server.start()
    try:
        yield made
    finally:
        await made.server.stop(2.0)
        await engine.stop()


async def to_the_end(socket: Any) -> dict[str, Any]:
    while True:
        frame = await receive(socket)
        if frame["type"] in {"stream_end", "error"}:
            return frame


@pytest.mark.parametrize("jobs_each", [0, 2], ids=["free prompts", "two jobs an address"])
async def test_a_line_filled_from_ten_addresses_does_not_refuse_a_paying_client(world: World, jobs_each: int) -> None:
    flooders = []
    for address in range(10):
        socket = await world.connect(additional_headers={"X-Forwarded-For": f"203.0.113.{address}"}, max_queue=None)
        flooders.append(socket)
        for number in range(4):
            paid = {"job_id": 100 * address + number % jobs_each} if jobs_each else {}
            await send(socket, inference("Hi", session_id=f"{address}-{number}", id=number, max_tokens=200, **paid))
    await until(lambda: world.engine.status.queued_requests == LINE, 60)
    async with world.connect(additional_headers={"X-Forwarded-For": "198.51.100.1"}) as honest:
        await send(honest, inference("Hi", job_id=5, max_tokens=5))
        assert world.engine.status.queued_requests <= LINE
        refused = [await asyncio.wait_for(first_error(socket), 60) for socket in flooders[-1:]]
        assert all(error["code"] == "BUSY" and error["retry_after_s"] > 0 for error in refused)
        for socket in flooders:
            socket.transport.abort()
        assert (await to_the_end(honest))["type"] == "stream_end"


async def first_error(socket: Any) -> dict[str, Any]:
    while True:
        frame = await receive(socket)
        if frame["type"] == "error":
            return frame
