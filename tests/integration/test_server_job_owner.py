"""Whose a job is: remembered beyond sessions and restarts, told to the host, and not to be used up by strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_support import ScriptedEngine
from server_support import World, ask, inference, until
from settlement_support import make_settings, open_room

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import ProblemRaised
from fabstir_desktop.server.api_server import ApiServer

CONTRACT = "0x2ACcc60893872A499700908889B38C5420CBcFD1"
JOB = 4711


class Host(World):
    """A port before a real ledger, without a key: tokens are counted only."""

    contested: list[str]
    feed: Feed


@asynccontextmanager
async def host(data_dir: Path) -> AsyncIterator[Host]:
    more: dict[str, Any] = {
        "api_port": 0,
        "session_grace_seconds": 0.05,
        "trusted_proxies": ("127.0.0.1",),
    }
    settings = make_settings(data_dir, "http://127.0.0.1:1", 84532, CONTRACT, **more)
    async with open_room(settings) as room:
        made = Host(settings, ScriptedEngine(), None)
        made.server = ApiServer(settings, made.engine, room.settlement.tracker, made.source, room.feed)
        made.source.server = made.server
        made.contested = []
        room.feed.subscribe(ProblemRaised, lambda event: made.contested.append(event.problem.code))
        await made.engine.start()
        made.url = await made.server.start()
        try:
            yield made
        finally:
            await made.server.stop(2.0)


async def answer(made: Host, address: str, session_id: str | None, times: int = 1) -> list[str]:
    """What a client from this address is told, each time over a connection of its own."""
    fields = {} if session_id is None else {"session_id": session_id}
    told = []
    async with made.connect(additional_headers={"X-Forwarded-For": address}) as socket:
        for _ in range(times):
            frame = (await ask(socket, inference(job_id=JOB, **fields)))[-1]
            told.append(str(frame.get("code", frame.get("reason"))))
    await until(lambda: made.server.status.sessions == 0)
    return told


OWNER, STRANGER = "203.0.113.1", "198.51.100.7"


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_job_stays_with_its_first_client(tmp_path: Path, restarts: bool) -> None:
    async with host(tmp_path) as made:
        assert await answer(made, OWNER, "user-session-001") == ["complete"]
        if not restarts:
            await check_owner(made)
    if restarts:
        async with host(tmp_path) as made:
            await check_owner(made)


async def check_owner(made: Host) -> None:
    for session_id in (None, "another", "user-session-002", "user-session-001 (2)"):
        assert await answer(made, STRANGER, session_id) == ["JOB_NOT_VALID"]
    assert made.contested.count("X02") == 1, "the host is told, and told once"
    assert await answer(made, OWNER, "another of mine") == ["complete"]
    assert await answer(made, OWNER, None) == ["complete"]
    # the owner in another network, known by the session
    assert await answer(made, "192.0.2.9", "user-session-001") == ["complete"]
    assert await answer(made, "192.0.2.9", "something new") == ["JOB_NOT_VALID"]
    assert await answer(made, OWNER, "and back") == ["complete"]


async def test_one_network_of_ipv6_is_one_client(tmp_path: Path) -> None:
    async with host(tmp_path) as made:
        assert await answer(made, "2001:db8:1:2::aaaa", "s") == ["complete"]
        assert await answer(made, "2001:db8:1:2:ffff::1", "t") == ["complete"]
        assert await answer(made, "2001:db8:1:3::aaaa", "u") == ["JOB_NOT_VALID"]


async def test_strangers_do_not_use_up_the_rate_of_a_job(tmp_path: Path) -> None:
    async with host(tmp_path) as made:
        assert await answer(made, OWNER, "s") == ["complete"]
        for number in range(4):
            told = await answer(made, f"198.51.100.{number}", "x", times=40)
            assert set(told) <= {"JOB_NOT_VALID", "RATE_LIMITED"}
        assert await answer(made, OWNER, "s", times=5) == ["complete"] * 5


async def test_the_ledger_holds_no_address_of_a_client(tmp_path: Path) -> None:
    async with host(tmp_path) as made:
        assert await answer(made, OWNER, "s") == ["complete"]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "ledger" in path.name]
    assert files
    assert all(OWNER.encode() not in path.read_bytes() for path in files)
