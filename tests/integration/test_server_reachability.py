"""What the host is told of its way to the outside: the self-test of the public URL, and proxies that it did not name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from engine_support import ScriptedEngine
from server_support import World, ask, inference, make_settings, serving, until

from fabstir_desktop.jobs.events import ProblemCleared, ProblemRaised
from fabstir_desktop.server.exposure import exposure_of, try_public_url


async def test_a_paused_or_full_host_is_reached_all_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path, max_connections=1) as world:
        instance = world.server._instance
        world.server.pause()
        assert await try_public_url(world.url, instance) is None
        other = await try_public_url(world.url, "another")
        assert other is not None
        assert "another program" in other.message
        world.server.resume()
        async with world.connect():
            assert await try_public_url(world.url, instance) is None


async def test_an_answer_that_is_no_fabstir_hosts_is_not_taken_for_ours(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with proxy:
        problem = await try_public_url(f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", "mine")
    assert problem is not None
    assert "status 502" in problem.message


async def test_serving_again_tries_the_public_url_again(tmp_path: Path) -> None:
    async def tries(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    outside = await asyncio.start_server(tries, "127.0.0.1", 0)
    port = outside.sockets[0].getsockname()[1]
    world = World(make_settings(tmp_path, public_url=f"ws://127.0.0.1:{port}"), ScriptedEngine(), None)
    seen: list[str] = []
    world.feed.subscribe(ProblemRaised, lambda event: seen.append(event.problem.code))
    world.feed.subscribe(ProblemCleared, lambda event: seen.append(f"{event.code} over"))
    await world.engine.start()
    await world.server.start()
    await until(lambda: seen == ["H04"])
    world.server.pause()
    world.server.resume()
    await until(lambda: seen == ["H04", "H04"])
    await world.server.stop()
    outside.close()


async def test_a_proxy_that_the_settings_do_not_name_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as world:
        raised: list[str] = []
        world.feed.subscribe(ProblemRaised, lambda event: raised.append(event.problem.code))
        for number in range(3):
            async with world.connect(additional_headers={"X-Forwarded-For": f"203.0.113.{number}"}) as socket:
                await ask(socket, inference(job_id=5 + number))
        assert raised == ["X03"]
        assert caplog.text.count("TRUSTED_PROXIES") >= 1
    async with serving(tmp_path, trusted_proxies=("127.0.0.1",)) as world:
        world.feed.subscribe(ProblemRaised, lambda event: raised.append(event.problem.code))
        async with world.connect(additional_headers={"X-Forwarded-For": "203.0.113.1"}) as socket:
            await ask(socket, inference(job_id=5))
        assert raised == ["X03"]


def test_a_proxy_does_not_encrypt_what_comes_past_it(tmp_path: Path) -> None:
    exposure = exposure_of(make_settings(tmp_path, api_host="0.0.0.0", trusted_proxies=("192.0.2.1",)))
    assert exposure.is_plaintext
    assert "not encrypted" in " ".join(exposure.sentences)
