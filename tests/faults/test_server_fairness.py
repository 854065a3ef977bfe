"""One client that floods a real model behind the real port: jobs take turns, and who is turned away hears when to come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import ready_engine
from server_support import World, inference, make_settings, receive, send

TOKENS = 4
CLIENTS = 5
ROUNDS = 5


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """The server on the small model, one stream at a time: where there is only one, taking turns is hardest."""
    engine = await ready_engine(parallel=1)
    made = World(make_settings(tmp_path, trusted_proxies=("127.0.0.1",)), engine, None)  # type: ignore[arg-type]
    made.url = await made.server.start()
    try:
        yield made
    finally:
        await made.server.stop(2.0)
        await engine.stop()


def from_address(world: World, address: str) -> Any:
    return world.connect(additional_headers={"X-Forwarded-For": address})


async def ended(socket: Any) -> dict[str, Any]:
    """The frame that ends a request, or refuses it."""
    while True:
        frame = await receive(socket)
        if frame["type"] in {"stream_end", "error"}:
            return frame


async def honest(world: World, number: int) -> list[float]:
    """Asks, reads, asks again; seconds from each prompt to its first token."""
    waits = []
    async with from_address(world, f"203.0.113.{number}") as socket:
        for round_number in range(ROUNDS):
            began = time.perf_counter()
            await send(socket, inference("Hi", job_id=number, max_tokens=TOKENS, id=round_number))
            frame = await receive(socket)
            assert frame["type"] == "stream_chunk", frame
            waits.append(time.perf_counter() - began)
            assert (await ended(socket))["type"] == "stream_end"
    return waits


async def flood(world: World, refusals: list[dict[str, Any]]) -> None:
    """As many prompts of one job as the host lets through, from many sessions, without an end."""
    async with from_address(world, "203.0.113.200") as socket:
        for number in range(10**9):
            session_id = f"f{number % 8}"
            await send(socket, inference("Hi", job_id=200, session_id=session_id, max_tokens=TOKENS, id=number))
            while number >= 8 and (frame := await receive(socket))["type"] != "stream_end":
                if frame["type"] == "error":
                    refusals.append(frame)
                    await asyncio.sleep(0.02)
                    break


def p95(waits: list[list[float]]) -> float:
    every = sorted(wait for each in waits for wait in each[1:])  # the first meets a line that was there before
    return every[int(len(every) * 0.95)]


async def test_beside_a_flooder_an_honest_client_waits_at_most_twice_its_fair_share(world: World) -> None:
    share = p95(await asyncio.gather(*(honest(world, number) for number in range(1, CLIENTS + 2))))
    refusals: list[dict[str, Any]] = []
    flooder = asyncio.ensure_future(flood(world, refusals))
    try:
        beside = p95(await asyncio.gather(*(honest(world, number) for number in range(1, CLIENTS + 1))))
        assert not flooder.done(), "the flooder gave up"
    finally:
        flooder.cancel()
        await asyncio.wait({flooder})
    codes = Counter(refusal["code"] for refusal in refusals)
    print(json.dumps({"fair_share_s": round(share, 3), "beside_flooder_s": round(beside, 3), "refused": codes}))
    assert beside <= 2 * share
    assert set(codes) == {"BUSY", "RATE_LIMITED"}, "it was no flood"
    assert all(refusal["retry_after_s"] > 0 for refusal in refusals)


async def test_jobs_take_turns_on_the_only_stream(world: World) -> None:
    """Two clients with two prompts each wait behind a long answer: they are answered in turns, whoever came first."""
    order: list[str] = []
    async with (
        from_address(world, "203.0.113.1") as long,
        from_address(world, "203.0.113.2") as eager,
        from_address(world, "203.0.113.3") as late,
    ):
        await send(long, inference("Hi", job_id=1, max_tokens=60))
        await receive(long)
        for number in range(2):
            await send(eager, inference("Hi", job_id=2, session_id=f"e{number}", max_tokens=2))
        while world.engine.status.queued_requests < 2:
            await asyncio.sleep(0.005)
        for number in range(2):
            await send(late, inference("Hi", job_id=3, session_id=f"l{number}", max_tokens=2))
        while world.engine.status.queued_requests < 4:
            await asyncio.sleep(0.005)

        async def watch(socket: Any, name: str) -> None:
            for _ in range(2):
                assert (await ended(socket))["type"] == "stream_end"
                order.append(name)

        await asyncio.gather(watch(eager, "eager"), watch(late, "late"))
    assert order == ["eager", "late", "eager", "late"]
