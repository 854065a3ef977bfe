"""The one strict reading of what clients send: a typed frame, or a ProtocolError that names what is wrong. Nothing else.

Refused: anything that is not one JSON object, NaN and infinities (1e999 too), duplicate keys, nesting deeper than 8, lone
surrogates, numbers of more than 80 digits; booleans and floats where a whole number is due, and every value out of range.
Nothing is coerced. Parsing goes on after such a find as far as it can, so that the error can carry the request's id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from fabstir_desktop.jobs.generation import Message, SamplingParameters
from fabstir_desktop.jobs.ids import IdInvalid, parse_job_id
from fabstir_desktop.server.frames import (
    Frame,
    Ignored,
    Prompt,
    ProtocolError,
    RequestId,
    SessionEnd,
    SessionInit,
    StreamCancel,
)

MAX_FRAME_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 8
MAX_ID_LENGTH: Final = 128
DEFAULT_MAX_TOKENS: Final = 4000
"""What Fabstir's SDK and node assume when none is named; an answer ends at the model's window anyway."""
MAX_TOKENS_LIMIT: Final = 1 << 20
MAX_MESSAGES: Final = 512
MAX_STOPS: Final = 4
MAX_STOP_BYTES: Final = 64
ROLES: Final = frozenset({"system", "user", "assistant"})

_MAX_DIGITS = 80
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOTHING: dict[str, Any] = {}
_REFUSED = object()
"""Stands for a number that was refused, so that no check takes it for one."""


def decode_frame(data: str | bytes) -> Frame:
    """Read one message. Raises ProtocolError and nothing else, whatever the bytes are."""
    if isinstance(data, bytes):
        raise ProtocolError("frames must be JSON text, not binary")
    if len(data) > MAX_FRAME_BYTES or len(data.encode("utf-8", "surrogatepass")) > MAX_FRAME_BYTES:
        raise ProtocolError(f"the frame is larger than {MAX_FRAME_BYTES} bytes")
    frame, problem = _parse(data)
    ids = {"request_id": _readable_id(frame), "session_id": _readable_session(frame)}
    if problem is not None:
        raise ProtocolError(problem, **ids)  # type: ignore[arg-type]
    try:
        return _read(frame)
    except (_Refusal, IdInvalid) as refusal:
        raise ProtocolError(str(refusal), **ids) from None  # type: ignore[arg-type]


class _Refusal(Exception):
    """What is wrong with a field."""


# --- JSON -----------------------------------------------------------------------------------------------------------


class _Strict:
    """Hooks for the JSON parser; remembers the first thing that JSON or we forbid."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def note(self, problem: str) -> Any:
        self.problem = self.problem or problem
        return _REFUSED

    def constant(self, name: str) -> Any:
        return self.note(f"{name} is not a JSON number")

    def whole(self, digits: str) -> Any:
        return int(digits) if len(digits) <= _MAX_DIGITS else self.note("a number has too many digits")

    def fraction(self, digits: str) -> Any:
        number = float(digits) if len(digits) <= _MAX_DIGITS else math.inf
        return number if math.isfinite(number) else self.note("a number is too large")

    def members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            self.note("a key occurs twice in one object")
        return members


def _parse(text: str) -> tuple[dict[str, Any], str | None]:
    """The object and the first problem found in it. Raises ProtocolError if there is no object to be had."""
    if _is_deep(text):
        raise ProtocolError(f"the frame is nested deeper than {MAX_DEPTH}, or is not valid JSON")
    strict = _Strict()
    decoder = json.JSONDecoder(
        object_pairs_hook=strict.members,
        parse_constant=strict.constant,
        parse_int=strict.whole,
        parse_float=strict.fraction,
    )
    try:
        value = decoder.decode(text)
    except ValueError:
        raise ProtocolError("the frame is not valid JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("the frame must be a JSON object")
    if strict.problem is None and _SURROGATE.search(text) and _has_lone_surrogate(value):
        strict.note("a text holds half a character (a lone surrogate)")
    return value, strict.problem


def _is_deep(text: str) -> bool:
    """Whether brackets outside strings nest deeper than allowed (or do not pair up), found without recursion.

    Square and curly ones count alike; that they match is the parser's affair.

    Before parsing, because the parser recurses: where some library has raised Python's recursion limit, a few hundred
    thousand brackets would overflow the C stack and end the process.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub("", text).encode("utf-8", "replace").translate(_TO_BRACKETS, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # the innermost pairs, all of them and no others
    return bool(brackets)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _has_lone_surrogate(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and _is_broken(item):
            return True
        if isinstance(item, dict) and any(_is_broken(key) for key in item):
            return True
        waiting.extend(_children(item))
    return False


def _is_broken(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text) if not text.isascii() else False


# --- ids ------------------------------------------------------------------------------------------------------------


def _request_id(value: Any) -> RequestId | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= MAX_ID_LENGTH and not _is_broken(value):
        return value
    if type(value) is int and abs(value) < 1 << 63:
        return value
    raise _Refusal(f"id must be a text of at most {MAX_ID_LENGTH} characters or a whole number")


def _session_id(value: Any) -> str | None:
    if value is None:
        return None
    if type(value) is int and 0 <= value < 1 << 256:
        return str(value)
    # isprintable keeps out what could forge a log line: control characters, line separators, bidirectional marks
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable():
        return value
    raise _Refusal(f"session_id must be a text of 1 to {MAX_ID_LENGTH} printable characters")


def _readable_id(frame: Mapping[str, Any]) -> RequestId | None:
    inner = frame.get("request")
    found = frame.get("id", inner.get("id") if isinstance(inner, dict) else None)
    try:
        return _request_id(found)
    except _Refusal:
        return None


def _readable_session(frame: Mapping[str, Any]) -> str | None:
    inner = frame.get("request")
    try:
        return _session_id(_either(inner if isinstance(inner, dict) else _NOTHING, frame, "session_id", "sessionId"))
    except _Refusal:
        return None


def _either(inner: Mapping[str, Any], outer: Mapping[str, Any], *names: str) -> Any:
    """The field's value; `request` is stronger than the frame around it. Two spellings may not disagree."""
    for place in (inner, outer):
        values = [place[name] for name in names if place.get(name) is not None]
        if any(value != values[0] or type(value) is not type(values[0]) for value in values[1:]):
            raise _Refusal(f"{names[0]} is given twice, differently")
        if values:
            return values[0]
    return None


# --- fields ---------------------------------------------------------------------------------------------------------


def _read(frame: dict[str, Any]) -> Frame:
    kind = frame.get("type")
    if not isinstance(kind, str):
        raise _Refusal("type must be a text")
    match kind:
        case "inference" | "prompt":
            return _read_prompt(frame)
        case "session_init":
            return _read_session_init(frame)
        case "stream_cancel":
            session_id = _session_id(_either(_NOTHING, frame, "session_id", "sessionId"))
            return StreamCancel(session_id, _request_id(frame.get("id")))
        case "session_end":
            return SessionEnd(_session_id(_either(_NOTHING, frame, "session_id", "sessionId")))
        case _:
            return Ignored()


def _read_session_init(frame: dict[str, Any]) -> SessionInit:
    session_id = _session_id(_either(_NOTHING, frame, "session_id", "sessionId"))
    if session_id is None:
        raise _Refusal("session_init needs a session_id")
    job = _either(_NOTHING, frame, "job_id", "jobId")
    job_id = None if job is None else parse_job_id(job)
    echo = str(job_id) if isinstance(job, str) else job_id
    return SessionInit(session_id, _request_id(frame.get("id")), job_id, echo, _chain_id(_NOTHING, frame))


def _read_prompt(frame: dict[str, Any]) -> Prompt:
    inner = frame.get("request", _NOTHING)
    if not isinstance(inner, dict):
        raise _Refusal("request must be an object")
    job = _either(inner, frame, "job_id", "jobId")
    context, text = _conversation(inner, frame)
    model = _either(inner, frame, "model")
    if model is not None and not isinstance(model, str):
        raise _Refusal("model must be a text")
    stream = _either(inner, frame, "stream")
    if stream is not None and not isinstance(stream, bool):
        raise _Refusal("stream must be true or false")
    return Prompt(
        session_id=_session_id(_either(inner, frame, "session_id", "sessionId")),
        request_id=_request_id(_either(_NOTHING, frame, "id") if frame.get("id") is not None else inner.get("id")),
        job_id=None if job is None else parse_job_id(job),
        chain_id=_chain_id(inner, frame),
        context=context,
        text=text,
        max_tokens=_whole(inner, frame, "max_tokens", DEFAULT_MAX_TOKENS, 1, MAX_TOKENS_LIMIT),
        sampling=_sampling(inner, frame),
        stop=_stops(_either(inner, frame, "stop")),
    )


def _chain_id(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> int | None:
    value = _either(inner, outer, "chain_id", "chainId")
    if value is None:
        return None
    try:
        return parse_job_id(value)
    except IdInvalid:
        raise _Refusal("chain_id must be a whole number or its decimal string") from None


def _whole(inner: Mapping[str, Any], outer: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = _either(inner, outer, name)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise _Refusal(f"{name} must be a whole number from {low} to {high}")
    return value


def _number(
    inner: Mapping[str, Any], outer: Mapping[str, Any], name: str, default: float, low: float, high: float
) -> float:
    value = _either(inner, outer, name)
    if value is None:
        return default
    if type(value) not in (int, float) or not low <= value <= high:
        raise _Refusal(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def _sampling(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> SamplingParameters:
    usual = SamplingParameters()
    seed = _either(inner, outer, "seed")
    return SamplingParameters(
        temperature=_number(inner, outer, "temperature", usual.temperature, 0, 2),
        top_p=_number(inner, outer, "top_p", usual.top_p, 0, 1),
        top_k=_whole(inner, outer, "top_k", usual.top_k, 0, 1_000_000),
        min_p=_number(inner, outer, "min_p", usual.min_p, 0, 1),
        repeat_penalty=_number(inner, outer, "repeat_penalty", usual.repeat_penalty, 0.1, 2),
        frequency_penalty=_number(inner, outer, "frequency_penalty", usual.frequency_penalty, -2, 2),
        presence_penalty=_number(inner, outer, "presence_penalty", usual.presence_penalty, -2, 2),
        seed=None if seed is None else _whole(inner, outer, "seed", 0, 0, 2**32 - 1),
    )


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise _Refusal(f"stop must be a text or a list of at most {MAX_STOPS} texts")
    if any(not isinstance(stop, str) or not 0 < len(stop.encode()) <= MAX_STOP_BYTES for stop in stops):
        raise _Refusal(f"each stop must be a text of 1 to {MAX_STOP_BYTES} bytes")
    return tuple(stops)


def _conversation(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> tuple[tuple[Message, ...] | None, str | None]:
    text = _either(inner, outer, "prompt")
    given = _either(inner, outer, "messages", "conversation_context", "conversationContext")
    if text is not None and not isinstance(text, str):
        raise _Refusal("prompt must be a text")
    context = None if given is None else _messages(given)
    if context and text and context[-1] == Message("user", text):
        text = None  # the new turn stands in both places
    if context and not text:
        return context, None
    if not text or not text.strip():
        raise _Refusal("a prompt is needed: a text in prompt, or a list in messages")
    return context, text


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or len(value) > MAX_MESSAGES:
        raise _Refusal(f"messages must be a list of at most {MAX_MESSAGES} turns")
    return tuple(_message(item) for item in value)


def _message(value: Any) -> Message:
    if not isinstance(value, dict):
        raise _Refusal("each of messages must be an object with role and content")
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or role not in ROLES or not isinstance(content, str):
        raise _Refusal("each of messages needs a role (system, user or assistant) and a content (text)")
    return Message(role, content)
