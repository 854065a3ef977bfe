"""The one call that a host's account makes to itself: several calls in one transaction (`BatchClaims.executeBatch`).

It stands in this room because the signer reads it: what a batch does is decided by the calls inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXECUTE_BATCH = bytes.fromhex("34fcd5be")
"""Selector of `executeBatch((address,uint256,bytes)[])`."""
_CALLS = "(address,uint256,bytes)[]"


@dataclass(frozen=True, slots=True)
class BatchCall:
    """One call of a batch: to whom (0x address), with how much gas, and its calldata."""

    target: str
    gas_limit: int
    data: bytes


def encode_batch(calls: Sequence[BatchCall]) -> bytes:
    """The calldata that makes the calls, in their order."""
    from eth_abi.abi import encode  # noqa: PLC0415 - slow to import

    return EXECUTE_BATCH + encode([_CALLS], [[(one.target.lower(), one.gas_limit, one.data) for one in calls]])


def decode_batch(data: bytes) -> tuple[BatchCall, ...]:
    """The calls inside. Raises ValueError unless the data is exactly what `encode_batch` makes of them.

    So there is one reading only: no hidden second list, no bytes behind the end.
    """
    from eth_abi.abi import decode  # noqa: PLC0415
    from eth_abi.exceptions import DecodingError  # noqa: PLC0415

    try:
        if data[:4] != EXECUTE_BATCH:
            raise ValueError("not a batch of calls")
        (rows,) = decode([_CALLS], data[4:])
    except (DecodingError, OverflowError) as error:
        raise ValueError("not a batch of calls") from error
    calls = tuple(BatchCall(str(target), gas_limit, bytes(inner)) for target, gas_limit, inner in rows)
    if encode_batch(calls) != data:
        raise ValueError("a batch of calls in another form than this application writes")
    return calls
