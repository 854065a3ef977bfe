"""What clients can make the host write into its log: one event is one line, nothing is forged, and a flood stays small."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket as sockets
import struct
from pathlib import Path

import pytest
from server_support import ask, inference, send, serving

from fabstir_desktop.logs import LINE_FORMAT, LineRate, LogWriter, OneLineFormatter, escaped, start_logging

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: ")
ODD = "a\r\n2026-01-01 00:00:00,000 INFO forged: line\x1b[2J\u202egnol\u2066\u200f\u0085\u2028\ud800"


@pytest.fixture
def log_file(tmp_path: Path) -> object:
    path = tmp_path / "logs" / "fabstir-desktop.log"
    writer: LogWriter = start_logging(path, "INFO")
    yield path
    writer.stop()


def reset(port: int, data: bytes) -> None:
    """Connect, say something, and leave with a reset instead of a goodbye."""
    with contextlib.suppress(OSError), sockets.create_connection(("127.0.0.1", port)) as one:
        one.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        one.sendall(data)


JUNK = (
    b"",
    b"\x16\x03\x01\x02",
    b"GET /%0d%0aforged HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n",
    b"GET / HTTP/9\r\n\r\n",
    b"\0" * 200,
)


async def test_ten_thousand_resets_and_odd_words_leave_a_small_log_of_whole_lines(
    tmp_path: Path, log_file: Path
) -> None:
    async with serving(tmp_path) as world:
        for _ in range(20):
            await asyncio.to_thread(lambda: [reset(world.port, JUNK[number % len(JUNK)]) for number in range(500)])
            await asyncio.sleep(0)
        async with world.connect() as socket:
            odd = ODD.replace("\ud800", "")
            for number in range(300):
                await ask(socket, inference(odd, session_id=f"{odd[:60]}{number}", id=odd[:60], job_id=5))
                await send(socket, {"type": odd})
                await send(socket, "{" + odd)
                await ask(socket, inference("x", job_id=6, id=number))
    await asyncio.sleep(0.1)
    text = await asyncio.to_thread(log_file.read_text, "utf-8")
    assert len(text.encode()) <= 1_000_000
    assert [line for line in text.splitlines() if not LINE.match(line)] == []
    assert "INFO forged:" not in "\n".join(line[:40] for line in text.splitlines())


def test_everything_without_a_shape_of_its_own_is_written_out() -> None:
    shown = escaped(ODD)
    assert shown.isprintable()
    assert shown.startswith("a\\x0d\\x0a2026")
    for code in ("x1b", "x202e", "x2066", "x200f", "x85", "x2028", "xd800"):
        assert f"\\{code}" in shown
    assert escaped("Grüße, 你好\t🙂") == "Grüße, 你好\t🙂"


async def test_the_text_of_an_error_forges_no_line(log_file: Path) -> None:
    log = logging.getLogger("fabstir_desktop.server.test")
    try:
        raise ValueError("broken\n2026-01-01 00:00:00,000 INFO forged: line")
    except ValueError:
        log.exception("odd: %s", ODD.replace("\ud800", ""))
    for handler in logging.getLogger().handlers:
        handler.flush()
    await asyncio.sleep(0.2)
    lines = log_file.read_text("utf-8").splitlines()
    [line] = [line for line in lines if "server.test" in line]
    assert LINE.match(line)
    assert "Traceback" in line
    assert [other for other in lines if not LINE.match(other)] == []


def test_a_lone_surrogate_does_not_cost_the_line() -> None:
    made = logging.LogRecord("fabstir_desktop.server", logging.INFO, "file.py", 1, "odd: %s", (ODD,), None)
    assert LINE.match(OneLineFormatter(LINE_FORMAT).format(made).encode("utf-8").decode())


def record(name: str, number: int, at_s: float, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "file.py", number, "a line", (), None)
    made.created = at_s
    return made


def test_lines_that_clients_cause_are_limited_and_the_rest_is_counted() -> None:
    rate = LineRate(5)
    name = "fabstir_desktop.server.announcer"
    written = [rate.take(record(name, 1, 10.0 + 0.001 * number)) for number in range(100)]
    assert written == [(True, 0)] * 5 + [(False, 0)] * 95
    assert rate.take(record(name, 2, 10.5)) == (True, 0), "another place has a rate of its own"
    assert rate.take(record(name, 1, 11.0)) == (True, 95)
    assert rate.take(record(name, 1, 11.1)) == (True, 0)


def test_lines_about_money_and_those_a_host_asked_for_are_never_left_out() -> None:
    rate = LineRate(5)
    assert all(rate.take(record("fabstir_desktop.settlement.tracker", 1, 10.0))[0] for _ in range(100))
    assert all(rate.take(record("fabstir_desktop.server.door", 1, 10.0, logging.DEBUG))[0] for _ in range(100))
