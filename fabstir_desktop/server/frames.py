"""The frames that cross the socket, typed; and how those to the client are written.

Frames from the client come out of `decoder.decode_frame`. Frames to the client are bytes: what stays the same over a
request's frames is encoded once (`ReplyWriter`), so that a token costs one small encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from fabstir_desktop.jobs.generation import FinishReason, Message, SamplingParameters

RequestId = str | int

_encode = msgspec.json.Encoder().encode


class ProtocolError(Exception):
    """A frame that cannot be used. `code` and the message go to the client; ids as far as they could be read."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "INVALID_REQUEST",
        request_id: RequestId | None = None,
        session_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.session_id = session_id


@dataclass(frozen=True, slots=True)
class SessionInit:
    """`session_init`. `job_echo` is the job id as the client wrote it: a number stays a number in the acknowledgement."""

    session_id: str
    request_id: RequestId | None
    job_id: int | None
    job_echo: str | int | None
    chain_id: int | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """`inference` or `prompt`. `context` are earlier turns given by the client (they replace kept history), None if it gave none.

    The last turn is always the new one: `text` (a user's), unless `context` was given alone and already ends with it.
    """

    session_id: str | None
    request_id: RequestId | None
    job_id: int | None
    chain_id: int | None
    context: tuple[Message, ...] | None
    text: str | None
    max_tokens: int
    sampling: SamplingParameters
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamCancel:
    """`stream_cancel`: of one request where `request_id` is given, else of the one that runs in the session."""

    session_id: str | None
    request_id: RequestId | None


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """`session_end`."""

    session_id: str | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """`ping` and every type that is not known."""


Frame = SessionInit | Prompt | StreamCancel | SessionEnd | Ignored


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request used, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    context_window: int


_REASONS: dict[FinishReason, str] = {
    "stop": "complete",
    "length": "complete",
    "cancelled": "cancelled",
    "error": "error",
}


class ReplyWriter:
    """Writes the frames of one request, each with the request's `id` and `session_id` where it has them."""

    __slots__ = ("_chunk_head", "_ids")

    def __init__(self, request_id: RequestId | None, session_id: str | None) -> None:
        self._ids: dict[str, Any] = {}
        if request_id is not None:
            self._ids["id"] = request_id
        if session_id is not None:
            self._ids["session_id"] = session_id
        head = _encode({"type": "stream_chunk", **self._ids})
        self._chunk_head = head[:-1] + b',"tokens":'

    def chunk(self, content: str, tokens: int) -> bytes:
        """A `stream_chunk`."""
        return b'%b%d,"content":%b}' % (self._chunk_head, tokens, _encode(content))

    def end(self, finish_reason: FinishReason, usage: Usage, model: str, **further: Any) -> bytes:
        """The `stream_end`."""
        return _encode(
            {
                "type": "stream_end",
                **self._ids,
                "reason": _REASONS[finish_reason],
                "finish_reason": finish_reason,
                "tokens_used": usage.completion_tokens,
                "model": model,
                "usage": {
                    "prompt_tokens": usage.prompt_tokens,
                    "completion_tokens": usage.completion_tokens,
                    "total_tokens": usage.prompt_tokens + usage.completion_tokens,
                    "context_window_size": usage.context_window,
                },
                **further,
            }
        )

    def error(self, code: str, message: str, **further: Any) -> bytes:
        """An `error`; the text stands in `message` and in `error`, because clients read one or the other."""
        return _encode({"type": "error", **self._ids, "code": code, "message": message, "error": message, **further})


def error_frame(problem: ProtocolError) -> bytes:
    """The `error` for a frame that could not be used."""
    return ReplyWriter(problem.request_id, problem.session_id).error(problem.code, str(problem))


def connected_frame(version: str) -> bytes:
    """The greeting."""
    return _encode({"type": "connected", "message": f"fabstir-desktop {version}: send an inference frame"})


def session_init_ack(frame: SessionInit, chain_id: int) -> bytes:
    """The answer to `session_init`; sent at once, without asking chain or model."""
    ids = {} if frame.request_id is None else {"id": frame.request_id}
    return _encode(
        {
            "type": "session_init_ack",
            "status": "success",
            "session_id": frame.session_id,
            "job_id": frame.job_echo,
            "chain_id": chain_id,
            "message": "Session initialised",
            **ids,
        }
    )


def checkpoint_frame(kind: str, job_id: int, tokens: int, tx_hash: str) -> bytes:
    """`checkpoint_submitted` or `checkpoint_confirmed`."""
    return _encode({"type": kind, "job_id": str(job_id), "tokens": tokens, "tx_hash": tx_hash})
