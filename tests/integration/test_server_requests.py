"""A prompt's way over a real socket: every frame of it, and that the ledger knows each token before the client does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from engine_support import Script, ScriptedEngine, counting_script, script_of
from server_support import (
    ask,
    inference,
    receive,
    receive_until,
    send,
    serving,
    text_of,
    tokens_of,
    until,
)

from fabstir_desktop.errors import (
    ContextOverflow,
    DepositExhausted,
    EngineBusy,
    JobNotValid,
    ModelUnavailable,
    RateLimited,
)
from fabstir_desktop.jobs.generation import EngineState, Piece


async def test_the_briefs_request_is_answered_in_chunks_that_add_up_to_tokens_used(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        greeting = await socket.recv()
        assert '"type":"connected"' in greeting
        frames = await ask(socket, inference(job_id=12345, session_id="user-session-001", max_tokens=57, id="a1"))
        chunks, end = frames[:-1], frames[-1]
        assert all(chunk["type"] == "stream_chunk" for chunk in chunks)
        assert all(frame["id"] == "a1" and frame["session_id"] == "user-session-001" for frame in frames)
        assert end == {
            "type": "stream_end",
            "id": "a1",
            "session_id": "user-session-001",
            "reason": "complete",
            "finish_reason": "length",
            "tokens_used": 57,
            "model": "scripted",
            "usage": {"prompt_tokens": 5, "completion_tokens": 57, "total_tokens": 62, "context_window_size": 2048},
        }
        assert tokens_of(frames) == 57 == world.accountant.totals[12345]
        assert text_of(frames) == "".join(f"w{n} " for n in range(57))
        [request] = world.engine.requests
        assert world.accountant.ids[12345] == world.engine.emitted[request.request_id]


async def test_a_token_is_in_the_ledger_before_its_frame_leaves(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.hold = asyncio.Event()
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        await send(socket, inference(job_id=1, session_id="s", max_tokens=20))
        engine.hold.set()
        seen = 0
        while seen < 20:
            frame = await receive(socket)
            seen += frame["tokens"]
            assert world.accountant.totals[1] >= seen


async def test_an_answer_without_text_still_gets_one_frame(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedEngine(script_of([]))) as world, world.connect() as socket:
        frames = await ask(socket, inference())
        assert [frame["type"] for frame in frames] == ["stream_chunk", "stream_end"]
        assert frames[0]["tokens"] == 0 == frames[1]["tokens_used"]
        assert world.accountant.totals == {}


async def test_text_that_the_engine_held_back_comes_without_tokens(tmp_path: Path) -> None:
    engine = ScriptedEngine(script_of(["a", ""], tail="é", finish_reason="stop"))
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        frames = await ask(socket, inference(job_id=7))
        assert text_of(frames) == "aé"
        assert [frame["tokens"] for frame in frames[:-1]] == [1, 1, 0]
        assert frames[-1]["tokens_used"] == 2 == world.accountant.totals[7]


async def test_sampling_reaches_the_engine_as_it_was_sent(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        fields = {"temperature": 0, "top_p": 0.5, "top_k": 3, "seed": 42, "stop": ["END"], "stream": False}
        await ask(socket, inference("Hi", **fields))
        [request] = world.engine.requests
        assert (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) == (0.0, 0.5, 3)
        assert request.sampling.seed == 42
        assert request.stop == ("END",)


@pytest.mark.parametrize("value", [0, 2**256 - 1, str(2**256 - 1), "139n", 2**53 + 1])
async def test_every_job_id_of_256_bits_is_counted_exactly(tmp_path: Path, value: int | str) -> None:
    number = int(str(value).removesuffix("n"))
    async with serving(tmp_path) as world, world.connect() as socket:
        frames = await ask(
            socket, {"type": "prompt", "prompt": "x", "max_tokens": 3, "jobId": value, "sessionId": "é1"}
        )
        assert frames[-1]["session_id"] == "é1"
        assert world.accountant.totals == {number: 3}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobNotValid("job 5 names another host"), "JOB_NOT_VALID"),
        (DepositExhausted("the deposit of job 5 is used up"), "DEPOSIT_EXHAUSTED"),
        (RateLimited("too many unproven tokens"), "RATE_LIMITED"),
    ],
)
async def test_a_job_that_is_refused_gets_one_error_and_no_token(tmp_path: Path, error: Exception, code: str) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        world.accountant.refuse[5] = error
        [frame] = await ask(socket, inference(job_id=5, session_id="s", id="x"))
        assert frame.pop("retry_after_s", None) == (10.0 if code == "RATE_LIMITED" else None)
        assert frame == {
            "type": "error",
            "id": "x",
            "session_id": "s",
            "code": code,
            "message": str(error),
            "error": str(error),
        }
        assert world.engine.requests == []
        assert (await ask(socket, inference(job_id=6, session_id="s")))[-1]["reason"] == "complete"


async def test_errors_of_the_engine_before_it_accepts_are_one_error(tmp_path: Path) -> None:
    refusals = [
        (EngineBusy("full", position=3, retry_after_s=1.5), "BUSY", {"position": 3, "retry_after_s": 1.5}),
        (ContextOverflow(9000, 2048), "TOKEN_LIMIT_EXCEEDED", {"prompt_tokens": 9000, "context_window_size": 2048}),
        (ModelUnavailable("no model is loaded"), "MODEL_UNAVAILABLE", {}),
    ]
    for refusal, code, further in refusals:
        engine = ScriptedEngine(lambda _, refusal=refusal: Script(refuse=refusal))
        async with serving(tmp_path, engine) as world, world.connect() as socket:
            [frame] = await ask(socket, inference(job_id=3))
            assert frame["code"] == code
            assert {name: frame[name] for name in further} == further
            assert world.accountant.totals == {}


async def test_no_model_is_said_and_costs_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        world.engine.set_state(EngineState.LOADING)
        [frame] = await ask(socket, inference(job_id=3))
        assert frame["code"] == "MODEL_UNAVAILABLE"
        world.engine.set_state(EngineState.READY)
        assert (await ask(socket, inference(job_id=3)))[-1]["tokens_used"] == 5


async def test_a_crash_of_the_worker_is_an_error_and_then_the_end(tmp_path: Path) -> None:
    engine = ScriptedEngine(script_of(list("abcdef"), crash_after=3))
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        await send(socket, inference(job_id=3, max_tokens=9, id=1))
        frames = await receive_until(socket, "stream_end")
        assert [frame["type"] for frame in frames] == ["stream_chunk"] * 3 + ["error", "stream_end"]
        assert frames[-2]["code"] == "WORKER_CRASHED"
        assert (frames[-1]["reason"], frames[-1]["finish_reason"], frames[-1]["tokens_used"]) == ("error", "error", 3)
        assert world.accountant.totals == {3: 3}
        engine.script = counting_script
        assert (await ask(socket, inference(job_id=3)))[-1]["reason"] == "complete"


async def test_tokens_the_ledger_did_not_take_are_not_sent(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        world.accountant.fail_after = 4
        await send(socket, inference(job_id=3, max_tokens=9))
        frames = await receive_until(socket, "stream_end")
        assert tokens_of(frames) == 4 == frames[-1]["tokens_used"] == world.accountant.totals[3]
        assert frames[-2]["code"] == "INTERNAL"


async def test_the_answer_ends_where_the_deposit_ends(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        world.accountant.allowed[3] = 4
        frames = await ask(socket, inference(job_id=3, max_tokens=100))
        assert frames[-1]["tokens_used"] == 4 == frames[-1]["allowed_tokens"]
        assert frames[-1]["finish_reason"] == "length"
        world.accountant.allowed[3] = 0
        [refusal] = await ask(socket, inference(job_id=3, max_tokens=100))
        assert refusal["code"] == "DEPOSIT_EXHAUSTED"


async def test_a_cancelled_stream_ends_at_once_and_what_came_stays_counted(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.005))
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        await send(socket, inference(job_id=3, session_id="s", max_tokens=1000, id="q"))
        await receive(socket)
        await send(socket, {"type": "stream_cancel", "session_id": "s"})
        frames = await receive_until(socket, "stream_end")
        assert (frames[-1]["reason"], frames[-1]["finish_reason"], frames[-1]["id"]) == ("cancelled", "cancelled", "q")
        assert frames[-1]["tokens_used"] == world.accountant.totals[3] < 1000
        assert ("finish", 3, "cancelled") in world.accountant.log


async def test_a_request_can_be_cancelled_while_its_job_is_being_checked(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        world.accountant.hold_admission = asyncio.Event()
        await send(socket, inference(job_id=3, session_id="s"))
        await until(lambda: world.accountant.log != [])
        await send(socket, {"type": "stream_cancel"})
        end = await receive(socket)
        assert (end["type"], end["reason"], end["tokens_used"]) == ("stream_end", "cancelled", 0)
        assert world.engine.requests == []


async def test_a_client_that_leaves_frees_its_stream_and_keeps_its_count(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.005))
    async with serving(tmp_path, engine) as world:
        async with world.connect() as socket:
            await send(socket, inference(job_id=3, session_id="s", max_tokens=2000))
            await receive(socket)
        await until(lambda: world.accountant.open_tickets == {} and engine.status.active_streams == 0)
        assert 0 < world.accountant.totals[3] < 2000
        assert len(engine.emitted[engine.requests[0].request_id]) - world.accountant.totals[3] <= 1
        await until(lambda: world.accountant.ended() == ["s"])


async def test_prompts_of_one_session_are_answered_in_the_order_they_came(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket, world.connect() as other:
        for number in range(4):
            await send(socket, inference(f"p{number}", job_id=3, session_id="s", id=number))
        await send(other, {"type": "ping"})
        ends = [(await receive_until(socket, "stream_end"))[-1]["id"] for _ in range(4)]
        assert ends == [0, 1, 2, 3]
        assert [request.messages[-1].content for request in world.engine.requests] == ["p0", "p1", "p2", "p3"]


async def test_frames_of_two_prompts_in_one_session_never_mix(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.001))
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        for number in range(3):
            await send(socket, inference(job_id=3, session_id="s", id=number, max_tokens=10))
        frames = [frame for _ in range(3) for frame in await receive_until(socket, "stream_end")]
        assert [frame["id"] for frame in frames] == [0] * 11 + [1] * 11 + [2] * 11


async def test_two_sessions_on_one_socket_stream_at_the_same_time(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.hold = asyncio.Event()
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        await send(socket, inference(job_id=3, session_id="a", id=1))
        await send(socket, inference(job_id=3, session_id="b", id=2))
        await until(lambda: engine.status.active_streams == 2)
        engine.hold.set()
        frames = await receive_until(socket, "stream_end") + await receive_until(socket, "stream_end")
        assert {frame["id"] for frame in frames if frame["type"] == "stream_end"} == {1, 2}
        assert world.accountant.totals == {3: 10}


async def test_the_same_frame_again_is_one_generation(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.hold = asyncio.Event()
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        for _ in range(100):
            await send(socket, inference(job_id=3, session_id="s", id="same"))
        await until(lambda: engine.status.active_streams == 1)
        engine.hold.set()
        frames = await receive_until(socket, "stream_end")
        await send(socket, inference(job_id=3, session_id="s", id="next"))
        frames += await receive_until(socket, "stream_end")
        assert sum(frame["type"] == "stream_end" for frame in frames) == 2
        assert len(engine.requests) == 2


async def test_eight_clients_on_three_jobs_are_all_answered_and_counted(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:

        async def one(number: int) -> int:
            async with world.connect() as socket:
                frames = await ask(socket, inference(job_id=number % 3, session_id=f"s{number}", max_tokens=50))
                return tokens_of(frames)

        counts = await asyncio.gather(*(one(number) for number in range(8)))
        assert counts == [50] * 8
        assert world.accountant.totals == {0: 150, 1: 150, 2: 100}


async def test_an_engine_that_breaks_its_promise_costs_one_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine(lambda request: Script((Piece((1,), "half a character \ud800 CANARY"),)))
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        await send(socket, inference("CANARY", job_id=3))
        frames = await receive_until(socket, "stream_end")
        assert (frames[-2]["code"], frames[-1]["reason"]) == ("INTERNAL", "error")
        engine.script = counting_script
        assert (await ask(socket, inference(job_id=4)))[-1]["tokens_used"] == 5
        assert "CANARY" not in caplog.text
