"""Signed bytes read without any of the product's code."""

from __future__ import annotations

from dataclasses import dataclass

from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes


@dataclass(frozen=True)
class RawTransaction:
    """What signed bytes say; `sender` is whose signature they have."""

    tx_hash: bytes
    sender: str
    nonce: int
    to: str
    value_wei: int
    data: bytes
    max_fee_per_gas_wei: int
    max_priority_fee_per_gas_wei: int

    @property
    def payload(self) -> tuple[str, int, bytes]:
        """All that a dearer attempt may not change."""
        return self.to, self.value_wei, self.data


def read_raw(raw: bytes) -> RawTransaction:
    """Read the bytes of a transaction with EIP-1559 fees."""
    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    return RawTransaction(
        tx_hash=keccak(raw),
        sender=str(Account.recover_transaction(raw)).lower(),
        nonce=int(fields["nonce"]),
        to="0x" + bytes(fields["to"]).hex(),
        value_wei=int(fields["value"]),
        data=bytes(fields["data"]),
        max_fee_per_gas_wei=int(fields["maxFeePerGas"]),
        max_priority_fee_per_gas_wei=int(fields["maxPriorityFeePerGas"]),
    )


def read_raw_text(raw: str) -> RawTransaction:
    """The same for bytes as JSON-RPC has them."""
    return read_raw(bytes.fromhex(raw[2:]))
