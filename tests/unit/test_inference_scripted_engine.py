"""The scripted engine keeps the promises of the Engine protocol that other rooms' tests lean on."""

from __future__ import annotations

import pytest
from engine_support import Script, ScriptedEngine, script_of, small_model_path

from fabstir_desktop.errors import WorkerCrashed
from fabstir_desktop.jobs.generation import (
    Accepted,
    Engine,
    Finished,
    GenerationRequest,
    Message,
    Piece,
    SamplingParameters,
)


def request(request_id: str = "r", max_tokens: int = 5) -> GenerationRequest:
    return GenerationRequest(request_id, (Message("user", "hi"),), max_tokens, SamplingParameters(seed=3))


async def test_a_request_is_accepted_streamed_and_finished() -> None:
    engine: Engine = ScriptedEngine(script_of(["a", "b"]))
    await engine.start()
    events = [event async for event in engine.generate(request())]
    assert isinstance(events[0], Accepted)
    assert events[0].seed == 3
    assert [event.text for event in events if isinstance(event, Piece)] == ["a", "b"]
    assert events[-1] == Finished("stop")
    assert engine.status.active_streams == 0


async def test_a_cancelled_request_ends_with_cancelled() -> None:
    engine = ScriptedEngine()
    await engine.start()
    seen = []
    async for event in engine.generate(request(max_tokens=50)):
        seen.append(event)
        if isinstance(event, Piece):
            engine.cancel("r")
    assert seen[-1] == Finished("cancelled")
    assert len(seen) == 3
    assert engine.closed == ["r"]


async def test_a_scripted_crash_keeps_what_was_delivered() -> None:
    engine = ScriptedEngine(lambda _: Script((Piece((1,), "x"), Piece((2,), "y")), crash_after=1))
    await engine.start()
    stream = engine.generate(request())
    assert isinstance(await anext(stream), Accepted)
    assert await anext(stream) == Piece((1,), "x")
    with pytest.raises(WorkerCrashed):
        await anext(stream)
    assert engine.emitted == {"r": [1]}


def test_the_small_model_is_there() -> None:
    assert small_model_path().stat().st_size > 50_000_000
