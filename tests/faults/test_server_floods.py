"""Floods from few addresses: what they may take is bounded, whatever it is cut into, with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import websockets
from server_support import World, ask, inference, receive, send, serving, until
from tls_support import world_of
from websockets.exceptions import ConnectionClosed

from fabstir_desktop.server.limits import Limits

STRANGER = {"X-Forwarded-For": "203.0.113.7"}
MALFORMED = b"{}"


async def pour(world: World, frame: bytes, sockets: int, frames: int, for_s: float) -> float:
    """Let connections of one address send frames as one piece each, and wait; returns how long it all took."""
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(sockets):
            connection = world.connect(additional_headers=STRANGER, max_queue=None, close_timeout=0.1)
            socket = await stack.enter_async_context(connection)
            for _ in range(frames):
                socket.protocol.send_text(frame)
            socket.transport.write(b"".join(socket.protocol.data_to_send()))
            stack.callback(socket.transport.abort)
        await asyncio.sleep(for_s)
    return time.monotonic() - began


async def test_the_frame_rate_of_an_address_holds_over_all_its_connections(tmp_path: Path) -> None:
    limits = Limits()
    async with serving(tmp_path, trusted_proxies=("127.0.0.1",)) as world:
        took_s = await pour(world, MALFORMED, 16, 1000, 4.0)
        served = world.server._metrics.frames_refused
        assert served >= limits.frames_burst, "not even the burst was served"
        assert served <= limits.frames_burst + limits.frames_per_s * took_s + 16


async def test_large_frames_of_an_address_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    limits = Limits(frame_bytes_per_s=256 << 10, frame_bytes_burst=2 << 20)
    frame = json.dumps({"type": 5, "padding": "x" * (512 << 10)}).encode()
    async with serving(tmp_path, limits=limits, trusted_proxies=("127.0.0.1",)) as world:
        took_s = await pour(world, frame, 4, 8, 3.0)
        served = world.server._metrics.frames_refused
        assert served * len(frame) <= limits.frame_bytes_burst + limits.frame_bytes_per_s * took_s + 4 * len(frame)
        async with world.connect() as honest:
            assert (await ask(honest, inference()))[-1]["reason"] == "complete"


async def test_a_pouring_program_of_this_machine_leaves_the_loop_to_others(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect(max_queue=None) as local:
        for _ in range(5000):
            local.protocol.send_text(b'{"type":"ping"}')
        local.transport.write(b"".join(local.protocol.data_to_send()))
        turns = 0
        async with world.connect() as honest:
            await send(honest, inference())
            while (await receive(honest))["type"] != "stream_end":
                turns += 1
        assert turns == 5


# --- connections ------------------------------------------------------------------------------------------------------


def doorkeeper(world: World) -> Any:
    return world.server._doorkeeper


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_sockets_that_never_say_a_word_are_counted_and_cut_off(tmp_path: Path, scheme: str) -> None:
    limits = Limits(open_s=60)
    async with world_of(tmp_path, scheme, limits=limits, max_connections=16) as (world, connect):
        silent = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(600)]
        try:
            await until(lambda: len(doorkeeper(world).half_open) <= limits.half_open, 30)
            assert len(doorkeeper(world).connections) <= limits.half_open
            async with connect() as honest:
                assert (await ask(honest, inference(job_id=5)))[-1]["reason"] == "complete"
        finally:
            for _, writer in silent:
                writer.transport.abort()
        await until(lambda: not doorkeeper(world).connections)
        assert not doorkeeper(world).half_open


@pytest.mark.parametrize(
    "first", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\0" * 512]
)
async def test_a_handshake_that_is_none_leaves_nothing_behind(tmp_path: Path, first: bytes) -> None:
    async with world_of(tmp_path, "wss", limits=Limits(open_s=0.3)) as (world, connect):
        for leaves_at_once in (True, False):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(first)
            if leaves_at_once:
                writer.close()
            else:
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(reader.read(), 30)
                writer.close()
        await until(lambda: not doorkeeper(world).connections, 30)
        async with connect() as honest:
            assert (await ask(honest, inference()))[-1]["reason"] == "complete"


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_not_lost(tmp_path: Path) -> None:
    async with world_of(tmp_path, "wss") as (world, _):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context)
            writer.write(b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in await asyncio.wait_for(reader.read(), 30)
            writer.close()


async def test_who_asks_for_nothing_gives_way_when_the_host_is_crowded(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, trusted_proxies=("127.0.0.1",), max_connections=64) as world,
        world.connect(additional_headers={"X-Forwarded-For": "198.51.100.1"}) as paying,
    ):
        await ask(paying, inference(job_id=5, session_id="s"))
        for address in range(4):
            for _ in range(16 if address < 3 else 15):
                await world.connect(additional_headers={"X-Forwarded-For": f"203.0.113.{address}"}, max_queue=None)
        await until(lambda: world.server.connections <= 48, 30)
        async with world.connect(additional_headers={"X-Forwarded-For": "198.51.100.2"}) as honest:
            assert (await ask(honest, inference(job_id=6)))[-1]["reason"] == "complete"
        assert (await ask(paying, inference(job_id=5, session_id="s")))[-1]["reason"] == "complete", "it was cut off"


async def test_an_address_cannot_connect_without_end(tmp_path: Path) -> None:
    limits = Limits(connections_burst=30, connections_per_s=1)
    async with serving(tmp_path, limits=limits, trusted_proxies=("127.0.0.1",)) as world:
        began = time.monotonic()
        let_in = 0
        for _ in range(100):
            with contextlib.suppress(websockets.InvalidStatus):
                socket = await world.connect(additional_headers=STRANGER)
                let_in += 1
                await socket.close()
        assert 30 <= let_in <= 31 + limits.connections_per_s * (time.monotonic() - began)
        async with world.connect(additional_headers={"X-Forwarded-For": "203.0.113.8"}) as other:
            assert (await ask(other, inference(job_id=5)))[-1]["reason"] == "complete"


# --- memory -----------------------------------------------------------------------------------------------------------


async def test_messages_that_nobody_has_read_yet_count_as_memory(tmp_path: Path) -> None:
    limits = Limits(partial_total=32 << 20, frame_bytes_per_s=1, frame_bytes_burst=1 << 20)
    message = "x" * (3 << 20)
    async with serving(tmp_path, limits=limits, trusted_proxies=("127.0.0.1",)) as world:
        held = []
        for number in range(16):
            socket = await world.connect(additional_headers=STRANGER, max_queue=None)
            held.append(asyncio.create_task(flood(socket, message)))
            if number == 0:
                await until(lambda: bool(doorkeeper(world).watched), 30)
        await until(lambda: doorkeeper(world).refused["memory"] > 0, 60)
        await until(
            lambda: sum(one.unfinished_bytes for one in doorkeeper(world).connections) <= limits.partial_total, 30
        )
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        async with world.connect() as honest:
            assert (await ask(honest, inference()))[-1]["reason"] == "complete"


async def flood(socket: Any, message: str) -> None:
    with contextlib.suppress(ConnectionClosed):
        try:
            for _ in range(4):
                await socket.send(message)
            await socket.wait_closed()
        finally:
            socket.transport.abort()


async def test_a_message_is_not_slow_while_it_is_the_host_who_does_not_read(tmp_path: Path) -> None:
    limits = Limits(message_s=0.3, frames_burst=1, frames_per_s=4)
    frame = json.dumps({"type": "ping", "padding": "x" * 100}).encode()
    async with (
        serving(tmp_path, limits=limits, trusted_proxies=("127.0.0.1",)) as world,
        world.connect(additional_headers=STRANGER) as patient,
    ):
        for _ in range(12):  # more than are read at once: the rest waits for the rate, and the socket with it
            patient.protocol.send_text(frame)
        patient.protocol.send_text(json.dumps(inference(job_id=5)).encode())
        data = b"".join(patient.protocol.data_to_send())
        patient.transport.write(data[:-10])
        await asyncio.sleep(1.5)
        patient.transport.write(data[-10:])
        while (kept := await receive(patient))["type"] != "stream_end":
            pass
        assert kept["reason"] == "complete"
        assert doorkeeper(world).refused["slow message"] == 0
