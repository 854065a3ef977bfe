"""Private keys: the one strict reading, and a box that does not show what is in it.

The box protects against accidents (a log line, a repr, a pickle, a traceback with locals), not against code that wants
the key. Functions that hold the key as text delete it before they raise, because a traceback keeps their locals.
"""

from __future__ import annotations

import hmac
import string
import sys
from typing import NoReturn

from fabstir_desktop.errors import KeyInvalid

# The order of the curve secp256k1: a key is a whole number from 1 to this minus 1.
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY_DIGITS = 64
_HEX_DIGITS = frozenset(string.hexdigits)


class SecretKey:
    """A private key that prints as `<redacted>` and refuses to be pickled or copied."""

    __slots__ = ("_address", "_secret")

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes; use `parse_private_key` for text. Raises KeyInvalid outside the valid range."""
        if len(secret) != KEY_DIGITS // 2 or not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
            del secret
            raise KeyInvalid("this number is outside the range of private keys")
        self._secret = secret
        self._address: str | None = None

    @property
    def address(self) -> str:
        """The checksummed address. The first call computes (some 0.2 s with the import): make it off the loop."""
        if self._address is None:
            from eth_keys.datatypes import PrivateKey  # noqa: PLC0415 - slow to import

            self._address = PrivateKey(self._secret).public_key.to_checksum_address()
        return self._address

    def reveal(self) -> bytes:
        """The 32 bytes, for the signer and the stores alone."""
        return self._secret

    def reveal_hex(self) -> str:
        """The key as 0x and 64 digits, for the stores alone."""
        return "0x" + self._secret.hex()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and hmac.compare_digest(self._secret, other._secret)

    __hash__ = None  # type: ignore[assignment]  # a key is no key of a dict

    def __repr__(self) -> str:
        return "<redacted>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a private key is not pickled or copied")


def parse_private_key(text: str) -> SecretKey:
    """Read 64 hexadecimal digits, with or without 0x, spaces around them allowed.

    Raises KeyInvalid, whose message says what is wrong and never repeats the text.
    """
    result = read_private_key(text)
    del text
    if isinstance(result, KeyInvalid):
        raise result
    return result


def read_private_key(text: str) -> SecretKey | KeyInvalid:
    """Like `parse_private_key`, but the error is returned: for callers whose own locals still hold the text."""
    digits = text.strip()
    if digits[:2] in {"0x", "0X"}:
        digits = digits[2:]
    strangers = sum(character not in _HEX_DIGITS for character in digits)
    if not digits:
        return KeyInvalid(f"a private key has {KEY_DIGITS} hexadecimal digits; nothing was given")
    if strangers:
        return KeyInvalid(_explain_strangers(digits, strangers))
    if len(digits) != KEY_DIGITS:
        return KeyInvalid(f"{KEY_DIGITS} hexadecimal digits expected, got {len(digits)}{_guess(len(digits))}")
    if not 0 < int(digits, 16) < CURVE_ORDER:
        return KeyInvalid("this number is outside the range of private keys")
    return SecretKey(bytes.fromhex(digits))


def forbid_core_dumps() -> None:
    """Let a crash of this process leave no image of its memory, which holds the key. Windows has none by default.

    The process stays readable to the same user's debuggers and desktop portals, which need that.
    """
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _explain_strangers(digits: str, strangers: int) -> str:
    if len(digits.split()) in {12, 15, 18, 21, 24}:
        return "this looks like a recovery phrase; export the private key of the one account from your wallet"
    kind = "character is" if strangers == 1 else "characters are"
    return f"{KEY_DIGITS} hexadecimal digits (0-9, a-f) expected; {strangers} {kind} none"


def _guess(digit_count: int) -> str:
    return {40: " (that is the length of an address)", 128: " (that is the length of a public key)"}.get(
        digit_count, ""
    )
