"""Attacks on the port, each as its attacker would do it; beside each, an honest client is still served.

Numbers are those of the threat list. Where an attack is met elsewhere: decoder (8, 9, 10, 17, 18, 22) in
unit/test_server_decoder and test_server_fuzz_decoder; Host, Origin, headers, paths and proxies (7, 31, 32, 33, 36, 37) in
integration/test_server_http; foreign and empty jobs (11, 12, 13, 14) in integration/test_server_requests and
unit/test_server_protocol; the flooded waiting line (25) in test_server_fairness; counting and tokenizer (15, 16, 19, 20, 21)
belong to the engine and its tests.

Not met, and why: traffic analysis of the stream (30). Who sees the sizes and times of encrypted frames can guess at the topic
of an answer. Against that, frames would have to be padded and sent in batches. The protocol has no field that clients
would ignore as padding, a frame a token is what they are promised, and batches of 100 ms would be felt at every answer; none
of the known remedies is complete. Instead the port offers wss, compression (which would add to the leak) is not spoken, and
who needs more than that puts a VPN or an onion service before the host.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from engine_support import Script, ScriptedEngine, counting_script
from server_support import (
    ask,
    http_get,
    inference,
    raw_request,
    receive,
    receive_until,
    send,
    server_process,
    serving,
    tokens_of,
    until,
)

import fabstir_desktop.server
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.settings import Settings

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame with its first byte given, masked with zeros."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


async def raw_socket(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket without a library: the handshake is done, the rest is bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def is_served(place: Any, **fields: Any) -> bool:
    async with asyncio.timeout(5), place.connect() as socket:
        frames = await ask(socket, inference(job_id=1, **fields))
        return bool(frames[-1].get("reason") == "complete" and tokens_of(frames) == 5)


async def pour(writer: asyncio.StreamWriter) -> None:
    """20 MB of pings."""
    for _ in range(200):
        writer.write(masked(0x89, b"p" * 125) * 800)
        await writer.drain()


def close_code(data: bytes) -> int:
    """The code of the close frame at the end of what a server sent."""
    at = data.rfind(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big")


# --- 1 to 7: connections and bytes -------------------------------------------------------------------------------------


async def test_1_a_flood_of_pings_that_reads_nothing_is_cut_off_with_flat_memory(tmp_path: Path) -> None:
    async with server_process(tmp_path) as server:
        assert await is_served(server)
        before = server.memory_bytes
        _, writer = await raw_socket(server.port)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(ConnectionError):
            await pour(writer)
        assert loop.time() - began < 5
        assert server.memory_bytes - before < 5_000_000
        assert await server.metric('fabstir_connections_refused_total{reason="control frames"}') >= 1
        assert await is_served(server)
        writer.close()


async def test_1_pings_within_their_rate_cannot_fill_the_write_buffer(tmp_path: Path) -> None:
    limits = Limits(control_frames_per_s=10**9)
    async with serving(tmp_path, limits=limits) as world:
        reader, writer = await raw_socket(world.port)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            await pour(writer)
        assert world.server._doorkeeper.refused["write buffer"] == 1
        assert await is_served(world)
        writer.close()


async def test_2_hundreds_of_half_open_connections_leave_room_for_an_honest_client(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        writers = []
        for number in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(UPGRADE[: number % len(UPGRADE)])
            writers.append(writer)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await is_served(world)
        assert loop.time() - began < 1
        await until(lambda: len(world.server._doorkeeper.half_open) <= 64)
        await until(lambda: len(world.server._doorkeeper.connections) == 0, limit_s=9)
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("shape", ["fragments", "one slow frame"])
async def test_3_a_message_that_never_ends_is_ended(tmp_path: Path, shape: str) -> None:
    async with serving(tmp_path, limits=Limits(message_s=0.5)) as world:
        reader, writer = await raw_socket(world.port)
        writer.write(masked(0x01, b"{") if shape == "fragments" else masked(0x81, b"x" * 1000)[:50])
        task = asyncio.ensure_future(reader.read())
        while not task.done():
            writer.write(masked(0x00, b" ") if shape == "fragments" else b"x")
            await asyncio.sleep(0.05)
        assert close_code(task.result()) == 1008
        assert await is_served(world)
        writer.close()


async def test_3_more_fragments_than_any_client_needs_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        async with world.connect() as socket:
            await socket.send(json.dumps(inference(job_id=1)))
            await receive_until(socket, "stream_end")
            text = json.dumps(inference(job_id=1))
            await socket.send([text[at : at + 8] for at in range(0, len(text), 8)])  # a few dozen are fine
            assert (await receive_until(socket, "stream_end"))[-1]["reason"] == "complete"
        reader, writer = await raw_socket(world.port)
        writer.write(masked(0x01, b"{") + masked(0x00, b" ") * 100)
        assert close_code(await asyncio.wait_for(reader.read(), 5)) == 1008
        writer.close()


async def test_4_connections_above_the_cap_are_told_so_and_the_others_live(tmp_path: Path) -> None:
    async with serving(tmp_path, max_connections=40) as world:
        inside = [await world.connect() for _ in range(39)]
        honest = await world.connect()
        for _ in range(60):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await world.connect()
            assert refused.value.response.status_code == 503
        assert (await ask(honest, inference(job_id=1)))[-1]["reason"] == "complete"
        assert (await http_get(world.port, "/health"))[0] == 200
        for connection in inside:
            await connection.close()
        await until(lambda: world.server.connections == 1)
        assert await is_served(world)
        await honest.close()


async def test_4_one_address_cannot_take_all_places(tmp_path: Path) -> None:
    async with serving(tmp_path, trusted_proxies=("127.0.0.1",)) as world:

        def from_address(address: str) -> Any:
            return world.connect(additional_headers={"X-Forwarded-For": address})

        hoard = [await from_address(f"2001:db8::{number:x}") for number in range(16)]
        with pytest.raises(websockets.InvalidStatus):
            await from_address("2001:db8::ffff")  # the same /64
        async with from_address("2001:db8:0:1::1") as honest:
            assert (await ask(honest, inference(job_id=1)))[-1]["reason"] == "complete"
        for connection in hoard:
            await connection.close()


async def test_5_compression_is_not_spoken(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        async with world.connect(compression="deflate") as socket:
            assert socket.response.headers.get("Sec-WebSocket-Extensions") is None
            assert (await ask(socket, inference(job_id=1)))[-1]["reason"] == "complete"
        reader, writer = await raw_socket(world.port)
        writer.write(masked(0xC1, b"\x00" * 10))
        assert close_code(await asyncio.wait_for(reader.read(), 5)) == 1002
        writer.close()


async def test_6_messages_above_the_transports_limit_end_the_connection_before_they_are_read(tmp_path: Path) -> None:
    async with server_process(tmp_path) as server:
        assert await is_served(server)
        before = server.memory_bytes
        for _ in range(50):
            reader, writer = await raw_socket(server.port)
            writer.write(masked(0x81, b"x" * (5 << 20))[: 1 << 16])
            assert close_code(await asyncio.wait_for(reader.read(), 5)) == 1009
            writer.close()
        assert server.memory_bytes - before < 10_000_000
        assert await is_served(server)


async def test_6_unfinished_messages_of_all_together_are_bounded(tmp_path: Path) -> None:
    limits = Limits(partial_total=3 << 20, message_s=60)
    async with serving(tmp_path, limits=limits) as world:
        writers = []
        for _ in range(8):
            _, writer = await raw_socket(world.port)
            writer.write(masked(0x81, b"x" * (2 << 20))[: 1 << 20])
            writers.append(writer)
        await until(lambda: world.server._doorkeeper.refused["memory"] >= 8)
        assert await is_served(world)
        for writer in writers:
            writer.close()


# --- 23, 24: readers and leavers ---------------------------------------------------------------------------------------


async def test_23_a_reader_that_does_not_read_loses_its_stream_and_nothing_grows(tmp_path: Path) -> None:
    limits = Limits(send_s=0.5)
    async with serving(tmp_path, limits=limits) as world:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", world.port))
        slow.sendall(UPGRADE)
        slow.sendall(masked(0x81, json.dumps(inference(job_id=7, session_id="s", max_tokens=1_000_000)).encode()))
        await until(lambda: world.accountant.totals.get(7, 0) > 100)
        assert await is_served(world)
        await until(lambda: world.server._doorkeeper.refused["slow reader"] == 1)
        await until(lambda: world.engine.status.active_streams == 0)
        counted = world.accountant.totals[7]
        assert counted < 1_000_000
        assert ("finish", 7, "cancelled") in world.accountant.log
        await until(lambda: world.accountant.ended().count("s") == 1)
        assert world.accountant.totals[7] == counted
        slow.close()


async def test_24_a_thousand_clients_that_send_and_drop_leave_every_place_free(tmp_path: Path) -> None:
    async with server_process(tmp_path, delay_s=0.002, session_grace_seconds=0) as server:
        assert await is_served(server)
        descriptors, memory = server.descriptors, server.memory_bytes
        frame = masked(0x81, json.dumps(inference(job_id=5, session_id="s", max_tokens=500)).encode())

        async def churn(count: int) -> None:
            for _ in range(count):
                reader, writer = await raw_socket(server.port)
                writer.write(frame)
                await reader.read(100)
                writer.transport.abort()

        await asyncio.gather(*(churn(63) for _ in range(16)))
        await server.until_metric("fabstir_active_streams", 0)
        await server.until_metric("fabstir_connections", 0)
        await server.until_metric("fabstir_sessions", 0)
        await server.until_metric("fabstir_queued_requests", 0)
        assert server.descriptors - descriptors <= 2
        assert server.memory_bytes - memory < 15_000_000
        assert await is_served(server)


# --- 14, 26 to 29, 34, 35: requests, words and doors -------------------------------------------------------------------


async def test_14_the_same_request_from_many_sockets_runs_in_order_one_at_a_time(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.001))
    async with serving(tmp_path, engine) as world:
        sockets = [await world.connect() for _ in range(10)]
        most = 0
        for socket_ in sockets:
            await send(socket_, inference(job_id=1, session_id="shared", id="x"))
        for socket_ in sockets:
            assert (await receive_until(socket_, "stream_end"))[-1]["tokens_used"] == 5
            most = max(most, engine.status.active_streams)
        assert most <= 1
        assert world.accountant.totals == {1: 50}
        for socket_ in sockets:
            await socket_.close()


async def test_26_what_clients_send_cannot_forge_or_flood_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(tmp_path) as world:
        for evil in ("\nCHECKPOINT NEEDED for job 1 with 100 tokens!", "\x1b[2J", "\u202eabc", "\r\n"):
            async with world.connect() as socket_:
                await send(socket_, inference(job_id=1, session_id=evil))
                assert (await receive(socket_))["code"] == "INVALID_REQUEST"
                await send(socket_, {"type": evil})
                await send(socket_, inference(job_id=1, model=evil, id=evil))
                await receive_until(socket_, "stream_end")
        for _ in range(300):
            _, writer = await raw_socket(world.port)
            writer.transport.abort()
        await until(lambda: world.server.connections == 0)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("fabstir_desktop")]
    assert all(text.isprintable() and "CHECKPOINT NEEDED" not in text for text in ours)
    assert len(ours) < 50


@pytest.mark.parametrize("model", ["../../etc/passwd", "C:\\x", "\\\\host\\share", "a\0b", "x" * 5000, "ｔｉｎｙ"])
async def test_27_the_model_is_a_hint_and_never_a_path(tmp_path: Path, model: str) -> None:
    async with serving(tmp_path) as world, world.connect() as socket_:
        frames = await ask(socket_, inference(job_id=1, model=model))
        assert (frames[-1]["reason"], frames[-1]["model"]) == ("complete", "scripted")


async def test_28_prompts_are_in_no_log_and_in_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "CANARY-7f3a"
    engine = ScriptedEngine(lambda _: Script(refuse=ZeroDivisionError(f"tokenise failed: {canary}")))  # type: ignore[arg-type]
    async with serving(tmp_path, engine) as world, world.connect() as socket_:
        await send(socket_, inference(canary, job_id=1))
        frames = await receive_until(socket_, "stream_end")
        await send(socket_, '{"type":"prompt","prompt":"' + canary + '",}')
        frames.append(await receive(socket_))
        assert canary not in json.dumps(frames)
        engine.script = counting_script
        await ask(socket_, inference(canary, job_id=1))
    ours = [record for record in caplog.records if record.name.startswith("fabstir_desktop")]
    assert not any(canary in record.getMessage() or canary in (record.exc_text or "") for record in ours)


async def test_29_no_two_clients_share_a_cache(tmp_path: Path) -> None:
    async with serving(tmp_path, trusted_proxies=("127.0.0.1",)) as world:
        for address in ("203.0.113.1", "203.0.113.2"):
            async with world.connect(additional_headers={"X-Forwarded-For": address}) as socket_:
                await ask(socket_, inference(job_id=hash(address) % 1000, session_id="same"))
                await ask(socket_, inference(job_id=hash(address) % 1000))
        keys = [request.cache_key for request in world.engine.requests]
        assert len(set(keys)) == 4


def imported_modules() -> Iterator[str]:
    folder = Path(fabstir_desktop.server.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)


def test_34_the_port_speaks_inference_only(tmp_path: Path) -> None:
    forbidden = ("fabstir_desktop.wallet", "fabstir_desktop.ledger", "fabstir_desktop.settlement", "keyring", "web3")
    modules = list(imported_modules())
    assert not [name for name in modules if name.startswith(forbidden)]
    assert "fabstir_desktop.settings.save_setting" not in modules


def test_35_a_new_host_listens_on_its_own_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower() in Settings.model_fields]:
        monkeypatch.delenv(name)
    fresh = Settings(data_dir=tmp_path)
    assert (fresh.api_host, fresh.free_use, fresh.api_origins) == ("127.0.0.1", "loopback", ())


async def test_37_a_thousand_odd_requests_get_an_honest_status_or_none(tmp_path: Path) -> None:
    allowed = {b"200", b"400", b"403", b"404", b"405", b"414", b"421", b"426", b"431", b"505"}
    methods = ("GET", "POST", "get", "PRI", "A" * 300, "\x00", "GET\t")
    paths = ("/", "/health", "*", "http://evil/", "/" + "a" * 9000, "/%00", "//", "/v1/ws#x", "/é", "")
    versions = ("HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "", "HTTP/1.1 x")
    extras = (
        "",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "X: " + "y" * 9000 + "\r\n",
        "bad line\r\n",
    )
    async with serving(tmp_path) as world:
        for number in range(1000):
            method, path = methods[number % 7], paths[number // 7 % 10]
            version, extra = versions[number // 70 % 5], extras[number // 350 % 5]
            line = f"{method} {path} {version}\r\nHost: localhost\r\n{extra}\r\n".encode("utf-8", "replace")
            answer = await raw_request(world.port, line)
            assert answer == b"" or answer.split(b" ")[1] in allowed, (line[:100], answer[:100])
        assert await is_served(world)
