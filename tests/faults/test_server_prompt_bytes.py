"""Attack 20: prompts that only cost the tokeniser time are refused at the port; the model's process never sees them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from engine_support import ScriptedEngine, ready_engine
from server_support import World, ask, inference, make_settings, receive, send, serving, until

PLAIN_LIMIT = 2048 * 64 + 4096


@pytest.mark.parametrize(
    "text", ["\n" * (PLAIN_LIMIT + 1), "\u4e2d" * (PLAIN_LIMIT // 3 + 1)], ids=["blanks", "letters"]
)
async def test_20_a_prompt_beyond_the_byte_limit_never_reaches_the_engine(tmp_path: Path, text: str) -> None:
    engine = ScriptedEngine()
    async with serving(tmp_path, engine) as world, world.connect() as socket:
        await send(socket, inference("x" + text, job_id=1, id="big"))
        frame = await receive(socket)
        assert (frame["type"], frame["code"], frame["id"]) == ("error", "INVALID_REQUEST", "big")
        assert f"at most {PLAIN_LIMIT} are taken" in frame["message"]
        messages = [{"role": "system", "content": text}, {"role": "user", "content": "Hi"}]
        await send(socket, {"type": "prompt", "messages": messages, "max_tokens": 5, "job_id": 1})
        assert (await receive(socket))["code"] == "INVALID_REQUEST"
        assert list(engine.requests) == []
        assert world.accountant.totals == {}
        assert (await ask(socket, inference(job_id=1)))[-1]["reason"] == "complete"


async def test_20_a_prompt_at_the_byte_limit_is_the_engines_affair(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        assert (await ask(socket, inference("\n" * (PLAIN_LIMIT - 1) + "x", job_id=1)))[-1]["reason"] == "complete"


async def test_20_what_surely_has_too_many_tokens_costs_the_models_process_nothing(tmp_path: Path) -> None:
    engine = await ready_engine(parallel=2, context_window=512)
    world = World(make_settings(tmp_path), engine, None)  # type: ignore[arg-type]
    world.url = await world.server.start()
    try:
        worker = psutil.Process(engine.status.worker_pid)
        async with world.connect() as socket:
            assert (await ask(socket, inference("Say hello.", job_id=1)))[-1]["reason"] == "complete"
            await until(lambda: engine.status.active_streams == 0)
            before = worker.cpu_times().user
            for number in range(8):
                await send(socket, inference("some words " * 90_000, job_id=1, id=number))
                frame = await receive(socket)
                assert (frame["code"], frame["id"]) == ("TOKEN_LIMIT_EXCEEDED", number)
                assert frame["context_window_size"] == 512
                assert "at least" in frame["message"]
            assert worker.cpu_times().user - before < 0.5, "a megabyte of text takes about a second to read"
            await send(socket, inference("word " * 600, job_id=1, id="read"))
            assert "at least" not in (refused := await receive(socket))["message"]
            assert (refused["code"], refused["prompt_tokens"] > 600) == ("TOKEN_LIMIT_EXCEEDED", True)
            assert (await ask(socket, inference("Say hello.", job_id=1)))[-1]["reason"] == "complete"
    finally:
        await world.server.stop(2.0)
        await engine.stop()
