"""RFC 6455 from another implementation's side: wsproto builds the frames, asyncio carries them, our server answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from server_support import LIMIT_S, World, inference, serving
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason


class OtherClient:
    """A WebSocket client on wsproto; `write` sends raw bytes past it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._text = ""

    async def open(self, target: str = "/v1/ws") -> Event:
        self.send(Request(host="localhost", target=target))
        return await self.event()

    def send(self, event: Event) -> None:
        self.write(self._protocol.send(event))

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def event(self) -> Event:
        """The next event but for parts of a text, which are joined."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for found in self._protocol.events():
                    event = found
                    if isinstance(event, TextMessage) and not event.message_finished:
                        self._text += event.data
                        continue
                    if isinstance(event, TextMessage):
                        event, self._text = TextMessage(data=self._text + event.data), ""
                    return event
                data = await self._reader.read(65536)
                self._protocol.receive_data(data or None)

    async def frame(self) -> dict[str, Any]:
        event = await self.event()
        assert isinstance(event, TextMessage), event
        decoded: dict[str, Any] = json.loads(event.data)
        return decoded

    async def closed_with(self) -> int:
        """Read on to the server's close frame."""
        while True:
            event = await self.event()
            if isinstance(event, CloseConnection):
                return int(event.code)


@asynccontextmanager
async def other_client(world: World) -> AsyncIterator[OtherClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    client = OtherClient(reader, writer)
    try:
        assert isinstance(await client.open(), AcceptConnection)
        assert (await client.frame())["type"] == "connected"
        yield client
    finally:
        writer.transport.abort()


async def answer_to(client: OtherClient, text: str) -> dict[str, Any]:
    client.send(TextMessage(data=text))
    while True:
        frame = await client.frame()
        if frame["type"] in {"stream_end", "error"}:
            return frame


def raw_frame(first: int, payload: bytes = b"", *, is_masked: bool = True) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    if is_masked:
        return bytes([first, length[0] | 0x80]) + length[1:] + b"\0\0\0\0" + payload
    return bytes([first]) + length + payload


async def test_the_briefs_request_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        client.send(TextMessage(data=json.dumps(inference(job_id=1, session_id="s", max_tokens=57))))
        tokens = 0
        while (frame := await client.frame())["type"] == "stream_chunk":
            tokens += frame["tokens"]
        assert tokens == frame["tokens_used"] == 57


@pytest.mark.parametrize("size", [125, 126, 127, 65535, 65536, 1 << 20])
async def test_messages_of_every_length_coding_are_read(tmp_path: Path, size: int) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        frame = json.dumps(inference(job_id=1))
        answer = await answer_to(client, frame[:-1] + " " * (size - len(frame)) + "}")
        assert answer["type"] == "stream_end"


async def test_a_message_above_a_mebibyte_is_answered_and_the_socket_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        for _ in range(2):
            assert (await answer_to(client, "x" * (2 << 20)))["code"] == "INVALID_REQUEST"
            assert (await answer_to(client, json.dumps(inference(job_id=1))))["tokens_used"] == 5


async def test_fragments_with_pings_between_them_are_one_message(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        text = json.dumps(inference("Grüße 😀", job_id=1))
        for at in range(0, len(text), 10):
            client.send(TextMessage(data=text[at : at + 10], message_finished=at + 10 >= len(text)))
            if at % 40 == 0:
                client.send(Ping(payload=b"%d" % at))
        pongs = 0
        while True:
            event = await client.event()
            if isinstance(event, Pong):
                pongs += 1
            elif isinstance(event, TextMessage) and '"stream_end"' in event.data:
                break
        assert pongs == (len(text) + 39) // 40
        assert world.engine.requests[0].messages[-1].content == "Grüße 😀"


async def test_a_character_split_between_fragments_is_one_character(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        data = json.dumps(inference("😀", job_id=1), ensure_ascii=False).encode()
        middle = data.index("😀".encode()) + 2
        client.write(raw_frame(0x01, data[:middle]) + raw_frame(0x80, data[middle:]))
        while (frame := await client.frame())["type"] != "stream_end":
            pass
        assert frame["reason"] == "complete"
        assert world.engine.requests[0].messages[-1].content == "😀"


async def test_binary_messages_are_refused_and_the_socket_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        client.send(BytesMessage(data=json.dumps(inference(job_id=1)).encode()))
        assert (await client.frame())["code"] == "INVALID_REQUEST"
        assert (await answer_to(client, json.dumps(inference(job_id=1))))["tokens_used"] == 5


@pytest.mark.parametrize("size", [0, 1, 125])
async def test_a_ping_is_answered_with_its_own_bytes(tmp_path: Path, size: int) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        client.send(Ping(payload=b"\xfe" * size))
        event = await client.event()
        assert isinstance(event, Pong)
        assert event.payload == b"\xfe" * size


async def test_a_pong_nobody_asked_for_is_ignored(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        client.send(Pong(payload=b"unasked"))
        assert (await answer_to(client, json.dumps(inference(job_id=1))))["type"] == "stream_end"


BREAKS = {
    "reserved bit 1": (raw_frame(0xC1, b"{}"), CloseReason.PROTOCOL_ERROR),
    "reserved bit 2": (raw_frame(0xA1, b"{}"), CloseReason.PROTOCOL_ERROR),
    "reserved bit 3": (raw_frame(0x91, b"{}"), CloseReason.PROTOCOL_ERROR),
    "reserved data opcode 3": (raw_frame(0x83, b"{}"), CloseReason.PROTOCOL_ERROR),
    "reserved data opcode 7": (raw_frame(0x87, b"{}"), CloseReason.PROTOCOL_ERROR),
    "reserved control opcode 11": (raw_frame(0x8B), CloseReason.PROTOCOL_ERROR),
    "reserved control opcode 15": (raw_frame(0x8F), CloseReason.PROTOCOL_ERROR),
    "ping of 126 bytes": (raw_frame(0x89, b"x" * 126), CloseReason.PROTOCOL_ERROR),
    "fragmented ping": (raw_frame(0x09, b"x"), CloseReason.PROTOCOL_ERROR),
    "continuation without a beginning": (raw_frame(0x80, b"x"), CloseReason.PROTOCOL_ERROR),
    "new message inside a message": (raw_frame(0x01, b"{") + raw_frame(0x81, b"{}"), CloseReason.PROTOCOL_ERROR),
    "unmasked frame": (raw_frame(0x81, b"{}", is_masked=False), CloseReason.PROTOCOL_ERROR),
    "close frame of one byte": (raw_frame(0x88, b"\x03"), CloseReason.PROTOCOL_ERROR),
    "close code 0": (raw_frame(0x88, b"\x00\x00"), CloseReason.PROTOCOL_ERROR),
    "close code 1004": (raw_frame(0x88, b"\x03\xec"), CloseReason.PROTOCOL_ERROR),
    "close code 1005": (raw_frame(0x88, b"\x03\xed"), CloseReason.PROTOCOL_ERROR),
    "close code 1006": (raw_frame(0x88, b"\x03\xee"), CloseReason.PROTOCOL_ERROR),
    "close code 2999": (raw_frame(0x88, b"\x0b\xb7"), CloseReason.PROTOCOL_ERROR),
    "close code 5000": (raw_frame(0x88, b"\x13\x88"), CloseReason.PROTOCOL_ERROR),
    "close reason that is no UTF-8": (raw_frame(0x88, b"\x03\xe8\xff"), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
    "text that is no UTF-8": (raw_frame(0x81, b'{"a":"\xff"}'), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
    "overlong UTF-8": (raw_frame(0x81, b"\xc0\xaf"), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
    "surrogate as UTF-8": (raw_frame(0x81, b"\xed\xa0\x80"), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
    "beyond Unicode": (raw_frame(0x81, b"\xf4\x90\x80\x80"), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
    "character cut off": (raw_frame(0x81, b"\xf0\x9f\x98"), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
    "five mebibytes": (b"\x81\xff" + (5 << 20).to_bytes(8, "big") + b"\0\0\0\0", CloseReason.MESSAGE_TOO_BIG),
    "length with the top bit": (b"\x81\xff\x80" + b"\0" * 11, CloseReason.MESSAGE_TOO_BIG),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_breach_of_the_protocol_ends_with_the_code_the_rfc_names(tmp_path: Path, name: str) -> None:
    data, code = BREAKS[name]
    async with serving(tmp_path) as world:
        async with other_client(world) as client:
            client.write(data)
            assert await client.closed_with() == code
        async with other_client(world) as client:
            assert (await answer_to(client, json.dumps(inference(job_id=1))))["type"] == "stream_end"


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 3000, 4999])
async def test_a_clients_close_is_answered_with_its_own_code(tmp_path: Path, code: int) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        client.send(CloseConnection(code=code, reason="Client disconnect"))
        assert await client.closed_with() == code


async def test_a_close_without_a_code_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, other_client(world) as client:
        client.write(raw_frame(0x88))
        assert await client.closed_with() == CloseReason.NO_STATUS_RCVD


async def test_a_wrong_path_is_refused_before_the_protocol_begins(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        answer = await OtherClient(reader, writer).open("/elsewhere")
        assert isinstance(answer, RejectConnection)
        assert answer.status_code == 404
        writer.close()
