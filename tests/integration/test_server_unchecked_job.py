"""A job that cannot be checked because the chain is away: refused with the time to come back, also to whom waited behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engine_support import ScriptedEngine
from server_support import World, ask, inference
from settlement_support import make_settings, make_signer, open_room

from fabstir_desktop.server.api_server import ApiServer
from fabstir_desktop.settlement import service

CONTRACT = "0x2ACcc60893872A499700908889B38C5420CBcFD1"
KEY = "0x" + "11" * 32


@pytest.mark.parametrize("unknown_jobs", ["refuse", "wait"])
async def test_who_must_come_back_is_told_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unknown_jobs: str
) -> None:
    monkeypatch.setattr(service, "WAIT_FOR_CHAIN_S", 1.0)
    more: dict[str, Any] = {"api_port": 0, "unknown_jobs": unknown_jobs, "session_grace_seconds": 0.05}
    settings = make_settings(tmp_path, "http://127.0.0.1:1", 84532, CONTRACT, **more)
    async with open_room(settings, make_signer(KEY, 84532, CONTRACT)) as room:
        made = World(settings, ScriptedEngine(), None)
        made.server = ApiServer(settings, made.engine, room.settlement.tracker, made.source, room.feed)
        await made.engine.start()
        made.url = await made.server.start()
        try:
            async with made.connect() as first, made.connect() as second:
                answers = await asyncio.gather(
                    ask(first, inference(job_id=5, session_id="a")), ask(second, inference(job_id=5, session_id="b"))
                )
            for [error] in answers:
                assert error["code"] == "JOB_NOT_VALID"
                assert "no contact" in error["message"]
                assert error["retry_after_s"] > 0
            assert made.engine.requests == []
        finally:
            await made.server.stop(2.0)
