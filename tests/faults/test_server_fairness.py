"""One client that floods a real model behind the real port: jobs take turns, and who is turned away hears when to come back.

A wait is counted in turns, which no other work on the machine can lengthen: how many answers of others were begun between
a prompt and its own answer. The seconds are printed beside it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_support import ready_engine
from server_support import World, inference, make_settings, receive, send, until

from fabstir_desktop.jobs.generation import Accepted, Engine, GenerationEvent, GenerationRequest

TOKENS = 4
CLIENTS = 5
ROUNDS = 10
FAIR_SHARE = CLIENTS
"""In turns: one for each of the others, the flooder being one of them."""


class Turns:
    """Counts the answers that an engine has begun."""

    def __init__(self, engine: Engine) -> None:
        self.begun = 0
        self._generate = engine.generate

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Stands in for the engine's own."""
        async for event in self._generate(request):
            self.begun += isinstance(event, Accepted)
            yield event


@dataclass(frozen=True, slots=True)
class Wait:
    """From a prompt to its first token."""

    turns: int
    seconds: float


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


@pytest.fixture
def turns(world: World, monkeypatch: pytest.MonkeyPatch) -> Turns:
    counted = Turns(world.engine)
    monkeypatch.setattr(world.engine, "generate", counted.generate)
    return counted


def from_address(world: World, address: str) -> Any:
    return world.connect(additional_headers={"X-Forwarded-For": address})


async def ended(socket: Any) -> dict[str, Any]:
    """The frame that ends a request, or refuses it."""
    while True:
        frame = await receive(socket)
        if frame["type"] in {"stream_end", "error"}:
            return frame


async def honest(world: World, turns: Turns, number: int) -> list[Wait]:
    """Asks, reads, asks again. The first prompt is left out: it meets a line that was there before."""
    waits = []
    async with from_address(world, f"203.0.113.{number}") as socket:
        for round_number in range(ROUNDS + 1):
            before, began_s = turns.begun, time.perf_counter()
            await send(socket, inference("Hi", job_id=number, max_tokens=TOKENS, id=round_number))
            frame = await receive(socket)
            assert frame["type"] == "stream_chunk", frame
            waits.append(Wait(turns.begun - before - 1, time.perf_counter() - began_s))
            assert (await ended(socket))["type"] == "stream_end"
    return waits[1:]


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


def p95(waits: list[list[Wait]]) -> Wait:
    """The wait that 95 of 100 are no longer than, in turns and in seconds."""
    every = [wait for each in waits for wait in each]
    at = int(len(every) * 0.95)
    return Wait(sorted(wait.turns for wait in every)[at], sorted(wait.seconds for wait in every)[at])


async def test_beside_a_flooder_an_honest_client_waits_at_most_twice_its_fair_share(world: World, turns: Turns) -> None:
    refusals: list[dict[str, Any]] = []
    flooder = asyncio.ensure_future(flood(world, refusals))
    try:
        beside = p95(await asyncio.gather(*(honest(world, turns, number) for number in range(1, CLIENTS + 1))))
        assert not flooder.done(), "the flooder gave up"
    finally:
        flooder.cancel()
        await asyncio.wait({flooder})
    codes = Counter(refusal["code"] for refusal in refusals)
    print(json.dumps({"turns": beside.turns, "seconds": round(beside.seconds, 3), "refused": codes}))
    assert beside.turns <= 2 * FAIR_SHARE
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
        await send(long, inference("Hi", job_id=1, max_tokens=400, session_id="long"))
        await receive(long)
        for number in range(2):
            await send(eager, inference("Hi", job_id=2, session_id=f"e{number}", max_tokens=2))
        await until(lambda: world.engine.status.queued_requests == 2)
        for number in range(2):
            await send(late, inference("Hi", job_id=3, session_id=f"l{number}", max_tokens=2))
        await until(lambda: world.engine.status.queued_requests == 4)
        await send(long, {"type": "stream_cancel", "session_id": "long"})

        async def watch(socket: Any, name: str) -> None:
            for _ in range(2):
                assert (await ended(socket))["type"] == "stream_end"
                order.append(name)

        await asyncio.gather(watch(eager, "eager"), watch(late, "late"))
    assert order == ["eager", "late", "eager", "late"]
