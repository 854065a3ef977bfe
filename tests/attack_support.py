"""What attackers of the port have in hand: frames made by hand, sockets without a library, other clients' addresses."""

from __future__ import annotations

import asyncio
import re
import struct
from pathlib import Path
from typing import Any

from limits import scaled
from server_support import LIMIT_S, ask, inference, tokens_of

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


OUR_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [a-z0-9_.]+: ")
"""How every line of the product's log begins."""


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame with its first byte given, masked with zeros."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


async def raw_socket(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket without a library: the handshake is done, the rest is bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    assert head.startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def is_served(place: Any, **fields: Any) -> bool:
    """Whether an honest client gets its whole answer."""
    async with asyncio.timeout(LIMIT_S), place.connect() as socket:
        frames = await ask(socket, inference(job_id=1, **fields))
        return bool(frames[-1].get("reason") == "complete" and tokens_of(frames) == 5)


async def pour(writer: asyncio.StreamWriter) -> None:
    """20 MB of pings."""
    async with asyncio.timeout(scaled(60)):
        for _ in range(200):
            writer.write(masked(0x89, b"p" * 125) * 800)
            await writer.drain()


def close_code(data: bytes) -> int:
    """The code of the close frame at the end of what a server sent."""
    at = data.rfind(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big")


def from_address(place: Any, address: str) -> Any:
    """A client whom a trusted proxy names."""
    return place.connect(additional_headers={"X-Forwarded-For": address})


def assert_log_is_clean(log: Path, most_bytes: int = 1_000_000) -> None:
    """Whatever clients did: the log is small, every line was begun by us, and none holds what a client made up."""
    text = log.read_text(encoding="utf-8", errors="strict")
    assert len(text.encode()) <= most_bytes
    for line in text.removesuffix("\n").split("\n") if text else ():
        assert OUR_LINE.match(line), line[:200]
        assert line.replace("\t", " ").isprintable(), ascii(line[:200])
        assert "CHECKPOINT NEEDED" not in line
