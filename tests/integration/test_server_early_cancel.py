"""A prompt and its cancellation in one TCP segment: the server reads both before the request made its first step."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from engine_support import ScriptedEngine
from server_support import MemoryAccountant, World, ask, inference, receive, send, serving, until

from fabstir_desktop.jobs.accounting import Ticket
from fabstir_desktop.server.limits import Limits

CANCELS = ({"type": "stream_cancel", "session_id": "s"}, {"type": "session_end", "session_id": "s"})


def send_together(socket: Any, *frames: dict[str, Any]) -> None:
    """Write several frames as one piece of the stream."""
    for frame in frames:
        socket.protocol.send_text(json.dumps(frame).encode())
    socket.transport.write(b"".join(socket.protocol.data_to_send()))


async def all_streams_taken(world: World, socket: Any) -> None:
    """Let every stream of the engine be busy with prompts that do not end."""
    world.engine.hold = asyncio.Event()
    for number in range(world.engine.status.parallel_streams):
        await send(socket, inference(session_id=f"busy-{number}"))
    await until(lambda: world.engine.status.active_streams == world.engine.status.parallel_streams)


@pytest.mark.parametrize("cancel", CANCELS, ids=lambda frame: str(frame["type"]))
@pytest.mark.parametrize("job_id", [None, 5])
@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_prompt_cancelled_in_the_same_segment_never_reaches_the_engine(
    tmp_path: Path, cancel: dict[str, Any], job_id: int | None, is_busy: bool
) -> None:
    async with serving(tmp_path) as world, world.connect(max_queue=None) as other, world.connect() as socket:
        if is_busy:
            await all_streams_taken(world, other)
        asked = len(world.engine.requests)
        fields = {} if job_id is None else {"job_id": job_id}
        send_together(socket, inference(session_id="s", id="q", **fields), cancel)
        end = await receive(socket)
        assert (end["type"], end["reason"], end["id"], end["tokens_used"]) == ("stream_end", "cancelled", "q", 0)
        assert len(world.engine.requests) == asked, "the engine was asked for a request that nobody wants"
        assert world.engine.status.queued_requests == 0, "it holds a place in the line"
        assert world.accountant.totals == {}
        if world.engine.hold is not None:
            world.engine.hold.set()
        assert (await ask(socket, inference(session_id="s", id="q")))[-1]["reason"] == "complete"
    assert world.accountant.open_tickets == {}


async def test_dead_prompts_do_not_fill_the_line(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ScriptedEngine(parallel=2, queue_limit=4)) as world,
        world.connect(max_queue=None) as busy,
    ):
        await all_streams_taken(world, busy)
        async with world.connect(max_queue=None) as flooder, world.connect() as honest:
            for number in range(200):
                send_together(flooder, inference(session_id="s", id=number), CANCELS[number % 2])
            ends = [await receive(flooder) for _ in range(200)]
            assert {(end["type"], end["reason"]) for end in ends} == {("stream_end", "cancelled")}
            assert sorted(end["id"] for end in ends) == list(range(200))
            await send(honest, inference(session_id="honest"))
            await until(lambda: world.engine.status.queued_requests == 1)
            assert world.engine.hold is not None
            world.engine.hold.set()
            kinds = [(await receive(honest))["type"] for _ in range(6)]
            assert kinds[-1] == "stream_end"
            assert "error" not in kinds


class AbruptAccountant(MemoryAccountant):
    """Has a ticket ready in the very turn of the loop in which the request is cancelled, and reports each step."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def admit(self, job_id: int, session_id: str, client: str, max_tokens: int) -> Ticket:
        ticket = await super().admit(job_id, session_id, client, max_tokens)
        for run in list(self.world.server._runs.values()):
            run.cancel()
        return ticket


async def test_a_ticket_of_the_turn_of_the_cancellation_is_closed_once_and_never_used(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        accountant = AbruptAccountant(world)
        world.server._answering._accountant = accountant  # type: ignore[assignment]
        frames = await ask(socket, inference(job_id=5, session_id="s"))
        assert [frame["type"] for frame in frames] == ["stream_end"]
        assert frames[0]["reason"] == "cancelled"
        assert [entry[0] for entry in accountant.log] == ["admit", "finish"]
        assert accountant.open_tickets == {}
        assert accountant.totals == {}
        assert world.engine.requests == []


class LateAccountant(MemoryAccountant):
    """Gives its ticket although it was told to stop: the answer was under way already."""

    async def admit(self, job_id: int, session_id: str, client: str, max_tokens: int) -> Ticket:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await super().admit(job_id, session_id, client, max_tokens)


async def test_a_ticket_that_comes_after_the_limit_is_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=Limits(admission_s=0.05)) as world, world.connect() as socket:
        accountant = LateAccountant()
        world.server._answering._accountant = accountant  # type: ignore[assignment]
        [error] = await ask(socket, inference(job_id=5, session_id="s"))
        assert error["code"] == "BUSY"
        assert [entry[0] for entry in accountant.log] == ["admit", "finish"]
        assert accountant.open_tickets == {}
