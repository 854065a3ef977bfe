"""Calls and events by their signature: thin words over eth_abi, which is slow to import and therefore imported late."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

ERROR_STRING = bytes.fromhex("08c379a0")
PANIC = bytes.fromhex("4e487b71")


@dataclass(frozen=True)
class ContractCall:
    """A function: its name, its input types, its output types."""

    name: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @cached_property
    def selector(self) -> bytes:
        """The first four bytes of its calldata."""
        return _keccak(f"{self.name}({','.join(self.inputs)})")[:4]

    def encode(self, *values: Any) -> bytes:
        """The calldata."""
        from eth_abi.abi import encode  # noqa: PLC0415

        return self.selector + encode(self.inputs, values)

    def decode_inputs(self, calldata: bytes) -> tuple[Any, ...]:
        """The values a call was made with. Raises ValueError if the calldata is none of this function's."""
        if calldata[:4] != self.selector:
            raise ValueError(f"not a call of {self.name}")
        return _decode(self.inputs, calldata[4:])

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """The values it returned. Raises ValueError if `data` is no such answer."""
        return _decode(self.outputs, data)


@dataclass(frozen=True)
class ContractEvent:
    """An event: its name, the types of its indexed arguments, then of the others (indexed ones come first in all of ours)."""

    name: str
    indexed: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    order: tuple[str, ...] = field(default=())
    """The types in the order of the declaration, where indexed ones do not come first."""

    @cached_property
    def topic(self) -> bytes:
        """The first topic of its logs."""
        return _keccak(f"{self.name}({','.join(self.order or (*self.indexed, *self.data))})")

    def decode(self, topics: tuple[bytes, ...], data: bytes) -> tuple[Any, ...]:
        """Indexed values, then the others. Raises ValueError if the log is none of this event."""
        if not topics or topics[0] != self.topic or len(topics) != len(self.indexed) + 1:
            raise ValueError(f"not a log of {self.name}")
        indexed = tuple(_decode((kind,), topic)[0] for kind, topic in zip(self.indexed, topics[1:], strict=True))
        return (*indexed, *_decode(self.data, data))


def revert_reason(data: bytes) -> str | None:
    """The reason in revert data: the string, `Panic(0x11)`, or the selector of a custom error. None if there is none."""
    if data[:4] == ERROR_STRING:
        try:
            return str(_decode(("string",), data[4:])[0])
        except ValueError:
            return None
    if data[:4] == PANIC and len(data) == 36:
        return f"Panic(0x{int.from_bytes(data[4:], 'big'):02x})"
    return f"error 0x{data[:4].hex()}" if len(data) >= 4 else None


def _decode(kinds: tuple[str, ...], data: bytes) -> tuple[Any, ...]:
    from eth_abi.abi import decode  # noqa: PLC0415
    from eth_abi.exceptions import DecodingError  # noqa: PLC0415

    try:
        return tuple(decode(kinds, data))
    except (DecodingError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError("not the data that was expected") from error


def _keccak(text: str) -> bytes:
    from eth_utils.crypto import keccak  # noqa: PLC0415

    return keccak(text=text)
