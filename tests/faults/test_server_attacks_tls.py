"""Attacks 1 to 4 and 23 through TLS, where asyncio puts a layer with buffers and handshakes of its own before every limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from attack_support import UPGRADE, close_code, masked, pour
from limits import scaled
from server_process_support import ServerProcess, server_process
from server_support import LIMIT_S, World, ask, inference, until
from tls_support import certificate, client_hello, secure_socket, secure_websocket, world_of

from fabstir_desktop.server.limits import Limits

LONG_ANSWER = 60_000
LONG_ID = "x" * 128
UNTOLD = {"control_frames_per_s": 10**9}
"""So that nothing but the write buffer stands before a flood of pings."""


@contextlib.asynccontextmanager
async def secure_process(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[ServerProcess, ssl.SSLContext]]:
    files, context = certificate(tmp_path)
    async with server_process(tmp_path, **files, **options) as server:
        yield server, context


async def is_served(connect: Any) -> bool:
    """Whether an honest client gets its whole answer."""
    async with asyncio.timeout(scaled(20)), connect() as client:
        return bool((await ask(client, inference(job_id=1)))[-1]["reason"] == "complete")


def careless() -> ssl.SSLContext:
    """An attacker's: it takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def keeper(world: World) -> Any:
    return world.server._doorkeeper


@pytest.mark.parametrize("limits", [{}, UNTOLD], ids=["control frames", "write buffer"])
async def test_1_a_flood_of_pings_that_reads_nothing_takes_no_memory(tmp_path: Path, limits: dict[str, Any]) -> None:
    async with secure_process(tmp_path, limits=limits) as (server, context):

        async def flood() -> None:
            reader, writer = await secure_websocket(server.port, context)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            with pytest.raises(ConnectionError):
                await pour(writer)
            writer.transport.abort()

        await flood()  # what the allocator takes at first is kept
        before = server.memory_bytes
        for _ in range(3):
            await flood()
        assert server.memory_bytes - before < 5_000_000
        assert await is_served(lambda: server.connect(ssl=context))


@pytest.mark.parametrize("where", ["in the hello", "after the hello", "before the headers", "in the headers"])
async def test_2_hundreds_of_half_open_connections_leave_room_for_an_honest_client(tmp_path: Path, where: str) -> None:
    async with world_of(tmp_path, "wss", limits=Limits(open_s=6)) as (world, connect):
        context = careless()
        hello, writers = client_hello(), []
        for number in range(150):
            if "hello" in where:
                _, writer = await asyncio.open_connection("127.0.0.1", world.port)
                writer.write(hello if where == "after the hello" else hello[: 1 + number])
            else:
                _, writer = await secure_socket(world.port, context)
                writer.write(UPGRADE[: number % len(UPGRADE)] if where == "in the headers" else b"")
            writers.append(writer)
        assert await is_served(connect)
        await until(lambda: len(keeper(world).half_open) <= 64)
        await until(lambda: not keeper(world).connections, 30)
        assert keeper(world)._half_open_by_group == {}
        for writer in writers:
            writer.transport.abort()


@pytest.mark.parametrize("where", ["hello", "headers"])
async def test_2_a_handshake_that_drips_is_ended_when_its_time_is_over(tmp_path: Path, where: str) -> None:
    async with world_of(tmp_path, "wss", limits=Limits(open_s=1)) as (world, connect):
        if where == "hello":
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        else:
            reader, writer = await secure_socket(world.port, careless())
        ended = asyncio.ensure_future(reader.read())
        for one in client_hello() if where == "hello" else UPGRADE:
            if ended.done():
                break
            with contextlib.suppress(ConnectionError):
                writer.write(bytes([one]))
            await asyncio.sleep(0.05)
        assert ended.done(), "the whole of it was waited for"
        with contextlib.suppress(ConnectionError):
            await ended
        await until(lambda: not keeper(world).connections)
        assert await is_served(connect)
        writer.transport.abort()


@pytest.mark.parametrize("shape", ["fragments", "one slow frame"])
async def test_3_a_message_that_never_ends_is_ended_also_if_its_client_does_not_let_go(
    tmp_path: Path, shape: str
) -> None:
    files, context = certificate(tmp_path)
    limits = Limits(message_s=0.5, close_s=0.5)
    async with world_of(tmp_path, "ws", limits=limits, **files) as (world, _):
        reader, writer = await secure_websocket(world.port, context)
        writer.write(masked(0x01, b"{") if shape == "fragments" else masked(0x81, b"x" * 1000)[:50])
        read = bytearray()
        async with asyncio.timeout(LIMIT_S):
            while keeper(world).connections:
                with contextlib.suppress(ConnectionError):
                    writer.write(masked(0x00, b" ") if shape == "fragments" else b"x")
                with contextlib.suppress(TimeoutError):
                    read += await asyncio.wait_for(reader.read(1000), 0.05)
        assert close_code(bytes(read)) == 1008
        writer.transport.abort()
        url = f"wss://localhost:{world.port}/v1/ws"
        assert await is_served(lambda: websockets.connect(url, ssl=context, proxy=None))


async def test_4_connections_above_the_cap_are_told_so_and_the_others_live(tmp_path: Path) -> None:
    async with world_of(tmp_path, "wss", max_connections=10) as (world, connect):
        inside = [await connect() for _ in range(9)]
        honest = await connect()
        assert (await ask(honest, inference(job_id=1)))[-1]["reason"] == "complete"
        for _ in range(20):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect()
            assert refused.value.response.status_code == 503
        assert (await ask(honest, inference(job_id=1)))[-1]["reason"] == "complete"
        for connection in (*inside, honest):
            await connection.close()
        await until(lambda: world.server.connections == 0)
        assert await is_served(connect)


async def test_4_one_address_cannot_take_all_places(tmp_path: Path) -> None:
    async with world_of(tmp_path, "wss", trusted_proxies=("127.0.0.1",)) as (_, connect):

        def named(number: int, network: int = 0) -> Any:
            return connect(additional_headers={"X-Forwarded-For": f"2001:db8:0:{network:x}::{number:x}"})

        hoard = [await named(number) for number in range(16)]
        with pytest.raises(websockets.InvalidStatus):
            await named(999)
        assert await is_served(lambda: named(1, network=1))
        for connection in hoard:
            await connection.close()


async def test_4_clients_that_come_and_go_leave_no_descriptor_and_no_memory(tmp_path: Path) -> None:
    async with secure_process(tmp_path) as (server, context):

        async def churn(count: int) -> None:
            for number in range(count):
                if number % 3 == 0:
                    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writer.write(client_hello())
                elif number % 3 == 1:
                    _, writer = await secure_socket(server.port, context)
                else:
                    _, writer = await secure_websocket(server.port, context)
                writer.transport.abort()

        await asyncio.gather(*(churn(30) for _ in range(4)))
        await settled(server)
        descriptors, memory, tasks = server.descriptors, server.memory_bytes, await server.tasks()
        await asyncio.gather(*(churn(120) for _ in range(4)))
        await settled(server, descriptors)
        await server.until_tasks(tasks)
        assert server.memory_bytes - memory < 8_000_000
        assert await is_served(lambda: server.connect(ssl=context))


async def settled(server: ServerProcess, most_descriptors: int = 40) -> None:
    """Until the sockets of those who are gone are closed."""
    async with asyncio.timeout(LIMIT_S):
        while server.descriptors > most_descriptors:
            await asyncio.sleep(0.05)


async def test_23_a_reader_that_does_not_read_loses_its_stream_and_takes_no_memory(tmp_path: Path) -> None:
    """The bytes that TLS holds for the reader count too."""
    async with secure_process(tmp_path, limits={"send_s": 0.5}, session_grace_seconds=0) as (server, context):

        async def slow_readers(count: int) -> None:
            held = [slow_reader(server.port, context, number) for number in range(count)]
            async with asyncio.timeout(scaled(60)):
                while server.descriptors > idle:
                    await asyncio.sleep(0.1)
            for one in held:
                one.close()

        assert await is_served(lambda: server.connect(ssl=context))
        await settled(server)
        idle = server.descriptors
        await slow_readers(4)
        before = server.memory_bytes
        await slow_readers(4)
        assert server.memory_bytes - before < 8_000_000
        assert await is_served(lambda: server.connect(ssl=context))


def slow_reader(port: int, context: ssl.SSLContext, number: int) -> socket.socket:
    """A client that asks for a long answer and reads none of it."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    secure = context.wrap_socket(plain, server_hostname="localhost")
    session_id = f"{number}".rjust(128, "s")
    frame = inference(job_id=number, session_id=session_id, max_tokens=LONG_ANSWER, id=LONG_ID)
    secure.sendall(UPGRADE + masked(0x81, json.dumps(frame).encode()))
    return secure
