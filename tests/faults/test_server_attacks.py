"""Attacks on the port with connections and bytes, each as its attacker would do it; an honest client is still served.

Numbers are those of the threat list; unit/test_server_threats says where the test of each one is, or why there is none.
"""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest
import websockets
from attack_support import UPGRADE, close_code, from_address, is_served, masked, pour, raw_socket
from engine_support import ScriptedEngine
from server_process_support import ServerProcess, server_process
from server_support import LIMIT_S, ask, http_get, inference, receive_until, serving, until

from fabstir_desktop.server.limits import Limits

LONG_ANSWER = 60_000
LONG_ID = "x" * 128
"""Echoed in every frame: an answer of 60,000 tokens is then more than all buffers of a connection hold."""

# --- 1 to 7: connections and bytes -------------------------------------------------------------------------------------


async def test_1_a_flood_of_pings_that_reads_nothing_is_cut_off_with_flat_memory(tmp_path: Path) -> None:
    async with server_process(tmp_path) as server:

        async def flood() -> None:
            _, writer = await raw_socket(server.port)
            with pytest.raises(ConnectionError):
                await pour(writer)
            writer.close()

        await flood()  # what the allocator takes at first is kept
        before = server.memory_bytes
        for _ in range(3):
            await flood()
        assert server.memory_bytes - before < 5_000_000
        assert await server.metric('fabstir_connections_refused_total{reason="control frames"}') >= 4
        assert await is_served(server)


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
        assert await is_served(world)
        assert world.server._doorkeeper.half_open, "they were there all the while"
        await until(lambda: len(world.server._doorkeeper.half_open) <= 64)
        await until(lambda: len(world.server._doorkeeper.connections) == 0)
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
        assert close_code(await asyncio.wait_for(reader.read(), LIMIT_S)) == 1008
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
        hoard = [await from_address(world, f"2001:db8::{number:x}") for number in range(16)]
        with pytest.raises(websockets.InvalidStatus):
            await from_address(world, "2001:db8::ffff")  # the same /64
        async with from_address(world, "2001:db8:0:1::1") as honest:
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
        assert close_code(await asyncio.wait_for(reader.read(), LIMIT_S)) == 1002
        writer.close()


async def test_6_a_thousand_messages_above_the_transports_limit_are_ended_before_they_are_read(tmp_path: Path) -> None:
    async with server_process(tmp_path) as server:
        beginning = masked(0x81, b"x" * (5 << 20))[: 1 << 16]

        async def send_large(count: int) -> None:
            for _ in range(count):
                reader, writer = await raw_socket(server.port)
                writer.write(beginning)
                assert close_code(await asyncio.wait_for(reader.read(), LIMIT_S)) == 1009
                writer.close()

        await send_large(100)
        before = server.memory_bytes
        await asyncio.gather(*(send_large(250) for _ in range(4)))
        assert server.memory_bytes - before < 5_000_000
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
        slow.sendall(
            masked(0x81, json.dumps(inference(job_id=7, session_id="s", max_tokens=LONG_ANSWER, id=LONG_ID)).encode())
        )
        await until(lambda: world.accountant.totals.get(7, 0) > 100)
        assert await is_served(world)
        await until(lambda: world.server._doorkeeper.refused["slow reader"] == 1)
        await until(lambda: world.engine.status.active_streams == 0)
        counted = world.accountant.totals[7]
        assert counted < LONG_ANSWER
        assert ("finish", 7, "cancelled") in world.accountant.log
        await until(lambda: world.accountant.ended().count("s") == 1)
        assert world.accountant.totals[7] == counted
        slow.close()


async def slow_readers(server: ServerProcess, count: int) -> None:
    """Clients that ask for a long answer and read none of it; until the server has let all of them go."""
    dropped = 'fabstir_connections_refused_total{reason="slow reader"}'
    before = await server.metric(dropped, absent=0)
    sockets = []
    for number in range(count):
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        session_id = f"{number}".rjust(128, "s")
        frame = inference(job_id=number, session_id=session_id, max_tokens=LONG_ANSWER, id=LONG_ID)
        slow.sendall(UPGRADE + masked(0x81, json.dumps(frame).encode()))
        sockets.append(slow)
    await server.until_metric(dropped, before + count, 30)
    await server.until_metric("fabstir_active_streams", 0)
    for slow in sockets:
        slow.close()


async def test_23_many_readers_that_do_not_read_take_no_memory(tmp_path: Path) -> None:
    async with server_process(tmp_path, limits={"send_s": 0.5}, session_grace_seconds=0) as server:
        await slow_readers(server, 4)
        before = server.memory_bytes
        await slow_readers(server, 4)
        assert server.memory_bytes - before < 8_000_000
        assert await is_served(server)


async def test_24_a_client_that_drops_costs_no_further_token_and_frees_its_stream_at_once(tmp_path: Path) -> None:
    """The engine gives nothing more: what frees the stream, and the place of those that wait, is the drop alone."""
    engine = ScriptedEngine(parallel=1)
    async with serving(tmp_path, engine) as world:
        engine.hold = asyncio.Event()
        running, waiting = await raw_socket(world.port), await raw_socket(world.port)
        for number, (_, writer) in enumerate((running, waiting)):
            frame = inference(job_id=number, session_id=f"s{number}", max_tokens=100)
            writer.write(masked(0x81, json.dumps(frame).encode()))
            await until(lambda wanted=number: engine.status.active_streams + engine.status.queued_requests > wanted)  # type: ignore[misc]
        waiting[1].transport.abort()
        await until(lambda: engine.status.queued_requests == 0)
        assert engine.status.active_streams == 1
        running[1].transport.abort()
        await until(lambda: engine.status.active_streams == 0)
        assert not engine.hold.is_set()
        assert world.accountant.totals == {}
        engine.hold.set()
        assert await is_served(world)


async def test_24_a_thousand_clients_that_send_and_drop_leave_every_place_free(tmp_path: Path) -> None:
    async with server_process(tmp_path, delay_s=0.002, session_grace_seconds=0) as server:
        frame = masked(0x81, json.dumps(inference(job_id=5, session_id="s", max_tokens=500)).encode())

        async def churn(count: int) -> None:
            for _ in range(count):
                reader, writer = await raw_socket(server.port)
                writer.write(frame)
                await reader.read(100)
                writer.transport.abort()

        await asyncio.gather(*(churn(10) for _ in range(16)))
        await server.until_metric("fabstir_connections", 0)
        descriptors, memory = server.descriptors, server.memory_bytes
        await asyncio.gather(*(churn(63) for _ in range(16)))
        await server.until_metric("fabstir_active_streams", 0)
        await server.until_metric("fabstir_connections", 0)
        await server.until_metric("fabstir_sessions", 0)
        await server.until_metric("fabstir_queued_requests", 0)
        assert server.descriptors - descriptors <= 2
        assert server.memory_bytes - memory < 15_000_000
        assert await is_served(server)
