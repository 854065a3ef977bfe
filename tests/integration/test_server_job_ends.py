"""A job that ends, or whose deposit goes elsewhere, while its answer runs: the answer ends, and nothing unpaid goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from chain_support import World as Chain
from engine_support import Script, ScriptedEngine, counting_script
from server_support import StandingStatus, inference, make_settings, receive, receive_until, send
from server_support import World as Server
from settlement_support import Room, room_in

from fabstir_desktop.server.api_server import ApiServer

WITHIN_S = 60.0


@asynccontextmanager
async def served_by(room: Room, data_dir: Path) -> AsyncIterator[Server]:
    """The port before a real settlement; the model is slow and talks for long."""
    engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.01))
    settings = make_settings(data_dir, chain_id=room.settings.chain_id)
    server = Server(settings, engine, None)
    server.server = ApiServer(settings, engine, room.settlement.tracker, server.source, room.feed)
    server.source = StandingStatus(engine, settings)
    server.source.server = server.server
    await engine.start()
    server.url = await server.server.start()
    try:
        yield server
    finally:
        await server.server.stop(2.0)


async def to_the_end(socket: Any) -> list[dict[str, Any]]:
    async with asyncio.timeout(WITHIN_S):
        return await receive_until(socket, "stream_end")


async def test_an_answer_ends_when_its_job_was_ended_on_chain(embedded_world: Chain, tmp_path: Path) -> None:
    chain = embedded_world
    job_id = await chain.create_job(tokens=20_000)
    async with room_in(chain, tmp_path, checkpoint_threshold=10_000) as room, served_by(room, tmp_path) as server:
        await room.ready()
        async with server.connect(max_queue=None) as socket:
            await send(socket, inference(job_id=job_id, session_id="s", max_tokens=15_000, id="a"))
            await receive(socket)
            await chain.end_job(job_id)
            frames = await to_the_end(socket)
            error, end = frames[-2:]
            assert (error["type"], error["code"], error["id"]) == ("error", "JOB_NOT_VALID", "a")
            assert "ended" in error["message"]
            assert (end["reason"], end["id"]) == ("error", "a")
            sent = 1 + sum(frame["tokens"] for frame in frames[:-2] if frame["type"] == "stream_chunk")
            assert sent == end["tokens_used"] == (await room.view(job_id)).generated < 15_000
            await send(socket, inference(job_id=job_id, session_id="s"))
            assert (await receive_until(socket, "error"))[-1]["code"] == "JOB_NOT_VALID"
        assert server.engine.status.active_streams == 0


async def test_another_answer_of_a_job_that_goes_on_is_not_touched(embedded_world: Chain, tmp_path: Path) -> None:
    chain = embedded_world
    job_id = await chain.create_job(tokens=1000)
    async with room_in(chain, tmp_path, checkpoint_threshold=100) as room, served_by(room, tmp_path) as server:
        await room.ready()
        async with server.connect(max_queue=None) as socket:
            await send(socket, inference(job_id=job_id, session_id="s", max_tokens=900))
            frames = await to_the_end(socket)
            assert frames[-1]["reason"] == "complete"
            assert frames[-1]["tokens_used"] == 900


async def test_an_answer_ends_when_the_deposit_went_elsewhere(embedded_world: Chain, tmp_path: Path) -> None:
    chain = embedded_world
    job_id = await chain.create_job(tokens=4000)
    async with room_in(chain, tmp_path, checkpoint_threshold=10_000) as room, served_by(room, tmp_path) as server:
        await room.ready()
        async with server.connect(max_queue=None) as socket:
            await send(socket, inference(job_id=job_id, session_id="s", max_tokens=3500))
            await receive(socket)
            await chain.checkpoint(job_id, 3950)  # a second machine with the same key
            frames = await to_the_end(socket)
            assert frames[-2]["code"] == "DEPOSIT_EXHAUSTED"
            assert frames[-1]["tokens_used"] < 3500
