"""Frames that are nearly right, and a client that checks every answer to them.

What each frame is due is known beforehand from the decoder: a prompt one refusal or one `stream_end`, a `session_init` one
acknowledgement or refusal, what is malformed one error, everything else silence. So a socket's answers are counted to the
last one, and those of a request are followed by its id.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

from attack_support import masked, raw_socket
from server_support import LIMIT_S

from fabstir_desktop.server.decoder import decode_frame
from fabstir_desktop.server.frames import Prompt, ProtocolError, RequestId, SessionInit

SEEDS: list[dict[str, object]] = [
    {"type": "inference", "request": {"model": "m", "prompt": "Hi", "max_tokens": 3, "job_id": 5, "session_id": "s"}},
    {"type": "prompt", "prompt": "Hi", "max_tokens": 2, "jobId": "7", "sessionId": "t", "id": 4, "temperature": 0.7},
    {"type": "session_init", "session_id": "u", "job_id": 2**256 - 1, "chain_id": 84532, "id": "A"},
    {"type": "stream_cancel", "session_id": "s"},
    {"type": "session_end", "session_id": "t"},
    {"type": "ping"},
    {"type": "prompt", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stop": ["x"], "seed": 1},
]
ODD_VALUES = (
    "null", "true", "-1", "1e999", "NaN", "1.5", '""', '"\\ud800"', "[]", "{}", "9" * 100, '"' + "é" * 300 + '"',
    "[" * 20 + "]" * 20, '"1n"', "0", "1e3", '"\\u0000"',
)  # fmt: skip
REFUSALS = frozenset({"INVALID_REQUEST", "BUSY", "JOB_NOT_VALID", "TOKEN_LIMIT_EXCEEDED", "RATE_LIMITED"})
"""Codes that may meet a frame here. INTERNAL is none of them: the host has no fault to report."""
SEED_VARIABLE = "FUZZ_SEED"
_BURST = 50
_SHOWN = 300
_LAST_QUESTION = b'{"type":"session_init","session_id":"the last"}'


def seed_of_this_run() -> int:
    """A fresh seed, or the one in FUZZ_SEED; printed, so that a failure can be run again with the same frames."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(2**32))
    print(f"{SEED_VARIABLE}={seed}")
    return seed


def dice_of(seed: int, *names: object) -> random.Random:
    """Dice of one part of the run: the same whatever the other parts did before."""
    return random.Random(" ".join(map(str, (seed, *names))))


def odd_frame(dice: random.Random, number: int) -> bytes:
    """A frame that is nearly right: fields replaced, bytes flipped, cut or doubled. Prompts are told apart by `number`."""
    frame = dict(dice.choice(SEEDS))
    if frame["type"] in {"inference", "prompt"}:
        frame |= {"id": f"request-{number}", "seed": number}
    text = json.dumps(frame)
    for _ in range(dice.randrange(3)):
        at = text.find(":", dice.randrange(len(text)))
        if at > 0:
            end = min((place for place in (text.find(",", at), text.find("}", at)) if place > 0), default=len(text))
            text = text[: at + 1] + dice.choice(ODD_VALUES) + text[end:]
    data = bytearray(text.encode())
    for _ in range(dice.choice((0, 0, 1, 3))):
        data[dice.randrange(len(data))] = dice.randrange(128)
    cut = bytes(data[: dice.choice((len(data), len(data), dice.randrange(1, len(data) + 1)))])
    if dice.random() < 0.001:
        return cut  # not always UTF-8: that ends the connection, as it must
    return cut.decode("utf-8", "replace").encode()


class Wire:
    """Reads a server's frames out of bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of every frame that is complete now."""
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 2:
            size, head = self._buffer[at + 1], 2
            if size == 126:
                size, head = int.from_bytes(self._buffer[at + 2 : at + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(self._buffer[at + 2 : at + 10], "big"), 10
            if len(self._buffer) - at < head + size:
                break
            yield self._buffer[at] & 15, bytes(self._buffer[at + head : at + head + size])
            at += head + size
        del self._buffer[:at]


class Answers:
    """Everything one socket sent and received; raises AssertionError with the frames in question."""

    def __init__(self) -> None:
        self.due = 0
        """Answers that must still come: refusals, acknowledgements and ends."""
        self._ids: set[RequestId | None] = set()
        self._prompt_by_id: dict[RequestId, str] = {}
        self._open: dict[RequestId, list[dict[str, Any]]] = {}
        self._ended: dict[RequestId, list[dict[str, Any]]] = {}
        self._recent: deque[str] = deque(maxlen=60)

    def sent(self, text: str) -> None:
        """Count what the frame is due."""
        self._recent.append(text)
        try:
            frame = decode_frame(text)
        except ProtocolError as problem:
            self.due += 1
            self._remember(problem.request_id, None)
            return
        if isinstance(frame, Prompt):
            self.due += 1
            self._remember(frame.request_id, text)
        elif isinstance(frame, SessionInit):
            self.due += 1
            self._remember(frame.request_id, None)

    def _remember(self, request_id: RequestId | None, prompt: str | None) -> None:
        """Follow a prompt by its id, for as long as no other frame has the same."""
        if request_id in self._ids:
            self._prompt_by_id.pop(request_id, None)
            self._open.pop(request_id, None)
        elif request_id is not None and prompt is not None:
            self._prompt_by_id[request_id] = prompt
        self._ids.add(request_id)

    def received(self, frame: dict[str, Any]) -> None:
        """Take an answer: it must be one that is due, and nothing may follow an ending."""
        kind = frame["type"]
        if kind == "connected":
            return
        self.due -= kind != "stream_chunk"
        self._check(self.due >= 0, "an answer that nothing asked for", frame)
        self._check(kind != "error" or frame["code"] in REFUSALS, "an error that no frame may cause", frame)
        request_id = frame.get("id")
        if request_id in self._prompt_by_id:
            self._follow(request_id, frame)

    def _follow(self, request_id: RequestId, frame: dict[str, Any]) -> None:
        self._check(request_id not in self._ended, "a frame after the request's end", frame)
        frames = self._open.setdefault(request_id, [])
        frames.append(frame)
        if frame["type"] == "error":
            self._check(len(frames) == 1, "a refusal of what was begun", frame)
            self._ended[request_id] = self._open.pop(request_id)
        elif frame["type"] == "stream_end":
            tokens = sum(part.get("tokens", 0) for part in frames)
            self._check(tokens == frame["tokens_used"], f"{tokens} tokens came", frame)
            self._check(frame["reason"] in {"complete", "cancelled"}, "an end that no frame may cause", frame)
            self._ended[request_id] = self._open.pop(request_id)

    def check_complete(self) -> None:
        """Nothing is due any more, and no request was begun without an end."""
        begun = {request_id: (self._prompt_by_id[request_id], frames) for request_id, frames in self._open.items()}
        assert (self.due, begun) == (0, {}), f"{self.due} unanswered, begun: {begun}\nsent at last:\n{self.recent}"

    @property
    def recent(self) -> str:
        """The last frames sent, one a line."""
        return "\n".join(ascii(text[:_SHOWN]) for text in self._recent)

    def _check(self, holds: bool, what: str, frame: dict[str, Any]) -> None:
        if not holds:
            request_id: Any = frame.get("id")
            asked, before = self._prompt_by_id.get(request_id), self._ended.get(request_id)
            raise AssertionError(
                f"{what}: {frame}\nasked by: {asked!a}\nbefore: {before}\nsent at last:\n{self.recent}"
            )


class CheckedSocket:
    """A socket whose every answer is checked while it is used."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answers = Answers()
        self._reader = reader
        self._writer = writer
        self._news = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def open(cls, port: int) -> CheckedSocket:
        return cls(*await raw_socket(port))

    @property
    def is_over(self) -> bool:
        """The server closed it, or an answer was wrong (then `close` raises what was)."""
        return self._reading.done()

    def send(self, data: bytes) -> bool:
        """Send a text frame; False if it is no UTF-8, which ends the connection."""
        self._writer.write(masked(0x81, data))
        try:
            self.answers.sent(data.decode())
        except UnicodeDecodeError:
            return False
        return True

    async def drain(self) -> None:
        await self._writer.drain()

    async def settle(self) -> None:
        """Wait for every answer that is due; then the next to come must be the answer to one more frame, and nothing else."""
        await self._all_due()
        if not self.is_over:
            self.send(_LAST_QUESTION)
            await self._all_due()

    async def _all_due(self) -> None:
        while self.answers.due and not self.is_over:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), LIMIT_S)
            except TimeoutError:
                break
        if not self.is_over:
            self.answers.check_complete()

    async def close(self) -> None:
        """Let go of it; raises what was wrong with an answer."""
        self._writer.transport.abort()
        await self._reading

    async def _read(self) -> None:
        wire = Wire()
        try:
            while data := await self._reader.read(1 << 16):
                for opcode, payload in wire.feed(data):
                    if opcode == 1:
                        self.answers.received(json.loads(payload))
                    elif opcode == 8:
                        return
                self._news.set()
        except ConnectionError:
            pass
        finally:
            self._news.set()


async def flood_with_frames(port: int, seed: int, name: str, count: int) -> None:
    """Send `count` odd frames over sockets that are renewed now and then, half of them read to their last answer."""
    left, sockets = count, 0
    while left > 0:
        sockets += 1
        dice = dice_of(seed, name, sockets)
        many = min(left, dice.randrange(1, 2000))
        left -= many
        socket = await CheckedSocket.open(port)
        try:
            is_whole = await _send_frames(socket, dice, many)
            if is_whole and dice.random() < 0.5:
                await socket.settle()
        finally:
            await socket.close()


async def _send_frames(socket: CheckedSocket, dice: random.Random, count: int) -> bool:
    """Whether all were sent and none ended the connection."""
    for number in range(count):
        if not socket.send(odd_frame(dice, number)) or socket.is_over:
            return False
        if number % _BURST == 0:
            try:
                await socket.drain()
                await asyncio.sleep(0)
            except ConnectionError:
                return False
    return True
