"""Private keys: reading them strictly, and not showing them."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.errors import KeyInvalid
from fabstir_desktop.wallet.keys import CURVE_ORDER, SecretKey, parse_private_key, read_private_key

CANARY = "5ca1ab1e0ddba11c0ffee5ca1ab1e0ddba11c0ffee5ca1ab1e0ddba11c0ffee5"
KNOWN_ADDRESS = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"  # of the key 0x11..11


def test_a_key_is_read_with_or_without_prefix_in_any_case_and_with_spaces_around() -> None:
    expected = parse_private_key(CANARY)
    for text in ("0x" + CANARY, "0X" + CANARY.upper(), f"  {CANARY}\n"):
        assert parse_private_key(text) == expected
    assert parse_private_key("0x" + "11" * 32).address == KNOWN_ADDRESS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing was given"),
        ("0x", "nothing was given"),
        (CANARY[:-1], "64 hexadecimal digits expected, got 63"),
        (CANARY + "a", "64 hexadecimal digits expected, got 65"),
        ("0x" + CANARY[:40], "that is the length of an address"),
        (CANARY[:-1] + "g", "1 character is none"),
        (CANARY[:-2] + "\ud800é", "2 characters are none"),
        ("0" * 64, "outside the range"),
        (f"{CURVE_ORDER:064x}", "outside the range"),
        (" ".join(["abandon"] * 12), "recovery phrase"),
        ("0x0x" + CANARY[:62], "1 character is none"),
        (CANARY[:63] + "１", "1 character is none"),  # a full-width digit is no digit here
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(KeyInvalid, match=words):
        parse_private_key(text)


@given(st.integers(min_value=1, max_value=CURVE_ORDER - 1), st.booleans())
def test_every_number_of_the_curve_is_a_key_and_comes_back(number: int, prefixed: bool) -> None:
    text = f"{'0x' if prefixed else ''}{number:064x}"
    assert int.from_bytes(parse_private_key(text).reveal(), "big") == number
    assert parse_private_key(text).reveal_hex() == f"0x{number:064x}"


@given(st.text(max_size=200))
def test_any_text_is_a_key_or_a_plain_refusal_that_does_not_repeat_it(text: str) -> None:
    result = read_private_key(text)
    if isinstance(result, KeyInvalid):
        assert len(text.strip()) < 8 or text.strip() not in str(result)


@given(st.text(alphabet="0123456789abcdefABCDEFxg", min_size=16, max_size=90))
def test_a_refusal_of_something_like_a_key_holds_no_part_of_it(text: str) -> None:
    result = read_private_key(text)
    assert not any(text[start : start + 12] in str(result) for start in range(len(text) - 11))


def test_a_key_shows_itself_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    key = parse_private_key(CANARY)
    logging.getLogger("test").warning("%s %r", key, [key])
    shown = [repr(key), str(key), f"{key}", f"{key!r:>20}", repr({"key": key}), caplog.text]
    assert not any(CANARY[:12] in text for text in shown)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy, lambda key: key.__reduce__()])
def test_a_key_is_not_pickled_or_copied(leave: object) -> None:
    key = parse_private_key(CANARY)
    with pytest.raises(TypeError) as caught:
        leave(key)  # type: ignore[operator]
    assert CANARY[:12] not in repr(caught.value)


@pytest.mark.parametrize("broken", [CANARY[:-1] + "g", CANARY[:-1] + "é", CANARY + "00", CANARY[:-1] + "\ud800"])
def test_a_traceback_with_locals_of_a_failed_reading_does_not_hold_the_text(broken: str) -> None:
    with pytest.raises(KeyInvalid) as caught:
        parse_private_key(broken)
    # The frame of this test holds the text; those below it must not.
    below = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    shown = "".join(traceback.TracebackException(KeyInvalid, caught.value, below, capture_locals=True).format())
    assert "parse_private_key" in shown
    assert CANARY[:12] not in shown
    assert CANARY[:12] not in repr(caught.value)


def test_a_key_made_of_bytes_outside_the_range_is_refused() -> None:
    for secret in (b"", bytes(32), b"\xff" * 32, b"\x01" * 31):
        with pytest.raises(KeyInvalid):
            SecretKey(secret)
