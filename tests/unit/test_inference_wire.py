"""Frames survive any cutting of the byte stream, and nonsense ends the conversation instead of the app."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.inference import wire

MESSAGES: list[wire.Message] = [
    wire.Progress(0.5),
    wire.Step([(1, 42, "é"), (2, 7, "")], [wire.Ended(1, "stop", "x")], [wire.Accepted(3, [1, 2])], prefilling=True),
    wire.Step(refused=[wire.Refused(9, wire.OVERFLOW, "", 5000)]),
    wire.LoadFailed("no"),
    wire.Ready(1, 2048, 0, 30, ""),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_frames_survive_any_cutting(messages: list[wire.Message], sizes: list[int]) -> None:
    raw = b"".join(wire.encode(message) for message in messages)
    reader, seen, at, turn = wire.FrameReader(), [], 0, 0
    while at < len(raw):
        size = sizes[turn % len(sizes)]
        seen += [wire.from_worker_decoder.decode(body) for body in reader.feed(raw[at : at + size])]
        at, turn = at + size, turn + 1
    assert seen == messages


def test_what_the_parent_says_comes_back_the_same() -> None:
    begin = wire.Begin(1, [("user", "hi")], 5, wire.Sampling(0.7, 0.9, 40, 0.05, 1.0, 0.0, 0.0, 3), ["x"], "job", None)
    for message in (begin, wire.Cancel(4), wire.Hold(4, True), wire.Load("/m", 1024, 8, None, 2, 0)):
        (body,) = wire.FrameReader().feed(wire.encode(message))
        assert wire.to_worker_decoder.decode(body) == message


def test_an_absurd_length_is_an_error() -> None:
    with pytest.raises(wire.WireError):
        list(wire.FrameReader().feed(struct.pack("<I", wire.MAX_FRAME_BYTES + 1)))


@given(st.binary(max_size=200))
def test_nonsense_is_an_error_of_the_decoder_and_nothing_else(raw: bytes) -> None:
    try:
        decoded = wire.from_worker_decoder.decode(raw)
    except msgspec.MsgspecError:
        return
    assert isinstance(decoded, wire.Message)
