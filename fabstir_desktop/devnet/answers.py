"""JSON-RPC's words: faults as nodes give them, and the hex in which numbers and bytes travel."""

from __future__ import annotations

from typing import Any

from fabstir_desktop.errors import FabstirError

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
SERVER_ERROR = -32000
EXECUTION_REVERTED = 3

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
_PANIC_TEXT = {
    0x01: "assert(false)",
    0x11: "arithmetic underflow or overflow",
    0x12: "division or modulo by zero",
    0x32: "out-of-bounds access of an array or bytesN",
}


class RpcFault(FabstirError):
    """A JSON-RPC error object: `code`, `message` and, for reverts, `data` as hex."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, Any]:
        """Return the `error` member of an answer."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        return body if self.data is None else body | {"data": self.data}


def revert_fault(data: bytes) -> RpcFault:
    """Return what geth answers to a reverted call: code 3 with reason and data, or a bare -32000 without any."""
    if not data:
        return RpcFault(SERVER_ERROR, "execution reverted")
    reason = revert_reason(data)
    text = f"execution reverted: {reason}" if reason else "execution reverted"
    return RpcFault(EXECUTION_REVERTED, text, to_hex(data))


def revert_reason(data: bytes) -> str:
    """Return the text of `Error(string)` or `Panic(uint256)`; empty for a custom error."""
    selector, body = data[:4], data[4:]
    if selector == _PANIC and len(body) == 32:
        code = int.from_bytes(body, "big")
        return _PANIC_TEXT.get(code, f"unknown panic code: {code:#x}")
    if selector != _ERROR_STRING or len(body) < 64:
        return ""
    length = int.from_bytes(body[32:64], "big")
    return body[64 : 64 + length].decode("utf-8", "replace")


def quantity(value: int) -> str:
    """Return a number as JSON-RPC writes it: hex without leading zeros."""
    return hex(value)


def to_hex(data: bytes) -> str:
    """Return bytes as `0x` and hex."""
    return "0x" + data.hex()


def from_hex(text: object, what: str, length: int | None = None) -> bytes:
    """Read `0x` hex of a given length in bytes. Raises RpcFault (invalid params) for anything else."""
    try:
        if not isinstance(text, str) or not text.startswith("0x"):
            raise ValueError
        data = bytes.fromhex(text[2:])
    except ValueError:
        raise RpcFault(INVALID_PARAMS, f"invalid argument: {what} must be 0x-prefixed hex") from None
    if length is not None and len(data) != length:
        raise RpcFault(INVALID_PARAMS, f"invalid argument: {what} must have {length} bytes, has {len(data)}")
    return data


def read_quantity(text: object, what: str) -> int:
    """Read a number in hex. Raises RpcFault (invalid params) for anything else."""
    try:
        if not isinstance(text, str) or not text.startswith("0x"):
            raise ValueError
        return int(text, 16)
    except ValueError:
        raise RpcFault(INVALID_PARAMS, f"invalid argument: {what} must be a hex number") from None
