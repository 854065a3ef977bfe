"""Handshakes and frames that hypothesis thinks of, against a live server; what breaks it is shown in its shortest form."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from attack_support import UPGRADE, is_served, masked
from fuzz_support import ODD_VALUES, Answers, Wire
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import scaled
from server_process_support import ServerProcess, server_process
from server_support import LIMIT_S

HANDSHAKES, TALKS, LONG_TALKS = (
    settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    for count in (5_000, 500, 10_000)
)
ALLOWED = {b"101", b"200", b"400", b"403", b"404", b"405", b"414", b"421", b"426", b"431", b"503", b"505"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process, watched by a loop in a thread of its own: hypothesis calls plain functions."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(scaled(60))

    process = server_process(tmp_path_factory.mktemp("guided"), session_grace_seconds=0)
    live = run(process.__aenter__())
    try:
        yield live
        assert run(is_served(live)), "an honest client is served after all of it"
        for name in ("connections", "sessions", "active_streams"):
            run(live.until_metric(f"fabstir_{name}", 0))
        run(process.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT_S)
        loop.close()


def connect(server: ServerProcess) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


# --- handshakes --------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ("Host", "Upgrade", "Connection", "Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
     "Sec-WebSocket-Extensions", "Content-Length", "Transfer-Encoding", "X-Forwarded-For", "Expect", "Cookie", "")
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ("localhost", "websocket", "Upgrade", "13", "8", "dGhlIHNhbXBsZSBub25jZQ==", "permessage-deflate", "chunked", "5",
         "null", "https://evil.example", "127.0.0.1", "100-continue", "-1", "websocket, h2c", "")
    ),
    st.text(max_size=20),
)  # fmt: skip
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=6)


@st.composite
def handshakes(draw: st.DrawFn) -> bytes:
    """A request that is right up to a place, or in all but a few lines, or not at all."""
    shape = draw(st.sampled_from(("cut", "replaced", "lines", "bytes")))
    if shape == "cut":
        return UPGRADE[: draw(st.integers(0, len(UPGRADE)))] + draw(st.binary(max_size=40))
    if shape == "replaced":
        at = draw(st.integers(0, len(UPGRADE) - 1))
        return UPGRADE[:at] + draw(st.binary(max_size=4)) + UPGRADE[at + draw(st.integers(0, 4)) :]
    if shape == "bytes":
        return draw(st.binary(max_size=200))
    method, version = (
        draw(st.sampled_from(("GET", "POST", "PRI", "get"))),
        draw(st.sampled_from(("1.1", "1.0", "2.0", ""))),
    )
    path = draw(st.sampled_from(("/v1/ws", "/", "/health", "*", "//", "/..", "")))
    lines = "".join(f"{name}: {value}\r\n" for name, value in draw(LINES))
    return f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode("utf-8", "replace")


@HANDSHAKES
@given(data=handshakes())
def test_five_thousand_handshakes_get_an_honest_status_or_none(server: ServerProcess, data: bytes) -> None:
    with closing(connect(server)) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(64)
        except ConnectionError:
            return
        assert answer == b"" or (answer.startswith(b"HTTP/1.1 ") and answer[9:12] in ALLOWED), answer


# --- frames ------------------------------------------------------------------------------------------------------------

SESSIONS = st.one_of(st.sampled_from(("a", "b", "é", "x" * 128, "x" * 129, "")), st.integers(-1, 2**256))
JOBS = st.one_of(st.integers(-1, 2**256), st.sampled_from(("7", "7n", "0", "007", "+1", "", "9" * 78)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(("inference", "prompt", "session_init", "stream_cancel", "session_end", "ping", "?", "")),
    "prompt": st.text(max_size=10) | JSON,
    "messages": st.lists(st.fixed_dictionaries({"role": st.sampled_from(("user", "system", "x")), "content": JSON}), max_size=2),
    "session_id": SESSIONS, "sessionId": SESSIONS,
    "job_id": JOBS, "jobId": JOBS, "chain_id": st.sampled_from((84532, 1, "84532")),
    "max_tokens": st.integers(-1, 5), "temperature": st.floats(), "stop": JSON, "seed": JSON, "stream": JSON, "request": JSON,
}  # fmt: skip


@st.composite
def frames(draw: st.DrawFn) -> dict[str, Any]:
    """A frame of any fields, each nearly always of its kind; some are wrapped in `request` as the brief has it."""
    chosen = draw(st.lists(st.sampled_from(sorted(set(FIELDS) - {"type"})), max_size=5, unique=True))
    inner = {name: draw(FIELDS[name]) for name in chosen}
    kind = draw(FIELDS["type"])
    return {"type": kind, "request": inner} if draw(st.booleans()) else {"type": kind, **inner}


@st.composite
def texts(draw: st.DrawFn) -> list[str]:
    """Some frames of one client, each with an id of its own, a few with a value that JSON has no place for."""
    many = draw(st.lists(frames(), min_size=1, max_size=6))
    found = []
    for number, frame in enumerate(many):
        text = json.dumps(frame | {"id": number})
        if draw(st.integers(0, 9)) == 0:
            text = text[:-1] + f', "top_k": {draw(st.sampled_from(ODD_VALUES))}}}'
        found.append(text)
    return found


def check_talk(server: ServerProcess, sent: list[str]) -> None:
    """Every frame gets what it is due, whatever the frames before it were, and nothing comes after."""
    answers = Answers()
    wire = Wire()
    with closing(connect(server)) as client:
        data = UPGRADE
        for text in [*sent, '{"type":"session_init","session_id":"last","id":"last"}']:
            answers.sent(text)
            data += masked(0x81, text.encode())
        client.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received:
            received += client.recv(1 << 16)
        received = received.partition(b"\r\n\r\n")[2]
        while True:
            for opcode, payload in wire.feed(received):
                assert opcode == 1, (opcode, payload)
                answers.received(json.loads(payload))
            if answers.due == 0:
                break
            received = client.recv(1 << 16)
            assert received, "the server closed the connection"
    answers.check_complete()


@TALKS
@given(sent=texts())
def test_five_hundred_talks_are_answered_to_the_last_frame(server: ServerProcess, sent: list[str]) -> None:
    check_talk(server, sent)


@pytest.mark.long
@pytest.mark.timeout(3600)
@LONG_TALKS
@given(sent=texts())
def test_ten_thousand_talks_are_answered_to_the_last_frame(server: ServerProcess, sent: list[str]) -> None:
    check_talk(server, sent)
