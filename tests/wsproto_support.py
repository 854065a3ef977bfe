"""A second WebSocket implementation as client: wsproto builds and reads the frames, asyncio carries them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from server_support import LIMIT_S, World
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Request, TextMessage


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

    async def drain(self) -> None:
        await self._writer.drain()

    async def rest(self) -> bytes:
        """Everything that still comes until the server hangs up."""
        return await asyncio.wait_for(self._reader.read(), LIMIT_S)

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
