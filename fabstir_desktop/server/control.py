"""The control socket: how commands and second starts talk to the running app of a data directory.

One JSON line asks, one answers. It is a Unix socket that only the same user can open; on Windows a loopback port with a
token in a file only the same user can read. It carries no key and no prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fabstir_desktop import errors
from fabstir_desktop.errors import ControlTaken, EnvironmentFault, FabstirError, UserError

log = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]

SOCKET_FILE: Final = "control.sock"
POINTER_FILE: Final = "control.json"
"""Where the socket is, if it cannot be in the data directory (path too long, Windows)."""
_MAX_SOCKET_PATH: Final = 100
_MAX_REQUEST_BYTES: Final = 64 * 1024
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_MAX_CALLERS: Final = 16
_REQUEST_LIMIT_S: Final = 5.0
_HANDLER_LIMIT_S: Final = 300.0
_CONNECT_LIMIT_S: Final = 3.0
_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the socket is: a path, or a loopback port with its token."""

    path: str | None = None
    port: int | None = None
    token: str = ""


class ControlServer:
    """Answers commands by handlers: each takes the call's arguments and returns what JSON can hold."""

    def __init__(self, data_dir: Path, handlers: Mapping[str, Handler]) -> None:
        self._data_dir = data_dir
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._place: _Place | None = None
        self._folder: str | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the socket. Raises EnvironmentFault if another app of this data directory answers, or it cannot be made."""
        if await asyncio.to_thread(_is_answered, self._data_dir):
            raise ControlTaken(f"another fabstir-desktop runs with {self._data_dir}")
        try:
            self._server, self._place = await (self._start_port() if sys.platform == "win32" else self._start_path())
        except OSError as error:
            raise EnvironmentFault(
                f"the control socket cannot be made in {self._data_dir}: {error.strerror}"
            ) from error

    async def stop(self) -> None:
        """Close it and remove its file; commands that run are given up. Safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._callers:
            task.cancel()
        if self._callers:
            await asyncio.wait(set(self._callers), timeout=1.0)
        for name in (SOCKET_FILE, POINTER_FILE):
            with contextlib.suppress(OSError):
                (self._data_dir / name).unlink()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, SOCKET_FILE))
                os.rmdir(self._folder)

    async def _start_path(self) -> tuple[asyncio.Server, _Place]:
        path = str(self._data_dir / SOCKET_FILE)
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            self._folder = tempfile.mkdtemp(prefix="fabstir-")  # 0700
            path = os.path.join(self._folder, SOCKET_FILE)
            _write_private(self._data_dir / POINTER_FILE, {"path": path})
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            os.chmod(path, _PRIVATE)  # before it listens: nobody can have connected yet
            listener.setblocking(False)
            server = await asyncio.start_unix_server(self._take_call, sock=listener, limit=_MAX_REQUEST_BYTES)
        except BaseException:
            listener.close()
            raise
        return server, _Place(path=path)

    async def _start_port(self) -> tuple[asyncio.Server, _Place]:
        server = await asyncio.start_server(self._take_call, "127.0.0.1", 0, limit=_MAX_REQUEST_BYTES)
        place = _Place(port=int(server.sockets[0].getsockname()[1]), token=secrets.token_hex(32))
        _write_private(self._data_dir / POINTER_FILE, {"port": place.port, "token": place.token})
        return server, place

    async def _take_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._callers) >= _MAX_CALLERS:
            writer.close()
            return
        self._callers.add(task)
        try:
            line = await asyncio.wait_for(reader.readline(), _REQUEST_LIMIT_S)
            answer = await self._answer(line)
            writer.write(json.dumps(answer, default=str).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), _REQUEST_LIMIT_S)
        except (OSError, ValueError, TimeoutError):
            pass  # the caller went, or sent no line: nothing to answer
        finally:
            self._callers.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        command = "the command"
        try:
            command, arguments = self._read_call(line)
            return {"ok": True, "result": await asyncio.wait_for(self._handlers[command](arguments), _HANDLER_LIMIT_S)}
        except TimeoutError:
            return _failure(EnvironmentFault(f"{command} took too long"))
        except FabstirError as error:
            return _failure(error)
        except Exception:
            log.exception("the command %s failed", command)
            return _failure(errors.Bug(f"{command} failed; see the log"))

    def _read_call(self, line: bytes) -> tuple[str, dict[str, Any]]:
        """Command and arguments. Raises UserError for a call that is not one of ours."""
        try:
            call = json.loads(line)
            command, arguments, token = call["command"], call.get("arguments") or {}, call.get("token", "")
            is_known = command in self._handlers
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError("the call cannot be read") from None
        if self._place is None or not isinstance(token, str) or not isinstance(arguments, dict):
            raise UserError("the call cannot be read")
        if not hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._place.token.encode()):
            raise UserError("the call has a wrong token")
        if not is_known:
            raise UserError("the running app does not know this command")
        return command, arguments


async def call_running(data_dir: Path, command: str, arguments: Mapping[str, Any], timeout_s: float) -> Any | None:
    """Ask the running app of a data directory; None if none runs.

    Raises the FabstirError the command raised there, EnvironmentFault if it does not answer within `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _call(data_dir, command, arguments)
    except TimeoutError:
        raise EnvironmentFault(f"the running app did not answer {command} within {timeout_s:g} s") from None


def call_running_now(data_dir: Path, command: str, arguments: Mapping[str, Any], timeout_s: float) -> Any | None:
    """`call_running` for callers without a loop."""
    return asyncio.run(call_running(data_dir, command, arguments, timeout_s))


async def _call(data_dir: Path, command: str, arguments: Mapping[str, Any]) -> Any | None:
    place = _read_place(data_dir)
    if place is None:
        return None
    try:
        if place.path is not None:
            reader, writer = await asyncio.open_unix_connection(place.path, limit=_MAX_ANSWER_BYTES)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port, limit=_MAX_ANSWER_BYTES)
    except OSError:
        return None  # a file left by an app that was killed
    try:
        call = {"command": command, "arguments": dict(arguments), "token": place.token}
        writer.write(json.dumps(call, default=str).encode() + b"\n")
        await writer.drain()
        answer = json.loads(await reader.readline())
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"the running app broke off {command}") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return _result(answer, command)


def _result(answer: Any, command: str) -> Any:
    if isinstance(answer, dict) and answer.get("ok") is True:
        return answer.get("result")
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), str):
        raise EnvironmentFault(f"the running app gave no usable answer to {command}")
    kind = getattr(errors, str(answer.get("kind")), None)
    kinds = (UserError, EnvironmentFault, errors.Bug)
    base = next((base for base in kinds if isinstance(kind, type) and issubclass(kind, base)), EnvironmentFault)
    raise base(answer["error"])


def _failure(error: FabstirError) -> dict[str, Any]:
    return {"ok": False, "kind": type(error).__name__, "error": str(error)}


def _read_place(data_dir: Path) -> _Place | None:
    path = data_dir / SOCKET_FILE
    if sys.platform != "win32" and path.is_socket():
        return _Place(path=str(path))
    try:
        stored = json.loads((data_dir / POINTER_FILE).read_text(encoding="utf-8"))
        if isinstance(stored.get("path"), str):
            return _Place(path=stored["path"])
        return _Place(port=int(stored["port"]), token=str(stored["token"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_answered(data_dir: Path) -> bool:
    """Whether something listens where an app of this data directory would. Blocks for at most `_CONNECT_LIMIT_S`."""
    place = _read_place(data_dir)
    if place is None:
        return False
    family = socket.AF_UNIX if place.path is not None else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_LIMIT_S)
        try:
            probe.connect(place.path if place.path is not None else ("127.0.0.1", place.port))
        except OSError:
            return False
    return place.path is not None  # a port may be another program's by now


def _write_private(path: Path, content: Mapping[str, Any]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
