"""Who a client is when something passes its requests on: a proxy that is trusted, one that is not, and a silent tunnel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import websockets
from server_support import World, ask, inference, make_settings, receive, send, serving
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus

from fabstir_desktop.server.access import Access

UNKNOWN = {"X-Forwarded-For": "203.0.113.1"}
PUBLIC = "wss://host.example.org"


async def chat(socket: Any, session_id: str, text: str) -> None:
    await send(socket, {"type": "session_init", "session_id": session_id})
    assert (await receive(socket))["type"] == "session_init_ack"
    await ask(socket, inference(text, session_id=session_id, job_id=None))


@pytest.mark.parametrize("address", ["203.0.113.1", "203.0.113.2"])
async def test_behind_a_forgotten_proxy_nobody_gets_into_anothers_conversation(tmp_path: Path, address: str) -> None:
    async with (
        serving(tmp_path, free_use="everyone") as world,
        world.connect(additional_headers=UNKNOWN) as first,
        world.connect(additional_headers={"X-Forwarded-For": address}) as second,
    ):
        await chat(first, "user-session-001", "my secret")
        await chat(second, "user-session-001", "hello")
        assert [message.content for message in world.engine.requests[-1].messages] == ["hello"]
        assert world.engine.requests[0].cache_key != world.engine.requests[1].cache_key
        assert world.server.status.sessions == 2


async def test_behind_a_forgotten_proxy_a_job_stays_with_its_client(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as world,
        world.connect(additional_headers=UNKNOWN) as owner,
        world.connect(additional_headers=UNKNOWN) as thief,
    ):
        await ask(owner, inference(job_id=5, session_id="s"))
        [refusal] = await ask(thief, inference(job_id=5, session_id="s"))
        assert refusal["code"] == "JOB_NOT_VALID"
        assert world.accountant.totals == {5: 5}


def through_silent_tunnel(world: World) -> Any:
    """A connection that a tunnel makes from this machine, without a word of whom it serves: only the Host is theirs."""
    url = f"ws://host.example.org:{world.port}/v1/ws"
    return websockets.connect(url, host="127.0.0.1", port=world.port, proxy=None)


def through_proxy(world: World) -> Any:
    return world.connect(additional_headers=UNKNOWN)


@pytest.mark.parametrize("connect", [through_proxy, through_silent_tunnel])
async def test_behind_a_forgotten_proxy_the_limits_of_strangers_hold(
    tmp_path: Path, connect: Callable[[World], Any]
) -> None:
    async with serving(tmp_path, public_url=PUBLIC) as world:
        sockets = [await connect(world) for _ in range(16)]
        with pytest.raises(InvalidStatus) as refused:
            await connect(world)
        assert refused.value.response.status_code == 503
        [refusal] = await ask(sockets[0], inference())
        assert refusal["code"] == "JOB_NOT_VALID", "a stranger used the host for free"
        for socket in sockets:
            await socket.close()
        async with world.connect() as own:  # this machine's own programs are not meant
            assert (await ask(own, inference()))[-1]["reason"] == "complete"


async def test_a_trusted_proxy_cannot_be_made_to_name_a_local_program(tmp_path: Path) -> None:
    async with serving(tmp_path, trusted_proxies=("127.0.0.1",)) as world:
        for forged in ("127.0.0.1", "::1", "127.0.0.1:4000", "[::1]:4000"):
            async with world.connect(additional_headers={"X-Forwarded-For": forged}) as socket:
                [refusal] = await ask(socket, inference())
                assert refusal["code"] == "JOB_NOT_VALID"


def test_only_the_named_proxies_are_believed(tmp_path: Path) -> None:
    access = Access(make_settings(tmp_path, trusted_proxies=("2001:db8::1", "198.51.100.0/24", "10.0.0.7")))
    forwarded = Headers({"X-Forwarded-For": "203.0.113.50", "Host": "127.0.0.1"})
    for proxy in ("2001:db8::1", "198.51.100.200", "10.0.0.7", "::ffff:10.0.0.7"):
        assert access.peer(proxy, forwarded).address == "203.0.113.50"
    for stranger in ("2001:db8::2", "198.51.101.1", "10.0.0.8"):  # the first one's neighbour in its /64 is no proxy
        peer = access.peer(stranger, forwarded)
        assert peer.address == stranger
        assert not peer.is_local


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.50:4711", "203.0.113.50"),
        ("[2001:db8:5::9]:4711", "2001:db8:5::9"),
        ("2001:db8:5::9", "2001:db8:5::9"),
        ("203.0.113.50, 10.0.0.7:80", "203.0.113.50"),
    ],
)
def test_ports_that_a_proxy_writes_do_not_hide_the_client(tmp_path: Path, text: str, address: str) -> None:
    access = Access(make_settings(tmp_path, trusted_proxies=("10.0.0.7",)))
    assert access.peer("10.0.0.7", Headers({"X-Forwarded-For": text, "Host": "x"})).address == address


def test_a_chain_that_cannot_be_read_gives_no_new_rights(tmp_path: Path) -> None:
    access = Access(make_settings(tmp_path, trusted_proxies=("127.0.0.1",)))
    for text in ("", "unknown", "203.0.113.1, _hidden", "1.2.3.4.5"):
        peer = access.peer("127.0.0.1", Headers({"X-Forwarded-For": text, "Host": "127.0.0.1"}))
        assert not peer.is_loopback
        assert not peer.is_local
