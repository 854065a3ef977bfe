"""A small client of our own server: for `chat`, for the demo's sample prompt, and as an example for client authors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from fabstir_desktop.errors import EnvironmentFault, UserError
from fabstir_desktop.server.quiet import quiet_logger

_OPEN_LIMIT_S: Final = 10.0
_FRAME_LIMIT_S: Final = 300.0
"""The first token of a long prompt on a slow machine takes minutes."""
_USER_CODES: Final = frozenset(
    {"INVALID_REQUEST", "JOB_NOT_VALID", "DEPOSIT_EXHAUSTED", "TOKEN_LIMIT_EXCEEDED", "RATE_LIMITED"}
)


@dataclass(slots=True)
class ChatResult:
    """What came back for one prompt. `chunk_token_sum` is the client's own count, `tokens_used` the host's."""

    text: str = ""
    tokens_used: int = 0
    chunk_token_sum: int = 0
    finish_reason: str = ""
    model: str = ""
    frames: list[dict[str, Any]] = field(default_factory=list)


async def chat(
    url: str,
    *,
    job_id: int | None,
    session_id: str,
    prompt: str,
    max_tokens: int,
    seed: int | None = None,
    on_text: Callable[[str], None] | None = None,
) -> ChatResult:
    """Send one prompt and read the answer to its end; `on_text` is given each piece as it comes.

    Raises UserError if the host refuses the prompt, EnvironmentFault if it cannot be reached or breaks off.
    """
    request: dict[str, Any] = {"prompt": prompt, "max_tokens": max_tokens, "session_id": session_id}
    if job_id is not None:
        request["job_id"] = str(job_id)
    if seed is not None:
        request["seed"] = seed
    try:
        # no proxy: the host is this machine or one that was named
        async with connect(
            socket_url(url), proxy=None, open_timeout=_OPEN_LIMIT_S, compression=None, logger=quiet_logger()
        ) as socket:
            await socket.send(json.dumps({"type": "inference", "id": session_id, "request": request}))
            return await _read_answer(socket, session_id, on_text)
    except TimeoutError:
        raise EnvironmentFault(f"no answer from {_place(url)} in time") from None
    except (OSError, InvalidHandshake, InvalidURI) as error:
        raise EnvironmentFault(f"cannot connect to {_place(url)}: {_reason(error)}") from error
    except ConnectionClosed as error:
        raise EnvironmentFault(f"{_place(url)} closed the connection before the answer was complete") from error


def socket_url(url: str) -> str:
    """The WebSocket's URL for a host's: http becomes ws, a missing path becomes /v1/ws."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.path not in {"", "/"} else "/v1/ws"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


async def _read_answer(socket: ClientConnection, request_id: str, on_text: Callable[[str], None] | None) -> ChatResult:
    result = ChatResult()
    failure: dict[str, Any] | None = None
    while True:
        frame = await _next_frame(socket)
        result.frames.append(frame)
        if frame.get("id") != request_id:
            continue
        match frame["type"]:
            case "stream_chunk":
                result.text += frame["content"]
                result.chunk_token_sum += frame["tokens"]
                if on_text is not None and frame["content"]:
                    on_text(frame["content"])
            case "error":
                failure = frame
                if frame.get("code") not in {"WORKER_CRASHED", "INTERNAL"} and not result.chunk_token_sum:
                    _raise(frame)
            case "stream_end":
                if failure is not None:
                    _raise(failure)
                result.tokens_used = frame["tokens_used"]
                result.finish_reason = frame["finish_reason"]
                result.model = frame.get("model", "")
                return result


async def _next_frame(socket: ClientConnection) -> dict[str, Any]:
    frame = json.loads(await asyncio.wait_for(socket.recv(), _FRAME_LIMIT_S))
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise EnvironmentFault("the host sent a frame that is none of the protocol's")
    return frame


def _raise(frame: dict[str, Any]) -> None:
    code, message = frame.get("code", "INTERNAL"), frame.get("message", "")
    raise (UserError if code in _USER_CODES else EnvironmentFault)(f"{code}: {message}")


def _place(url: str) -> str:
    return urlsplit(socket_url(url)).netloc


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidHandshake):
        response = getattr(error, "response", None)
        return f"HTTP {response.status_code}" if response is not None else "it does not speak WebSocket"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
