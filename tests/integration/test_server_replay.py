"""The same request again: answered once while it runs, wherever it comes from; afterwards it is a new one, as clients expect."""

from __future__ import annotations

import asyncio
from pathlib import Path

from engine_support import ScriptedEngine
from server_support import ask, inference, receive, receive_until, send, serving, until


async def test_a_running_request_is_not_generated_again_for_another_socket(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.hold = asyncio.Event()
    frame = inference(job_id=5, session_id="s", id="q", max_tokens=5)
    async with serving(tmp_path, engine) as world, world.connect() as first, world.connect() as second:
        await send(first, frame)
        await until(lambda: engine.status.active_streams == 1)
        await send(first, frame)  # the same socket: its answer comes, once
        await send(second, frame)
        refusal = await receive(second)
        assert (refusal["type"], refusal["code"], refusal["id"]) == ("error", "INVALID_REQUEST", "q")
        engine.hold.set()
        frames = await receive_until(first, "stream_end")
        assert [kept["type"] for kept in frames] == ["stream_chunk"] * 5 + ["stream_end"]
        assert world.accountant.totals == {5: 5}
        assert (await ask(second, frame))[-1]["reason"] == "complete"  # it has ended: asked again, it is a new one
        assert world.accountant.totals == {5: 10}


async def test_another_prompt_of_the_same_id_waits_for_its_turn(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.hold = asyncio.Event()
    async with serving(tmp_path, engine) as world, world.connect() as first, world.connect() as second:
        await send(first, inference("one", session_id="s", id=1))
        await until(lambda: engine.status.active_streams == 1)
        await send(second, inference("two", session_id="s", id=1))
        engine.hold.set()
        for socket in (first, second):
            assert (await receive_until(socket, "stream_end"))[-1]["reason"] == "complete"
        assert len(world.engine.requests) == 2


async def test_the_error_of_a_broken_frame_names_the_session_of_its_socket(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        await send(socket, {"type": "prompt", "prompt": 5, "id": "a"})
        assert "session_id" not in await receive(socket)
        await send(socket, {"type": "session_init", "session_id": "s"})
        await receive(socket)
        await send(socket, {"type": "prompt", "prompt": 5, "id": "b"})
        error = await receive(socket)
        assert (error["code"], error["id"], error["session_id"]) == ("INVALID_REQUEST", "b", "s")
        await send(socket, {"type": "prompt", "prompt": 5, "session_id": "other"})
        assert (await receive(socket))["session_id"] == "other"
