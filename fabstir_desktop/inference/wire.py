"""What parent and worker say to each other: msgpack messages behind a length, one per decode step for all streams.

The worker reads only what its own parent wrote and the other way round; a frame that is too long or does not decode means
that the other side is broken, and ends the conversation. Each worker has its own pipes, so nothing of a dead one is ever
taken for its successor's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 64 * 1024 * 1024
LONG_PROMPT_CHARACTERS = 32 * 1024
"""Conversations above are prepared in a thread of their own, so that they do not hold up the short ones."""
_LENGTH = struct.Struct("<I")


class WireError(Exception):
    """The other side sent something that cannot be read."""


class Message(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """Root of all messages."""


class Load(Message, frozen=True):
    """Parent: load this model. Sent once, first."""

    path: str
    context_window: int
    parallel: int
    gpu_layers: int | None
    threads: int
    session_cache_bytes: int
    weights_bytes: int = 0
    cache_bytes: int = 0
    """Of the KV cache of all streams."""
    layer_count: int = 0
    failed_loads: int = 0
    """Workers that died while they loaded this file."""


class Sampling(msgspec.Struct, array_like=True, frozen=True):
    """How tokens are chosen; the seed is always given."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int


class Begin(Message, frozen=True):
    """Parent: answer this conversation. `stream` numbers are never used twice in one worker's life."""

    stream: int
    messages: list[tuple[str, str]]
    max_tokens: int
    sampling: Sampling
    stop: list[str]
    job_key: str
    cache_key: str | None


def is_long(begin: Begin) -> bool:
    """Whether the request is prepared in the lane of the long ones; each lane prepares one after the other, in order."""
    return sum(len(content) for _, content in begin.messages) > LONG_PROMPT_CHARACTERS


class Cancel(Message, frozen=True):
    """Parent: end the stream within one decode step."""

    stream: int


class Hold(Message, frozen=True):
    """Parent: make no further tokens for the stream (`held`), because its reader is behind; or go on."""

    stream: int
    held: bool


class Forget(Message, frozen=True):
    """Parent: no further prompt of this conversation comes; its cells are given back."""

    cache_key: str


class Progress(Message, frozen=True):
    """Worker: the part of the model that is loaded, 0 to 1."""

    fraction: float


class Ready(Message, frozen=True):
    """Worker: the model is loaded."""

    version: int
    context_window: int
    gpu_layers: int
    layer_count: int
    warning: str = ""
    """What the host should know, such as layers that did not fit on the GPU."""
    gpu_free_bytes: int = 0
    """What the GPUs had free before."""
    longest_word: int = 0
    """Most ASCII letters, digits and signs that one token stands for; 0 where that is not certain."""


class LoadFailed(Message, frozen=True):
    """Worker: the file cannot be loaded; trying again would not help. `is_memory`: because it does not fit."""

    reason: str
    is_memory: bool = False


class Accepted(msgspec.Struct, array_like=True, frozen=True):
    """The stream's prompt is tokenised and fits."""

    stream: int
    prompt_ids: list[int]


class Refused(msgspec.Struct, array_like=True, frozen=True):
    """The stream ends without success. `kind` is one of the words below; `prompt_tokens` is for "overflow" only."""

    stream: int
    kind: str
    reason: str
    prompt_tokens: int = 0


OVERFLOW = "overflow"
INVALID = "invalid"
BROKEN = "broken"


class Ended(msgspec.Struct, array_like=True, frozen=True):
    """The stream is over; `text` is what was held back."""

    stream: int
    reason: str
    text: str


class Step(Message, frozen=True):
    """Worker: what one decode step gave, for all streams. `pieces` are (stream, token id, text)."""

    pieces: list[tuple[int, int, str]] = []
    ended: list[Ended] = []
    accepted: list[Accepted] = []
    refused: list[Refused] = []
    prefilling: bool = False
    """Whether a prompt is still being read: its step may take longer than that of a token."""


ToWorker = Load | Begin | Cancel | Hold | Forget
FromWorker = Progress | Ready | LoadFailed | Step

_encoder = msgspec.msgpack.Encoder()
to_worker_decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: Message) -> bytes:
    """The message as a frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cut a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes; yields the bodies that are whole now. Raises WireError for a length beyond all reason."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 4:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > MAX_FRAME_BYTES:
                    raise WireError(f"a frame of {length} bytes")
                if len(buffer) - start - 4 < length:
                    break
                body = bytes(buffer[start + 4 : start + 4 + length])
                start += 4 + length
                yield body
        finally:
            del buffer[:start]
