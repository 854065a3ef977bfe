"""The server in the loop of the tray app: the same sockets, pages and control socket on qasync."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import qasync
from engine_support import Script, ScriptedEngine, counting_script
from server_support import ask, http_get, inference, receive, receive_until, send, serving, tokens_of, until

from fabstir_desktop.server.control import ControlServer, call_running

os.environ["QT_QPA_PLATFORM"] = "offscreen"


@pytest.fixture
def qt_loop(qapp: object) -> Iterator[qasync.QEventLoop]:
    loop = qasync.QEventLoop(qapp)
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


def test_eight_streams_are_served_in_qts_loop(qt_loop: qasync.QEventLoop, tmp_path: Path) -> None:
    async def serve() -> None:
        async with serving(tmp_path) as world:

            async def one(number: int) -> int:
                async with world.connect() as socket:
                    return tokens_of(await ask(socket, inference(job_id=number % 3, max_tokens=200)))

            assert await asyncio.gather(*(one(number) for number in range(8))) == [200] * 8
            assert sum(world.accountant.totals.values()) == 1600
            assert (await http_get(world.port, "/health"))[0] == 200

    qt_loop.run_until_complete(asyncio.wait_for(serve(), 60))


def test_cancelling_and_stopping_work_in_qts_loop(qt_loop: qasync.QEventLoop, tmp_path: Path) -> None:
    async def serve() -> None:
        engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.005))
        async with serving(tmp_path, engine) as world, world.connect() as socket:
            await send(socket, inference(job_id=1, session_id="s", max_tokens=2000))
            await receive(socket)
            await send(socket, {"type": "stream_cancel", "session_id": "s"})
            assert (await receive_until(socket, "stream_end"))[-1]["reason"] == "cancelled"
            await send(socket, inference(job_id=1, session_id="s", max_tokens=2000))
            await receive(socket)
            await world.server.stop(2.0)
            assert (await receive_until(socket, "stream_end"))[-1]["reason"] == "error"
            await until(lambda: world.accountant.ended() == ["s"])

    qt_loop.run_until_complete(asyncio.wait_for(serve(), 60))


def test_the_control_socket_answers_in_qts_loop(qt_loop: qasync.QEventLoop, tmp_path: Path) -> None:
    async def serve() -> None:
        async def raise_window(_: object) -> bool:
            return True

        server = ControlServer(tmp_path, {"raise_window": raise_window})
        await server.start()
        try:
            assert await call_running(tmp_path, "raise_window", {}, timeout_s=10) is True
        finally:
            await server.stop()

    qt_loop.run_until_complete(asyncio.wait_for(serve(), 60))
