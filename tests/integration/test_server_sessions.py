"""Sessions as clients see them over real sockets: several sockets, coming back, ending, checkpoints, stopping.

Where each rule that public SDKs rely on is proven from outside: both spellings and every form of id (requests, every job id
of 256 bits); pings and unknown types ignored (here); `id` and `session_id` in every frame and one `stream_end` under every
ending (requests, and the hunts of faults/test_server_fuzz); reading while answering, prompts of a session in order, cancel
at once (requests); initialising again keeps what was said (here and unit/test_server_protocol); `message` beside `error`
and an answer to what is malformed (here); usage counted by the model's own tokens (the engine's tests); work of a lost
socket is kept, its session waits for the client to come back (here); slow readers hold nothing up (faults/test_server_attacks,
23); the acknowledgement waits for nothing (here). Not taken over: messages of 32 MB, which only pictures need; ours end at one
mebibyte (faults/test_server_conformance).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import websockets
from engine_support import Script, ScriptedEngine, counting_script
from server_support import (
    World,
    ask,
    inference,
    make_settings,
    receive,
    receive_until,
    send,
    serving,
    until,
)

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.events import ClaimChanged, RequestChanged


def slow_engine() -> ScriptedEngine:
    return ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.005))


async def test_the_sequence_of_the_public_sdk_works(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        init = {"type": "session_init", "chain_id": 84532, "session_id": "9", "jobId": "12", "user_address": "0x1"}
        await send(socket, {**init, "id": "A"})
        ack = await receive(socket)
        assert (ack["type"], ack["status"], ack["session_id"], ack["job_id"]) == (
            "session_init_ack",
            "success",
            "9",
            "12",
        )
        assert (ack["chain_id"], ack["id"]) == (84532, "A")
        request = {"model": "m", "prompt": "Hi", "max_tokens": 4, "temperature": 0.7, "stream": True}
        await send(
            socket, {"type": "prompt", "chain_id": 84532, "jobId": "12", "prompt": "Hi", "request": request, "id": "B"}
        )
        frames = await receive_until(socket, "stream_end")
        assert all((frame["id"], frame["session_id"]) == ("B", "9") for frame in frames)
        assert world.accountant.log[0] == ("admit", 12, "9")


async def test_the_acknowledgement_does_not_wait_for_chain_or_model(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        world.accountant.hold_admission = asyncio.Event()
        await send(socket, inference(job_id=1, session_id="s"))
        await until(lambda: world.accountant.log != [])
        await send(socket, {"type": "session_init", "session_id": "t", "job_id": 2})
        assert (await receive(socket))["type"] == "session_init_ack"
        world.accountant.hold_admission.set()
        await receive_until(socket, "stream_end")


async def test_pings_and_unknown_types_are_met_with_silence(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        for frame in ({"type": "ping"}, {"type": "searchRequest", "query": 5}, {"type": "auth"}):
            await send(socket, frame)
        frames = await ask(socket, inference(id="after"))
        assert all(frame["id"] == "after" for frame in frames)
        assert frames[-1]["reason"] == "complete"


async def test_a_malformed_frame_gets_an_error_and_costs_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        bad = [
            "{",
            "[]",
            '{"type":"inference","request":{"max_tokens":5},"id":"q"}',
            '{"type":"prompt","prompt":"a","temperature":NaN}',
            '{"type":"prompt","prompt":"a","max_tokens":' + "9" * 400 + "}",
            "x" * (2 << 20),
            b'{"type":"prompt","prompt":"binary"}',
        ]
        for frame in bad:
            await send(socket, frame)
            error = await receive(socket)
            assert (error["type"], error["code"]) == ("error", "INVALID_REQUEST")
            assert error["message"] == error["error"] != ""
            assert (await ask(socket, inference(job_id=4)))[-1]["tokens_used"] == 5
        assert world.accountant.totals == {4: 5 * len(bad)}


async def test_a_malformed_frame_does_not_disturb_a_running_stream(tmp_path: Path) -> None:
    async with serving(tmp_path, slow_engine()) as world, world.connect() as socket:
        await send(socket, inference(job_id=1, session_id="s", max_tokens=40, id="run"))
        await receive(socket)
        await send(socket, '{"type":"prompt","id":"bad"}')
        frames = await receive_until(socket, "stream_end")
        [error] = [frame for frame in frames if frame["type"] == "error"]
        assert error["id"] == "bad"
        assert frames[-1]["tokens_used"] == 40 == world.accountant.totals[1]


async def test_what_was_said_in_an_initialised_session_is_put_before_the_next_prompt(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        async with world.connect() as socket:
            await send(socket, {"type": "session_init", "session_id": "s", "job_id": 1})
            await ask(socket, {"type": "prompt", "prompt": "Hi", "max_tokens": 2})
        async with world.connect() as again:
            await send(again, {"type": "session_init", "session_id": "s", "job_id": 1})
            await ask(again, {"type": "prompt", "prompt": "And?", "max_tokens": 2})
        turns = [(turn.role, turn.content) for turn in world.engine.requests[-1].messages]
        assert turns == [("user", "Hi"), ("assistant", "w0 w1 "), ("user", "And?")]


async def test_kept_turns_that_do_not_fit_are_forgotten_and_sent_ones_are_not(tmp_path: Path) -> None:
    def script(request: object) -> Script:
        turns = getattr(request, "messages")  # noqa: B009
        return Script(counting_script(request).pieces, prompt_ids=tuple(range(800 * len(turns))))  # type: ignore[arg-type]

    async with serving(tmp_path, ScriptedEngine(script)) as world, world.connect() as socket:
        await send(socket, {"type": "session_init", "session_id": "s", "job_id": 1})
        for number in range(4):
            frames = await ask(socket, {"type": "prompt", "prompt": f"p{number}", "max_tokens": 2})
            assert frames[-1]["type"] == "stream_end", frames
        turns = [{"role": "user", "content": f"t{number}"} for number in range(3)]
        [error] = await ask(socket, {"type": "prompt", "messages": turns})
        assert error["code"] == "TOKEN_LIMIT_EXCEEDED"
        assert world.accountant.open_tickets == {}


async def test_a_session_is_settled_after_its_last_socket_and_the_grace_period(tmp_path: Path) -> None:
    async with serving(tmp_path, session_grace_seconds=0.3) as world:
        async with world.connect() as one:
            await ask(one, inference(job_id=1, session_id="s"))
            async with world.connect() as other:
                await ask(other, inference(job_id=1, session_id="s"))
            await ask(one, inference(job_id=1, session_id="s"))
            assert world.accountant.ended() == []
        loop = asyncio.get_running_loop()
        closed_at = loop.time()
        await until(lambda: world.accountant.ended() == ["s"])
        assert loop.time() - closed_at >= 0.25


async def test_coming_back_within_the_grace_period_settles_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, session_grace_seconds=1.0) as world:
        for _ in range(3):
            async with world.connect() as socket:
                await ask(socket, inference(job_id=1, session_id="s"))
            assert world.accountant.ended() == []
        await until(lambda: world.accountant.ended() == ["s"])
        assert world.accountant.totals == {1: 15}


async def test_without_grace_a_session_is_settled_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, session_grace_seconds=0) as world:
        async with world.connect() as socket:
            await ask(socket, inference(job_id=1, session_id="s"))
        await until(lambda: world.accountant.ended() == ["s"])


async def test_session_end_cancels_settles_and_lets_the_client_begin_anew(tmp_path: Path) -> None:
    async with serving(tmp_path, slow_engine()) as world, world.connect() as socket:
        await send(socket, inference(job_id=1, session_id="s", max_tokens=1000, id="r"))
        await send(socket, inference(job_id=1, session_id="s", max_tokens=1000, id="w"))
        await receive(socket)
        await send(socket, {"type": "session_end", "session_id": "s"})
        frames = [*await receive_until(socket, "stream_end"), *await receive_until(socket, "stream_end")]
        ends = {frame["id"]: frame for frame in frames if frame["type"] == "stream_end"}
        assert {end["reason"] for end in ends.values()} == {"cancelled"}
        assert (ends["w"]["tokens_used"], ends["r"]["tokens_used"]) == (0, world.accountant.totals[1])
        await until(lambda: world.accountant.ended() == ["s"])
        assert world.accountant.log.index(("finish", 1, "cancelled")) < world.accountant.log.index(("end_session", "s"))
        assert (await ask(socket, inference(job_id=1, session_id="s")))[-1]["reason"] == "complete"


async def test_clients_of_a_job_hear_of_its_checkpoints_once_each(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket, world.connect() as stranger:
        await ask(socket, inference(job_id=2**200, session_id="s"))
        await ask(stranger, inference(job_id=3, session_id="t"))
        for state in (ClaimState.PLANNED, ClaimState.BOUND, ClaimState.BOUND, ClaimState.INCLUDED):
            tx_hash = None if state is ClaimState.PLANNED else "0xab"
            world.feed.publish(ClaimChanged(2**200, 1, 100, state, tx_hash, ""))
        world.feed.publish(ClaimChanged(2**200, 1, 100, ClaimState.CONFIRMED, "0xab", ""))
        base = {"job_id": str(2**200), "tokens": 100, "tx_hash": "0xab"}
        assert await receive(socket) == {"type": "checkpoint_submitted", **base}
        assert await receive(socket) == {"type": "checkpoint_confirmed", **base}
        frames = await ask(stranger, inference(job_id=3, session_id="t"))
        assert {frame["type"] for frame in frames} == {"stream_chunk", "stream_end"}


async def test_requests_are_announced_on_the_feed(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        heard: list[int | None] = []
        world.feed.subscribe(RequestChanged, lambda event: heard.append(event.job_id))
        await ask(socket, inference(job_id=8))
        await until(lambda: heard == [8, 8])


async def test_while_paused_prompts_are_refused_and_running_ones_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path, slow_engine()) as world, world.connect() as socket:
        await send(socket, inference(job_id=1, session_id="s", max_tokens=60, id="run"))
        await receive(socket)
        world.server.pause()
        await send(socket, inference(job_id=1, session_id="t", id="late"))
        frames = await receive_until(socket, "stream_end", id="run")
        [error] = [frame for frame in frames if frame["type"] == "error"]
        assert (error["id"], error["code"]) == ("late", "SHUTTING_DOWN")
        assert frames[-1]["tokens_used"] == 60
        with pytest.raises(websockets.InvalidStatus) as refused:
            await world.connect()
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "30"
        world.server.resume()
        assert (await ask(socket, inference(job_id=1, session_id="t")))[-1]["reason"] == "complete"


async def test_stopping_tells_running_clients_settles_all_sessions_and_closes(tmp_path: Path) -> None:
    async with serving(tmp_path, slow_engine()) as world:
        async with world.connect() as socket, world.connect() as idle:
            await ask(idle, inference(job_id=2, session_id="idle", max_tokens=2))
            await send(socket, inference(job_id=1, session_id="s", max_tokens=1000, id="r"))
            await receive(socket)
            await world.server.stop(3.0)
            frames = await receive_until(socket, "stream_end")
            assert frames[-2]["code"] == "SHUTTING_DOWN"
            assert (frames[-1]["reason"], frames[-1]["tokens_used"]) == ("error", world.accountant.totals[1])
            assert sorted(world.accountant.ended()) == ["idle", "s"]
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        await world.server.stop(1.0)
        assert world.server.connections == 0
        with pytest.raises(OSError, match="Connect call failed"):
            await world.connect()


async def test_a_taken_port_is_said_and_can_be_tried_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as first:
        second = World(make_settings(tmp_path, api_port=first.port), ScriptedEngine(), None)
        with pytest.raises(EnvironmentFault, match=f"port {first.port} on 127.0.0.1 is taken"):
            await second.server.start()
        assert second.server.status.url is None
        assert "taken" in second.server.status.detail
        await first.server.stop(1.0)
        assert await second.server.start() == first.url
        assert second.server.status.detail == ""
        await second.server.stop(1.0)


async def test_an_address_that_is_not_ours_is_said(tmp_path: Path) -> None:
    world = World(make_settings(tmp_path, api_host="203.0.113.77"), ScriptedEngine(), None)
    with pytest.raises(EnvironmentFault, match="API_HOST"):
        await world.server.start()


async def test_the_status_counts_what_is_there(tmp_path: Path) -> None:
    engine = ScriptedEngine(parallel=1)
    engine.hold = asyncio.Event()
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        for number in range(3):
            await send(socket, inference(job_id=1, session_id=f"s{number}", id=number))
        await send(socket, inference(job_id=1, session_id="s0", id="waits"))
        await until(lambda: engine.status.queued_requests == 2 and world.server.status.queued_requests == 3)
        status = world.server.status
        assert (status.url, status.connections, status.sessions) == (world.url, 1, 3)
        assert (status.active_requests, status.queued_requests) == (1, 3)
        engine.hold.set()
        for _ in range(4):
            await receive_until(socket, "stream_end")
        await until(lambda: world.server.status.active_requests == 0)
        assert json.loads(json.dumps(world.server.status.queued_requests)) == 0
