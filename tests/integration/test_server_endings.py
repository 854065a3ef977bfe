"""An ending that comes from within: a model that gives nothing any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from engine_support import ScriptedEngine
from server_support import ask, inference, receive_until, send, serving, tokens_of, until

from fabstir_desktop.server.limits import Limits


@pytest.mark.parametrize("tokens_before", [0, 3])
async def test_a_model_that_gives_nothing_for_too_long_is_an_error_and_an_end(
    tmp_path: Path, tokens_before: int
) -> None:
    engine = ScriptedEngine()
    async with serving(tmp_path, engine, Limits(stall_s=0.3)) as world, world.connect() as socket:
        engine.hold = asyncio.Event()
        if tokens_before:
            engine.hold = HoldAfter(tokens_before)  # type: ignore[assignment]
        await send(socket, inference(job_id=1, session_id="s", id="r", max_tokens=50))
        frames = await receive_until(socket, "stream_end")
        assert [frame["type"] for frame in frames] == ["stream_chunk"] * tokens_before + ["error", "stream_end"]
        assert (frames[-2]["code"], frames[-2]["message"]) == ("INTERNAL", "the model gave no token for too long")
        assert (frames[-1]["reason"], frames[-1]["finish_reason"]) == ("error", "error")
        assert {frame["id"] for frame in frames} == {"r"}
        assert tokens_of(frames) == frames[-1]["tokens_used"] == world.accountant.totals.get(1, 0) == tokens_before
        await until(lambda: engine.status.active_streams == 0)
        engine.hold.set()
        assert (await ask(socket, inference(job_id=1, session_id="s")))[-1]["reason"] == "complete"


class HoldAfter:
    """An engine's `hold` that lets so many tokens through."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        self._left -= 1
        return self._is_set or self._left >= 0
