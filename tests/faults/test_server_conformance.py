"""RFC 6455 from another implementation's side: whole requests; frames, closes and handshakes are in the tables beside it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from server_support import inference, serving
from wsproto.events import BytesMessage, Ping, Pong, RejectConnection, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto_support import OtherClient, answer_to, other_client, raw_frame


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
