"""The small client of the command line, against the real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engine_support import ScriptedEngine, script_of
from server_support import refused, serving, until

from fabstir_desktop.errors import EnvironmentFault, UserError
from fabstir_desktop.server.client import ChatResult, chat, socket_url


async def chatted(url: str, **changes: Any) -> ChatResult:
    fields: dict[str, Any] = {"job_id": 5, "session_id": "s", "prompt": "Hi", "max_tokens": 4, **changes}
    return await chat(url, **fields)


async def test_the_answer_comes_piece_by_piece_and_the_sums_agree(tmp_path: Path) -> None:
    heard: list[str] = []
    async with serving(tmp_path) as world:
        result = await chatted(world.url, on_text=heard.append)
        assert (result.text, heard) == ("w0 w1 w2 w3 ", ["w0 ", "w1 ", "w2 ", "w3 "])
        assert result.tokens_used == result.chunk_token_sum == 4 == world.accountant.totals[5]
        assert (result.finish_reason, result.model) == ("length", "scripted")
        assert result.frames[0]["type"] == "connected"


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("127.0.0.1:8080", "ws://127.0.0.1:8080/v1/ws"),
        ("http://host", "ws://host/v1/ws"),
        ("https://host/", "wss://host/v1/ws"),
        ("ws://host:1/v1/ws", "ws://host:1/v1/ws"),
    ],
)
def test_short_addresses_are_completed(url: str, whole: str) -> None:
    assert socket_url(url) == whole


async def test_a_refusal_is_an_error_with_the_hosts_words(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        world.accountant.refuse[5] = refused("job 5 names another host")
        with pytest.raises(UserError, match="JOB_NOT_VALID: job 5 names another host"):
            await chatted(world.url)


async def test_a_crash_in_mid_answer_is_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedEngine(script_of("abcdef", crash_after=2))) as world:
        with pytest.raises(EnvironmentFault, match="WORKER_CRASHED"):
            await chatted(world.url, max_tokens=6)


async def test_nobody_there_is_said_plainly() -> None:
    with pytest.raises(EnvironmentFault, match=r"cannot connect to 127\.0\.0\.1:1"):
        await chatted("ws://127.0.0.1:1/v1/ws")


async def test_a_host_that_goes_away_is_said_plainly(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.hold = asyncio.Event()
    async with serving(tmp_path, engine) as world:
        task = asyncio.ensure_future(chatted(world.url))
        await until(lambda: engine.status.active_streams == 1)
        for connection in list(world.server._doorkeeper.connections):
            connection.transport.abort()
        with pytest.raises(EnvironmentFault, match="before the answer was complete"):
            await task
        engine.hold.set()
