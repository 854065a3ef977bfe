"""The strict decoder: what it takes, what it refuses, and that nothing but a frame or a ProtocolError comes out."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabstir_desktop.jobs.generation import Message
from fabstir_desktop.server.decoder import DEFAULT_MAX_TOKENS, MAX_FRAME_BYTES, MAX_TOKENS_LIMIT, decode_frame
from fabstir_desktop.server.frames import (
    Frame,
    Ignored,
    Prompt,
    ProtocolError,
    SessionEnd,
    SessionInit,
    StreamCancel,
    error_frame,
)


def prompt(**fields: Any) -> dict[str, Any]:
    return {"type": "inference", "request": {"prompt": "Hi", **fields}}


def decode(frame: Any) -> Frame:
    return decode_frame(frame if isinstance(frame, str | bytes) else json.dumps(frame))


def decode_prompt(frame: Any) -> Prompt:
    decoded = decode(frame)
    assert isinstance(decoded, Prompt)
    return decoded


def refusal(frame: Any) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode(frame)
    assert caught.value.code == "INVALID_REQUEST"
    return caught.value


def test_the_briefs_request_is_read_field_by_field() -> None:
    text = """{"type":"inference","request":{"model":"tiny-vicuna","prompt":"What is 2+2?","max_tokens":200,
      "temperature":0.7,"job_id":12345,"session_id":"user-session-001"}}"""
    frame = decode_prompt(text)
    assert (frame.text, frame.max_tokens, frame.sampling.temperature) == ("What is 2+2?", 200, 0.7)
    assert (frame.job_id, frame.session_id, frame.request_id, frame.chain_id) == (12345, "user-session-001", None, None)


def test_fields_may_stand_outside_request_and_request_is_stronger() -> None:
    assert decode_prompt({"type": "prompt", "prompt": "a", "max_tokens": 3, "jobId": "7"}).job_id == 7
    both = {"type": "prompt", "prompt": "outer", "request": {"prompt": "inner", "max_tokens": 9}, "max_tokens": 3}
    assert (decode_prompt(both).text, decode_prompt(both).max_tokens) == ("inner", 9)


def test_what_is_not_given_has_the_defaults_of_the_sdk() -> None:
    frame = decode_prompt({"type": "prompt", "prompt": "a"})
    assert (frame.max_tokens, frame.sampling.temperature, frame.stop) == (DEFAULT_MAX_TOKENS, 0.7, ())


@pytest.mark.parametrize("name", ["job_id", "jobId"])
@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0),
        ("0", 0),
        ("139n", 139),
        (2**53 - 1, 2**53 - 1),
        (2**53 + 1, 2**53 + 1),
        (2**63, 2**63),
        (2**64, 2**64),
        (2**256 - 1, 2**256 - 1),
        (str(2**256 - 1), 2**256 - 1),
    ],
)
def test_job_ids_of_every_spelling_are_exact(name: str, value: int | str, number: int) -> None:
    assert decode_prompt(prompt(**{name: value})).job_id == number
    init = decode({"type": "session_init", "session_id": "s", name: value})
    assert isinstance(init, SessionInit)
    assert init.job_id == number


@pytest.mark.parametrize(
    "value",
    [2**256, str(2**256), -1, "-1", "01", "+1", "1e3", " 1", "", "0x10", 1.0, 1.5, True, [], {}, "１２", "n", "1nn"],
)
def test_job_ids_that_are_none_are_refused(value: object) -> None:
    assert "job_id" in str(refusal(prompt(job_id=value)))


def test_minus_zero_and_floats_are_no_job_ids() -> None:
    for text in ("-0.0", "9007199254740993.0", "1e3"):
        refusal(f'{{"type":"prompt","prompt":"a","job_id":{text}}}')


@pytest.mark.parametrize("value", [None, "absent"])
def test_a_job_id_of_null_is_the_same_as_none(value: object) -> None:
    assert decode_prompt(prompt(**({"job_id": None} if value is None else {}))).job_id is None


def test_both_spellings_may_stand_together_only_if_they_agree() -> None:
    assert decode_prompt(prompt(job_id=5, jobId=5)).job_id == 5
    refusal(prompt(job_id=5, jobId=6))


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"prompt","prompt":"a","temperature":NaN}',
        '{"type":"prompt","prompt":"a","temperature":Infinity}',
        '{"type":"prompt","prompt":"a","temperature":-Infinity}',
        '{"type":"prompt","prompt":"a","temperature":1e999}',
        '{"type":"prompt","prompt":"a","unknown":1e999}',
        '{"type":"prompt","prompt":"a","max_tokens":' + "9" * 5000 + "}",
        '{"type":"prompt","prompt":"a","unknown":' + "9" * 81 + "}",
        '{"type":"prompt","prompt":"a","unknown":0.' + "9" * 5000 + "}",
        '{"type":"prompt","prompt":"a","prompt":"b"}',
        '{"type":"prompt","prompt":"a","request":{"x":1,"x":1}}',
        '{"type":"prompt","prompt":"\\ud800"}',
        '{"type":"prompt","prompt":"a","unknown":["\\udfff"]}',
        '{"type":"prompt","prompt":"a","\\ud800":1}',
        '{"type":"prompt","prompt":"a","unknown":' + "[" * 8 + "]" * 8 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
        "",
        " ",
        "null",
        "[]",
        '"text"',
        "{",
        '{"type":"prompt","prompt":"a"}{}',
        '{"type":"prompt","prompt":"a",}',
        "{'type':'prompt'}",
        '{"prompt":"a"}',
        '{"type":null,"prompt":"a"}',
        '{"type":7}',
        "\ufeff{}",
        "{\x00}",
    ],
)
def test_json_that_is_malformed_or_ambiguous_is_refused(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize(
    "text", ["[" * 500_000, '{"a":' * 200_000, '{"type":"prompt","x":' + "[" * 400_000 + "]" * 400_000 + "}"]
)
def test_brackets_without_end_do_not_reach_the_parser_whatever_the_recursion_limit(text: str) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)  # as libraries do: the parser would run over its stack and end the process
    try:
        assert "nested deeper" in str(refusal(text))
    finally:
        sys.setrecursionlimit(limit)


def test_brackets_inside_texts_are_no_nesting() -> None:
    frame = {"type": "prompt", "prompt": '[[[[[[[[[[[[{{{{{{{{{{ \\" [[[[[[[[[[[[ \\\\'}
    assert decode_prompt(frame).text == frame["prompt"]
    turns = [{"role": "user", "content": f"turn {number} ["} for number in range(100)]
    assert len(decode_prompt({"type": "prompt", "messages": turns}).context or ()) == 100


def test_seven_levels_are_not_too_deep_and_a_pair_of_surrogates_is_one_character() -> None:
    assert decode_prompt('{"type":"prompt","prompt":"\\ud83d\\ude00","x":' + "[" * 7 + "]" * 7 + "}").text == "😀"


def test_binary_frames_and_frames_above_a_mebibyte_are_refused() -> None:
    refusal(b'{"type":"ping"}')
    refusal('{"type":"prompt","prompt":"' + "x" * MAX_FRAME_BYTES + '"}')
    refusal('{"type":"prompt","prompt":"' + "é" * (MAX_FRAME_BYTES // 2) + '"}')


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("max_tokens", [0, -1, 1.0, True, "5", 2**31, MAX_TOKENS_LIMIT + 1, 10**30, [], {}]),
        ("temperature", [-0.1, 2.1, True, "0.7", 10**40, [], {}]),
        ("top_p", [-0.1, 1.1, False, "1"]),
        ("top_k", [-1, 1.5, True, 10**9]),
        ("min_p", [-1, 2]),
        ("repeat_penalty", [0, 3]),
        ("frequency_penalty", [-3, 3]),
        ("presence_penalty", [-3, 3]),
        ("seed", [-1, 2**32, 1.0, True, "1"]),
        ("stop", [1, [1], [""], "", ["x"] * 5, ["x" * 65], ["é" * 33], {}]),
        ("stream", [1, "true"]),
        ("model", [1, ["x"], {}]),
        ("prompt", [1, True, [], {}, "", "  \n"]),
        ("chain_id", [1.5, True, "x", -1]),
        ("session_id", ["", "x" * 129, "a\nb", "a\x1b[31m", "\u202e", "\u2028", True, 1.5, [], -1]),
        ("messages", [1, "x", {}, [1], [{}], [{"role": "tool", "content": "x"}], [{"role": "user", "content": 1}]]),
    ],
)
def test_values_of_a_wrong_type_or_out_of_range_are_refused(name: str, bad: list[object]) -> None:
    for value in bad:
        error = refusal(prompt(**{name: value}))
        expected = {"prompt": "prompt", "messages": "messages"}.get(name, name)
        assert expected in str(error), (value, str(error))


@pytest.mark.parametrize("request_value", [[], "x", 1, None])
def test_request_must_be_an_object(request_value: object) -> None:
    refusal({"type": "prompt", "request": request_value, "prompt": "a"})


@given(st.floats())
def test_every_float_as_temperature_is_in_range_or_refused(value: float) -> None:
    text = f'{{"type":"prompt","prompt":"a","temperature":{value!r}}}'
    try:
        frame = decode_frame(text)
    except ProtocolError:
        assert not (math.isfinite(value) and 0 <= value <= 2)
    else:
        assert isinstance(frame, Prompt)
        assert 0 <= frame.sampling.temperature <= 2


def test_unknown_types_and_pings_are_ignored_whatever_else_they_hold() -> None:
    for kind in ("ping", "encrypted_message", "searchRequest", "", "PING", "x" * 1000):
        assert decode({"type": kind, "job_id": "nonsense", "prompt": 5}) == Ignored()


def test_the_error_carries_the_ids_that_could_be_read() -> None:
    error = refusal({"type": "prompt", "prompt": 5, "id": "r1", "session_id": "s1"})
    assert (error.request_id, error.session_id) == ("r1", "s1")
    assert refusal('{"type":"prompt","prompt":"a","temperature":NaN,"id":7}').request_id == 7
    assert refusal('{"type":"prompt","prompt":"a","x":1,"x":2,"id":"d"}').request_id == "d"
    assert refusal({"type": "prompt", "request": {"prompt": 5, "id": "inner"}}).request_id == "inner"
    assert refusal({"type": "prompt", "prompt": 5, "id": [1], "session_id": {}}).request_id is None


@pytest.mark.parametrize("value", [True, 1.5, [], {}, "x" * 129, 2**63])
def test_an_id_that_cannot_be_echoed_is_refused(value: object) -> None:
    refusal({"type": "prompt", "prompt": "a", "id": value})


def test_messages_stand_in_for_a_prompt() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "timestamp": 5}]
    frame = decode_prompt({"type": "inference", "request": {"messages": turns}})
    assert frame.context == (Message("system", "Be brief."), Message("user", "Hi"))
    assert frame.text is None


def test_messages_beside_a_prompt_are_the_turns_before_it() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    frame = decode_prompt({"type": "inference", "request": {"conversation_context": turns, "prompt": "And now?"}})
    assert frame.context == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert frame.text == "And now?"
    doubled = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi"}
    assert decode_prompt({"type": "inference", "request": doubled}).text is None


def test_session_frames_are_read_in_both_spellings() -> None:
    init = decode({"type": "session_init", "sessionId": "s", "jobId": "12", "chainId": 84532, "id": 3})
    assert init == SessionInit("s", 3, 12, "12", 84532)
    assert decode({"type": "session_init", "session_id": "s", "job_id": 12}) == SessionInit("s", None, 12, 12, None)
    assert decode({"type": "stream_cancel", "sessionId": "s", "reason": "user_cancelled"}) == StreamCancel("s", None)
    assert decode({"type": "stream_cancel", "id": "r"}) == StreamCancel(None, "r")
    assert decode({"type": "session_end", "session_id": 77}) == SessionEnd("77")
    refusal({"type": "session_init", "job_id": 5})
    refusal({"type": "session_end", "session_id": [1]})


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**300), 2**300)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "1n", "0", "\x00"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
REQUEST_FIELDS = (
    "request",
    "prompt",
    "messages",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "stream",
)
ID_FIELDS = (
    "type",
    "job_id",
    "jobId",
    "session_id",
    "sessionId",
    "chain_id",
    "chainId",
    "id",
    "model",
    "role",
    "content",
)
FIELDS = st.sampled_from((*REQUEST_FIELDS, *ID_FIELDS))
KINDS = st.sampled_from(["inference", "prompt", "session_init", "stream_cancel", "session_end", "ping"])
ODD_FRAMES = st.builds(
    lambda kind, outer, inner, use: {**outer, "type": kind, **({"request": inner} if use else {})},
    KINDS,
    st.dictionaries(FIELDS, JSON_VALUES, max_size=6),
    st.dictionaries(FIELDS, JSON_VALUES, max_size=6) | JSON_VALUES,
    st.booleans(),
)


@settings(max_examples=1_000, deadline=None)
@given(ODD_FRAMES)
@example({"type": "prompt", "prompt": "a", "id": 10**100})
def test_odd_frames_come_out_as_a_frame_or_an_error(frame: dict[str, Any]) -> None:
    _decode_anything(json.dumps(frame))


@settings(max_examples=9_000, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_or_bytes_come_out_as_a_frame_or_an_error(data: str | bytes) -> None:
    _decode_anything(data)


def _decode_anything(data: str | bytes) -> None:
    try:
        frame = decode_frame(data)
    except ProtocolError as error:
        error_frame(error)  # it can be told to the client
        return
    if isinstance(frame, Prompt):
        assert frame.job_id is None or 0 <= frame.job_id < 2**256
        assert 1 <= frame.max_tokens <= MAX_TOKENS_LIMIT
        assert math.isfinite(frame.sampling.temperature)
        for text in [frame.text or "", frame.session_id or "", *(turn.content for turn in frame.context or ())]:
            text.encode()
        assert frame.text is not None or frame.context


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"x","a":[' + ",".join(['{"b":1}'] * 110_000) + "]}",
        '{"type":"x","a":[' + "1," * 500_000 + "1]}",
        '{"type":"x","a":' + ("[[[[[[" + "]]]]]],[[[[[[" * 80_000 + "]]]]]]").join(["[", "]"]) + "}",
        '{"type":"x","a":"' + "\\u0041" * 170_000 + '"}',
        '{"type":"x","a":"' + "\\ud83d\\ude00" * 80_000 + '"}',
    ],
)
@pytest.mark.timeout(30)  # a second is usual; what is not linear in the frame's size takes minutes
def test_the_largest_frames_are_decoded_in_linear_time(text: str) -> None:
    assert len(text) <= MAX_FRAME_BYTES
    assert decode_frame(text) == Ignored()
