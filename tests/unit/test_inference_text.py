"""Text comes out whole, complete and never past a stop string, however the tokens split it."""

from __future__ import annotations

import codecs
import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.inference.answers import Answer
from fabstir_desktop.inference.text import StreamText

ALPHABET = ["a", "b", "\n", "é", "€", "😀", "👩‍👩‍👧", "\u0301", "</s>", "STOP", " "]


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    return [raw[start:end] for start, end in itertools.pairwise(edges)]


@given(st.binary(max_size=60), st.lists(st.integers(0, 1000), max_size=20))
def test_any_split_gives_the_text_of_the_whole(raw: bytes, places: list[int]) -> None:
    stream = StreamText()
    parts = [stream.push(piece) for piece in cut(raw, places)] + [stream.finish()]
    assert "".join(parts) == raw.decode("utf-8", errors="replace")


@given(st.lists(st.sampled_from(ALPHABET), max_size=30).map("".join), st.lists(st.integers(0, 1000), max_size=30))
def test_no_piece_splits_a_character_and_at_most_three_bytes_are_held(text: str, places: list[int]) -> None:
    raw = text.encode()
    stream, given_out, seen = StreamText(), "", 0
    for piece in cut(raw, places):
        given_out += stream.push(piece)
        seen += len(piece)
        assert "\ufffd" not in given_out
        assert seen - len(given_out.encode()) <= 3


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "é", "😀"]), max_size=30).map("".join),
    st.lists(st.sampled_from(["aa", "ab", "ba", "aba", "bb😀", "éa"]), min_size=1, max_size=3),
    st.lists(st.integers(0, 1000), max_size=30),
)
def test_text_ends_before_the_first_stop_string_for_every_split(text: str, stops: list[str], places: list[int]) -> None:
    stream = StreamText(stops)
    out, consumed = "", 0
    for piece in cut(text.encode(), places):
        out += stream.push(piece)
        consumed += len(piece)
        if stream.stopped:
            break
    out += stream.finish()
    # The first stop to be complete wins; among those complete in one piece, the one that begins first.
    seen = text.encode()[:consumed].decode(errors="ignore")
    found = [place for place in (seen.find(stop) for stop in stops) if place >= 0]
    assert stream.stopped == bool(found)
    assert out == (text[: min(found)] if found else text)


def test_what_may_become_a_stop_string_is_held_and_given_out_when_it_does_not() -> None:
    stream = StreamText(["END"])
    assert stream.push(b"x E") == "x "
    assert stream.push(b"N") == ""
    assert stream.push(b"T") == "ENT"
    assert stream.push(b"EN") == ""
    assert stream.finish() == "EN"


def test_an_unfinished_character_at_the_end_becomes_the_replacement_character() -> None:
    stream = StreamText()
    assert stream.push("é".encode()[:1]) == ""
    assert stream.finish() == "\ufffd"


def test_accounts_are_exact_in_20000_generated_answers() -> None:
    """Random vocabularies of byte pieces, stops, caps and ends, against a plain model that looks at everything at once."""
    random_source = random.Random(20_000)
    for _ in range(20_000):
        vocabulary = [_random_piece(random_source) for _ in range(random_source.randint(1, 8))]
        stops = [_random_stop(random_source) for _ in range(random_source.choice([0, 0, 1, 1, 2, 3]))]
        allowed = random_source.randint(1, 12)
        script = [random_source.choice([*vocabulary, None]) for _ in range(15)]
        _check_account(script, stops, allowed)


def _random_piece(random_source: random.Random) -> bytes:
    whole = "".join(random_source.choices(ALPHABET, k=random_source.randint(1, 2))).encode()
    start = random_source.randrange(len(whole))
    return whole[start : start + random_source.randint(0, 4)]


def _random_stop(random_source: random.Random) -> str:
    return "".join(random_source.choices(["a", "b", "é", "😀", "\n", "S", "T"], k=random_source.randint(1, 3)))


def _check_account(script: list[bytes | None], stops: list[str], allowed: int) -> None:
    answer = Answer(allowed, stops)
    billed, out, ending = 0, "", None
    for piece in script:
        taken = answer.take(piece)
        billed += taken.is_billed
        out += taken.text
        ending = taken.ending
        if ending:
            break
    out += answer.finish()
    assert (billed, out, ending) == _plain_account(script, stops, allowed)
    assert answer.made_tokens == billed <= allowed


def _plain_account(script: list[bytes | None], stops: list[str], allowed: int) -> tuple[int, str, str | None]:
    """The same by looking at all bytes anew after each token."""
    raw = b""
    for count, piece in enumerate(script):
        if piece is None:
            return count, _cut(raw.decode(errors="replace"), stops)[0], "stop"
        raw += piece
        certain, is_stopped = _cut(codecs.getincrementaldecoder("utf-8")(errors="replace").decode(raw), stops)
        if is_stopped:
            return count + 1, certain, "stop"
        if count + 1 == allowed:
            return count + 1, _cut(raw.decode(errors="replace"), stops)[0], "length"
    return len(script), _cut(raw.decode(errors="replace"), stops)[0], None


def _cut(text: str, stops: list[str]) -> tuple[str, bool]:
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)
