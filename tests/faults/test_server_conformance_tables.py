"""RFC 6455 as tables: what must be read, what must end the connection and with which code, closes, handshakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from server_support import LIMIT_S, World, inference, raw_request, serving
from wsproto.events import CloseConnection, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto_support import OtherClient, answer_to, other_client, raw_frame

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRONG = CloseReason.PROTOCOL_ERROR
NOT_TEXT = CloseReason.INVALID_FRAME_PAYLOAD_DATA
TOO_BIG = CloseReason.MESSAGE_TOO_BIG
TEXT, PART, LAST, REST, CLOSE, PING, PONG = 0x81, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8A


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One server for all rows: what one client breaks must not be felt by the next."""
    async with serving(tmp_path_factory.mktemp("conformance")) as world:
        yield world


async def is_answered(client: OtherClient) -> bool:
    return (await answer_to(client, json.dumps(inference(job_id=1))))["type"] == "stream_end"


# --- what ends the connection ------------------------------------------------------------------------------------------

INVALID_UTF8 = {
    "a continuation alone": b"\x80",
    "the last continuation alone": b"\xbf",
    "two bytes cut": b"\xc3",
    "three bytes cut": b"\xe2\x82",
    "four bytes cut": b"\xf0\x9f\x98",
    "two bytes, then ASCII": b"\xc3(",
    "three bytes, then ASCII": b"\xe2\x82(",
    "four bytes, then ASCII": b"\xf0\x9f\x98(",
    "overlong slash of two": b"\xc0\xaf",
    "overlong zero of two": b"\xc1\xbf",
    "overlong slash of three": b"\xe0\x80\xaf",
    "overlong edge of three": b"\xe0\x9f\xbf",
    "overlong slash of four": b"\xf0\x80\x80\xaf",
    "overlong edge of four": b"\xf0\x8f\xbf\xbf",
    "first surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "one beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "FE": b"\xfe",
    "FF": b"\xff",
}
BREAKS: dict[str, tuple[bytes, int]] = {
    **{f"reserved bits in {first:#x}": (raw_frame(first, b"{}"), WRONG) for first in (0xC1, 0xA1, 0x91, 0xF1)},
    **{f"reserved bits in {first:#x}": (raw_frame(first), WRONG) for first in (0xC9, 0xA9, 0x99, 0xCA, 0xC8, 0xF9)},
    "reserved bit in a continuation": (raw_frame(PART, b"{") + raw_frame(0xC0, b"}"), WRONG),
    **{f"reserved opcode {code}": (raw_frame(0x80 | code, b"{}"), WRONG) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"reserved opcode {code}, unfinished": (raw_frame(code, b"{"), WRONG) for code in (3, 7, 11, 15)},
    **{f"{first:#x} of 126 bytes": (raw_frame(first, b"\x03\xe8" + b"x" * 124), WRONG) for first in (PING, PONG, CLOSE)},
    "ping of 60,000 bytes": (raw_frame(PING, b"x" * 60_000), WRONG),
    **{f"fragmented {first:#x}": (raw_frame(first & 15, b"\x03\xe8"), WRONG) for first in (PING, PONG, CLOSE)},
    "continuation without a beginning": (raw_frame(LAST, b"x"), WRONG),
    "unfinished continuation without a beginning": (raw_frame(REST, b"x"), WRONG),
    "empty continuation without a beginning": (raw_frame(LAST), WRONG),
    "continuation after a whole message": (raw_frame(TEXT, b'{"type":"ping"}') + raw_frame(LAST, b"x"), WRONG),
    "new text inside a text": (raw_frame(PART, b"{") + raw_frame(TEXT, b"{}"), WRONG),
    "new unfinished text inside a text": (raw_frame(PART, b"{") + raw_frame(PART, b"{}"), WRONG),
    "new binary inside a text": (raw_frame(PART, b"{") + raw_frame(0x82, b"{}"), WRONG),
    **{
        f"unmasked {first:#x}": (raw_frame(first, payload, is_masked=False), WRONG)
        for first, payload in ((TEXT, b"{}"), (TEXT, b""), (PING, b""), (CLOSE, b"\x03\xe8"))
    },
    "close frame of one byte": (raw_frame(CLOSE, b"\x03"), WRONG),
    **{
        f"close code {code}": (raw_frame(CLOSE, code.to_bytes(2, "big")), WRONG)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    **{f"text: {name}": (raw_frame(TEXT, b'{"a":"' + bad + b'"}'), NOT_TEXT) for name, bad in INVALID_UTF8.items()},
    **{
        f"close reason: {name}": (raw_frame(CLOSE, b"\x03\xe8" + INVALID_UTF8[name]), NOT_TEXT)
        for name in ("FF", "first surrogate", "overlong slash of two", "four bytes cut")
    },
    "a character never ended in the next fragment": (raw_frame(PART, b'"\xf0\x9f') + raw_frame(LAST, b'x"'), NOT_TEXT),
    "a character cut at the end of the last fragment": (raw_frame(PART, b'"a') + raw_frame(LAST, b"\xe2\x82"), NOT_TEXT),
    "five mebibytes": (b"\x81\xff" + (5 << 20).to_bytes(8, "big") + b"\0\0\0\0", TOO_BIG),
    "five mebibytes in parts": (
        raw_frame(PART, b"{") + b"\x80\xff" + (5 << 20).to_bytes(8, "big") + b"\0\0\0\0", TOO_BIG
    ),
    "length with the top bit": (b"\x81\xff\x80" + b"\0" * 11, TOO_BIG),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
async def test_a_breach_of_the_protocol_ends_with_the_code_the_rfc_names(world: World, name: str) -> None:
    data, code = BREAKS[name]
    async with other_client(world) as client:
        client.write(data)
        assert await client.closed_with() == code
    async with other_client(world) as client:
        assert await is_answered(client)


# --- what is read ------------------------------------------------------------------------------------------------------

EDGES = "\x7f\x80\u07ff\u0800\ud7ff\ue000\ufdd0\ufeff\ufffd\ufffe\uffff\U00010000\U0001f600\U0010ffff"


def prompt_bytes(prompt: str = "Hi") -> bytes:
    return json.dumps(inference(prompt, job_id=1), ensure_ascii=False).encode()


def coded(payload: bytes, length: bytes, mask: bytes = b"\0\0\0\0") -> bytes:
    """A text frame with its length coded and its bytes masked as given."""
    hidden = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return b"\x81" + bytes([length[0] | 0x80]) + length[1:] + mask + hidden


def parts(*payloads: bytes) -> list[bytes]:
    """One text in so many fragments."""
    firsts = [PART, *[REST] * (len(payloads) - 1)]
    firsts[-1] |= 0x80
    return [raw_frame(first, payload) for first, payload in zip(firsts, payloads, strict=True)]


WHOLE = prompt_bytes()
SPACED = WHOLE[:-1] + b" " * ((1 << 20) - len(WHOLE)) + b"}"
READ: dict[str, bytes] = {
    "an empty first fragment": b"".join(parts(b"", WHOLE)),
    "an empty last fragment": b"".join(parts(WHOLE, b"")),
    "empty fragments all along": b"".join(parts(b"", WHOLE[:5], b"", b"", WHOLE[5:], b"")),
    "64 fragments of 16 KiB": b"".join(parts(*(SPACED[at : at + (1 << 14)] for at in range(0, 1 << 20, 1 << 14)))),
    "a ping between fragments": parts(WHOLE[:9], WHOLE[9:])[0] + raw_frame(PING, b"p") + parts(WHOLE[:9], WHOLE[9:])[1],
    "pongs between fragments": raw_frame(PONG).join(parts(WHOLE[:9], WHOLE[9:12], WHOLE[12:])),
    "a length of 126 where 16 bits are not needed": coded(b"{}   ", b"\x7e\x00\x05") + raw_frame(TEXT, WHOLE),
    "a length of 127 where 64 bits are not needed": coded(WHOLE, b"\x7f" + len(WHOLE).to_bytes(8, "big")),
    "a mask of ones": coded(WHOLE, b"\x7e" + len(WHOLE).to_bytes(2, "big"), b"\xff\xff\xff\xff"),
    "a mask of mixed bits": coded(WHOLE, b"\x7e" + len(WHOLE).to_bytes(2, "big"), b"\x01\x80\xaa\x55"),
    "an empty message before": raw_frame(TEXT) + raw_frame(TEXT, WHOLE),
    "a binary message before": raw_frame(0x82, WHOLE) + raw_frame(TEXT, WHOLE),
    "an empty binary message before": raw_frame(0x82) + raw_frame(TEXT, WHOLE),
    "fragmented binary before": raw_frame(0x02, b"{") + raw_frame(LAST, b"}") + raw_frame(TEXT, WHOLE),
}  # fmt: skip


async def ended(client: OtherClient) -> dict[str, Any]:
    """The end of the next answered request; errors and pongs before it are passed over."""
    while True:
        event = await client.event()
        assert isinstance(event, TextMessage | Pong), event
        if isinstance(event, TextMessage) and (frame := json.loads(event.data))["type"] == "stream_end":
            return dict(frame)


@pytest.mark.parametrize("name", READ)
async def test_what_the_rfc_allows_is_read(world: World, name: str) -> None:
    """Lengths coded with more bytes than needed are read too: they do no harm, and no client is hurt."""
    async with other_client(world) as client:
        client.write(READ[name])
        assert (await ended(client))["tokens_used"] == 5


@pytest.mark.parametrize("character", EDGES, ids=[f"U+{ord(character):04X}" for character in EDGES])
async def test_every_edge_of_utf_8_arrives_wherever_fragments_cut_it(world: World, character: str) -> None:
    async with other_client(world) as client:
        data, size = prompt_bytes(f"<{character}>"), len(character.encode())
        at = data.index(f"<{character}>".encode()) + 1
        for cut in range(size + 1):
            client.write(b"".join(parts(data[: at + cut], data[at + cut :])))
            assert (await ended(client))["reason"] == "complete"
            assert world.engine.requests[-1].messages[-1].content == f"<{character}>"


async def test_bytes_that_come_one_by_one_are_one_request(world: World) -> None:
    async with other_client(world) as client:
        for byte in b"".join(parts(WHOLE[:20], WHOLE[20:])) + raw_frame(PING, b"end"):
            client.write(bytes([byte]))
            await client.drain()
            await asyncio.sleep(0)
        assert (await ended(client))["reason"] == "complete"


# --- closes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]
)
async def test_a_clients_close_is_answered_with_its_own_code(world: World, code: int) -> None:
    async with other_client(world) as client:
        client.send(CloseConnection(code=code, reason="Client disconnect"))
        assert await client.closed_with() == code


@pytest.mark.parametrize("reason", ["", "x", "x" * 122, "x" * 123, "é" * 61, "😀" * 30])
async def test_a_close_with_a_reason_of_any_length_that_fits_is_answered(world: World, reason: str) -> None:
    async with other_client(world) as client:
        client.write(raw_frame(CLOSE, b"\x03\xe8" + reason.encode()))
        assert await client.closed_with() == CloseReason.NORMAL_CLOSURE


BEHIND = {
    "data": raw_frame(TEXT, WHOLE),
    "a ping": raw_frame(PING, b"late"),
    "a second close": raw_frame(CLOSE, b"\x03\xe9"),
    "a breach": raw_frame(0x83, b"{}"),
    "half a frame": raw_frame(TEXT, WHOLE)[:7],
}


@pytest.mark.parametrize("name", BEHIND)
async def test_what_comes_behind_a_close_is_not_heard(world: World, name: str) -> None:
    async with other_client(world) as client:
        before = len(world.engine.requests)
        client.write(raw_frame(CLOSE, b"\x03\xe8") + BEHIND[name])
        event = await client.event()
        assert isinstance(event, CloseConnection)
        assert event.code == CloseReason.NORMAL_CLOSURE
        assert await client.rest() == b"", "one close, and no more"
        assert len(world.engine.requests) == before


# --- handshakes --------------------------------------------------------------------------------------------------------

RIGHT = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
HANDSHAKES: dict[str, tuple[dict[str, str | None], set[int]]] = {
    "as it should be": ({}, {101}),
    "names and words in other cases": ({"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"}, {101}),
    "with a subprotocol nobody speaks": ({"Sec-WebSocket-Protocol": "chat"}, {101}),
    "with extensions nobody speaks": ({"Sec-WebSocket-Extensions": "x-unknown; a=1"}, {101}),
    "no key": ({"Sec-WebSocket-Key": None}, {400}),
    "an empty key": ({"Sec-WebSocket-Key": ""}, {400}),
    "a key of 15 bytes": ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"}, {400}),
    "a key that is not base64": ({"Sec-WebSocket-Key": "!" * 24}, {400}),
    "two keys": ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, {400}),
    "no version": ({"Sec-WebSocket-Version": None}, {400, 426}),
    "version 8": ({"Sec-WebSocket-Version": "8"}, {400, 426}),
    "version 14": ({"Sec-WebSocket-Version": "14"}, {400, 426}),
    "a version that is no number": ({"Sec-WebSocket-Version": "x"}, {400, 426}),
    "no Connection": ({"Connection": None}, {426}),
    "a Connection that does not upgrade": ({"Connection": "keep-alive"}, {426}),
    "an upgrade to something else": ({"Upgrade": "h2c"}, {426}),
    "no Upgrade": ({"Upgrade": None}, {426}),
    "no Host": ({"Host": None}, {400}),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_gets_the_status_it_deserves(world: World, name: str) -> None:
    changes, statuses = HANDSHAKES[name]
    lines = [f"{field}: {value}" for field, value in {**RIGHT, **changes}.items() if value is not None]
    data = "\r\n".join(["GET /v1/ws HTTP/1.1", *lines, "", ""]).encode()
    answer = await asyncio.wait_for(raw_request(world.port, data, read_all=False), LIMIT_S)
    assert int(answer.split(b" ")[1]) in statuses, answer
    assert b"Sec-WebSocket-Extensions" not in answer
    assert b"Sec-WebSocket-Protocol" not in answer
