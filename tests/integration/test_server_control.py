"""The control socket: commands reach the running app of a data directory, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from server_support import until

from fabstir_desktop.errors import Bug, EnvironmentFault, JobNotValid, UserError
from fabstir_desktop.server.control import (
    POINTER_FILE,
    SOCKET_FILE,
    ControlServer,
    call_running,
    call_running_now,
)


async def echo(arguments: Mapping[str, Any]) -> Any:
    return {"echo": dict(arguments)}


@asynccontextmanager
async def controlled(data_dir: Path, **handlers: Any) -> AsyncIterator[ControlServer]:
    server = ControlServer(data_dir, {"echo": echo, **handlers})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_a_command_is_answered_by_the_running_app(tmp_path: Path) -> None:
    async with controlled(tmp_path):
        answer = await call_running(tmp_path, "echo", {"job_id": str(2**256 - 1), "n": 5, "x": None}, timeout_s=5)
        assert answer == {"echo": {"job_id": str(2**256 - 1), "n": 5, "x": None}}


async def test_without_a_running_app_the_answer_is_none(tmp_path: Path) -> None:
    assert await call_running(tmp_path, "echo", {}, timeout_s=5) is None
    async with controlled(tmp_path):
        pass
    assert await call_running(tmp_path, "echo", {}, timeout_s=5) is None
    assert list(tmp_path.iterdir()) == []
    assert await call_running(tmp_path / "missing", "echo", {}, timeout_s=5) is None


def test_callers_without_a_loop_may_ask_too(tmp_path: Path) -> None:
    assert call_running_now(tmp_path, "echo", {}, timeout_s=5) is None


async def test_a_socket_left_by_a_killed_app_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / SOCKET_FILE))
    left.close()
    assert await call_running(tmp_path, "echo", {}, timeout_s=5) is None
    async with controlled(tmp_path):
        assert await call_running(tmp_path, "echo", {}, timeout_s=5) == {"echo": {}}


async def test_a_second_app_of_the_same_directory_does_not_take_the_socket(tmp_path: Path) -> None:
    async with controlled(tmp_path):
        with pytest.raises(EnvironmentFault, match="another fabstir-desktop"):
            await ControlServer(tmp_path, {}).start()
        assert await call_running(tmp_path, "echo", {}, timeout_s=5) == {"echo": {}}


async def test_a_path_too_long_for_a_socket_is_worked_around(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    async with controlled(deep):
        path = Path(json.loads((deep / POINTER_FILE).read_text())["path"])
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert await call_running(deep, "echo", {"a": 1}, timeout_s=5) == {"echo": {"a": 1}}
    assert not path.parent.exists()
    assert list(deep.iterdir()) == []


async def test_only_the_same_user_may_open_the_socket(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with controlled(tmp_path):
            assert stat.S_IMODE((tmp_path / SOCKET_FILE).stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_where_there_are_no_unix_sockets_a_port_with_a_token_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    async with controlled(tmp_path):
        assert stat.S_IMODE((tmp_path / POINTER_FILE).stat().st_mode) == 0o600
        assert await call_running(tmp_path, "echo", {"a": 1}, timeout_s=5) == {"echo": {"a": 1}}
        stored = json.loads((tmp_path / POINTER_FILE).read_text())
        (tmp_path / POINTER_FILE).write_text(json.dumps({**stored, "token": "0" * 64}))
        with pytest.raises(UserError, match="wrong token"):
            await call_running(tmp_path, "echo", {}, timeout_s=5)


async def test_errors_of_a_command_come_out_as_what_they_are(tmp_path: Path) -> None:
    async def user(_: Mapping[str, Any]) -> Any:
        raise UserError("there is no such job")

    async def refused(_: Mapping[str, Any]) -> Any:
        raise JobNotValid("job 5 is not ours")

    async def broken(_: Mapping[str, Any]) -> Any:
        raise ValueError("secret detail")

    async with controlled(tmp_path, user=user, refused=refused, broken=broken):
        with pytest.raises(UserError, match="there is no such job"):
            await call_running(tmp_path, "user", {}, timeout_s=5)
        with pytest.raises(EnvironmentFault, match="job 5 is not ours"):
            await call_running(tmp_path, "refused", {}, timeout_s=5)
        with pytest.raises(Bug, match="broken failed; see the log") as caught:
            await call_running(tmp_path, "broken", {}, timeout_s=5)
        assert "secret" not in str(caught.value)
        with pytest.raises(UserError, match="does not know"):
            await call_running(tmp_path, "nothing", {}, timeout_s=5)


async def test_a_command_that_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    async def hang(_: Mapping[str, Any]) -> Any:
        await asyncio.Event().wait()

    async with controlled(tmp_path, hang=hang):
        with pytest.raises(EnvironmentFault, match="did not answer hang"):
            await call_running(tmp_path, "hang", {}, timeout_s=0.2)
        assert await call_running(tmp_path, "echo", {}, timeout_s=5) == {"echo": {}}


async def test_two_megabytes_of_answer_come_through(tmp_path: Path) -> None:
    async def large(_: Mapping[str, Any]) -> Any:
        return ["x" * 100] * 20_000

    async with controlled(tmp_path, large=large):
        answer = await call_running(tmp_path, "large", {}, timeout_s=20)
        assert answer is not None
        assert len(answer) == 20_000


async def test_random_bytes_do_no_harm(tmp_path: Path) -> None:
    dice = random.Random(7)
    async with controlled(tmp_path) as server:
        for number in range(300):
            _, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_FILE))
            junk = dice.randbytes(dice.choice([0, 1, 30, 3000, 100_000]))
            writer.write(junk if number % 3 else b'{"command":' + junk)
            if number % 2:
                writer.write(b"\n")
            writer.close()
        await until(lambda: not server._callers)
        assert await call_running(tmp_path, "echo", {}, timeout_s=5) == {"echo": {}}
