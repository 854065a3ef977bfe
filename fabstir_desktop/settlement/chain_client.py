"""Typed questions to the chain, each answered from one block or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fabstir_desktop.errors import CallReverted, ChainError, RpcRefused, RpcUnreachable
from fabstir_desktop.settlement.abi import ContractCall, revert_reason
from fabstir_desktop.settlement.classifier import Answer, SendAnswer, classify
from fabstir_desktop.settlement.fees import FeeMarket
from fabstir_desktop.settlement.rpc_pool import RpcPool, quantity
from fabstir_desktop.wallet.signer import SignedAuthorization, to_checksum_address

FEE_BLOCKS = 20
MOST_GAS = 2**32
"""Far above every chain's blocks; an estimate beyond it is no answer."""
SAFE_FALLBACK_BLOCKS = 150
FINAL_FALLBACK_BLOCKS = 900
GAS_PRICE_ORACLE = "0x420000000000000000000000000000000000000F"
L1_UPPER_BOUND = ContractCall("getL1FeeUpperBound", ("uint256",), ("uint256",))


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block: its number, hash, time (seconds since the epoch) and base fee."""

    number: int
    block_hash: bytes
    timestamp: int
    base_fee_wei: int


@dataclass(frozen=True, slots=True)
class EventLog:
    """One log entry."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    tx_hash: bytes
    log_index: int
    block_number: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a block says about a transaction; `fee_wei` includes an OP-stack chain's L1 data fee."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    fee_wei: int
    logs: tuple[EventLog, ...]


@dataclass(frozen=True, slots=True)
class BlockTransaction:
    """A transaction inside a block: who sent it, with which nonce, and what it calls (`to` is empty for a creation)."""

    tx_hash: bytes
    sender: str
    nonce: int
    to: str
    data: bytes
    authorizations: tuple[SignedAuthorization, ...] = ()
    """Of a transaction of type 4 (EIP-7702): each one that is valid spends a nonce of whoever signed it."""


class ChainClient:
    """Questions to one chain. Every method raises RpcUnreachable, RpcRefused or WrongChain."""

    def __init__(self, pool: RpcPool) -> None:
        self.pool = pool

    async def head(self) -> BlockRef:
        """The newest block."""
        block = await self.block("latest")
        if block is None:
            raise RpcUnreachable("the RPC knows no newest block")
        return block

    async def block(self, which: int | str) -> BlockRef | None:
        """A block by number or tag; None if the node has none."""
        fields = await self.pool.request("eth_getBlockByNumber", _block(which), False)
        return _read_block(fields) if fields is not None else None

    async def settled_number(self, tag: str, head: BlockRef) -> int:
        """The number of the `safe` or `finalized` block; a fixed depth below the head where the node has no such tag."""
        fallback = SAFE_FALLBACK_BLOCKS if tag == "safe" else FINAL_FALLBACK_BLOCKS
        try:
            block = await self.block(tag)
        except RpcRefused:
            block = None
        return min(block.number, head.number) if block is not None else max(0, head.number - fallback)

    async def transactions_of_block(self, number: int) -> list[BlockTransaction]:
        """Each transaction in a block."""
        fields = await self.pool.request("eth_getBlockByNumber", hex(number), True)
        if not isinstance(fields, dict):
            raise RpcUnreachable(f"the RPC does not know block {number}")
        return [_read_transaction(one) for one in fields.get("transactions", ())]

    async def transaction_count(self, address: str, which: int | str = "latest") -> int:
        """How many transactions of the sender are mined: its next nonce. Never asked for `pending`."""
        answer = await self.pool.request("eth_getTransactionCount", address, _block(which))
        return quantity(answer, "eth_getTransactionCount")

    async def balance_wei(self, address: str) -> int:
        """The balance at the newest block."""
        return quantity(await self.pool.request("eth_getBalance", address, "latest"), "eth_getBalance")

    async def code(self, address: str) -> bytes:
        """The code at an address; empty if there is none."""
        return hex_bytes(await self.pool.request("eth_getCode", address, "latest"))

    async def storage(self, address: str, slot: int) -> bytes:
        """One storage word."""
        return hex_bytes(await self.pool.request("eth_getStorageAt", address, f"0x{slot:064x}", "latest"))

    async def call(self, to: str, data: bytes, *, sender: str | None = None, which: int | str = "latest") -> bytes:
        """`eth_call`. Raises CallReverted with the contract's reason."""
        try:
            answer = await self.pool.request("eth_call", _call_fields(to, data, sender), _block(which))
        except RpcRefused as error:
            raise _reverted(error) from None
        return hex_bytes(answer)

    async def estimate_gas(self, to: str, data: bytes, *, sender: str) -> int:
        """Gas the call needs at the newest block. Raises CallReverted."""
        try:
            # Left out, the block is the pending one for some nodes: with what other claims in the pool will have paid for,
            # such as a receiver's first balance, and that is missing if they are never mined.
            answer = await self.pool.request("eth_estimateGas", _call_fields(to, data, sender), "latest")
        except RpcRefused as error:
            raise _reverted(error) from None
        gas = quantity(answer, "eth_estimateGas")
        if not 0 < gas <= MOST_GAS:
            raise RpcUnreachable("the gas estimate is none: no block has room for it")
        return gas

    async def fee_market(self, head: BlockRef) -> FeeMarket:
        """Base fee and recent tips; without a fee history the head's base fee and no tips."""
        try:
            answer = await self.pool.request("eth_feeHistory", hex(FEE_BLOCKS), "latest", [50])
        except RpcRefused:
            return FeeMarket(head.base_fee_wei)
        return _read_fee_history(answer, head)

    async def l1_fee_wei(self, transaction_size: int) -> int:
        """An upper bound of the L1 data fee on an OP-stack chain; call it only where the oracle has code."""
        data = L1_UPPER_BOUND.encode(transaction_size)
        try:
            return int(L1_UPPER_BOUND.decode(await self.call(GAS_PRICE_ORACLE, data))[0])
        except (CallReverted, ValueError):
            return 0

    async def receipt(self, tx_hash: bytes) -> Receipt | None:
        """The receipt; None says nothing but that this node has none just now."""
        try:
            answer = await self.pool.request("eth_getTransactionReceipt", "0x" + tx_hash.hex())
        except RpcRefused as error:
            if classify(error.detail, error.code) is Answer.NO_INFORMATION:
                return None
            raise
        return read_receipt(answer) if isinstance(answer, dict) else None

    async def receipts_everywhere(self, tx_hash: bytes) -> list[Receipt | ChainError | None]:
        """What each endpoint says about a transaction."""
        answers = await self.pool.ask_all("eth_getTransactionReceipt", "0x" + tx_hash.hex())
        return [read_receipt(answer) if isinstance(answer, dict) else answer for answer in answers]

    async def logs(
        self, address: str, topics: Sequence[Sequence[bytes] | None], first_block: int, last_block: int
    ) -> list[EventLog]:
        """Logs of a contract in a range of blocks, both included; each topic is a choice of several or any.

        Only a node that has the last block is believed: an empty list of another one says nothing.
        """
        query = {
            "address": address,
            "fromBlock": hex(first_block),
            "toBlock": hex(last_block),
            "topics": [None if choice is None else ["0x" + one.hex() for one in choice] for choice in topics],
        }
        answer = await self.pool.request_below_head(last_block, "eth_getLogs", query)
        if not isinstance(answer, list):
            raise RpcUnreachable("the answer to eth_getLogs is no list")
        return [read_log(entry) for entry in answer if not entry.get("removed")]

    async def send_raw(self, raw: bytes, tx_hash: bytes) -> list[SendAnswer]:
        """Hand the bytes to every endpoint."""
        return await self.pool.send_raw(raw, tx_hash)


def hex_bytes(value: object) -> bytes:
    """Bytes from 0x hex. Raises RpcUnreachable: such an answer is no answer."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise RpcUnreachable("the RPC's answer is not hexadecimal")


def read_receipt(fields: dict[str, Any]) -> Receipt:
    """A receipt from its JSON."""
    try:
        gas_used = int(fields["gasUsed"], 16)
        price = int(fields.get("effectiveGasPrice") or "0x0", 16)
        l1_fee = int(fields.get("l1Fee") or "0x0", 16)
        return Receipt(
            tx_hash=hex_bytes(fields["transactionHash"]),
            block_number=int(fields["blockNumber"], 16),
            block_hash=hex_bytes(fields["blockHash"]),
            succeeded=int(fields["status"], 16) == 1,
            gas_used=gas_used,
            fee_wei=gas_used * price + l1_fee,
            logs=tuple(read_log(entry) for entry in fields.get("logs", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RpcUnreachable("the receipt cannot be read") from error


def read_log(fields: dict[str, Any]) -> EventLog:
    """A log entry from its JSON."""
    try:
        return EventLog(
            address=str(fields["address"]),
            topics=tuple(hex_bytes(topic) for topic in fields["topics"]),
            data=hex_bytes(fields["data"]),
            tx_hash=hex_bytes(fields["transactionHash"]),
            log_index=int(fields["logIndex"], 16),
            block_number=int(fields["blockNumber"], 16),
            block_hash=hex_bytes(fields["blockHash"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RpcUnreachable("a log entry cannot be read") from error


def _read_block(fields: Any) -> BlockRef:
    try:
        return BlockRef(
            number=int(fields["number"], 16),
            block_hash=hex_bytes(fields["hash"]),
            timestamp=int(fields["timestamp"], 16),
            base_fee_wei=int(fields.get("baseFeePerGas") or "0x0", 16),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RpcUnreachable("the block cannot be read") from error


def _read_transaction(fields: Any) -> BlockTransaction:
    try:
        return BlockTransaction(
            tx_hash=hex_bytes(fields["hash"]),
            sender=str(fields["from"]).lower(),
            nonce=int(fields["nonce"], 16),
            to=str(fields.get("to") or "").lower(),
            data=hex_bytes(fields.get("input") or fields.get("data") or "0x"),
            authorizations=tuple(_read_authorization(one) for one in fields.get("authorizationList") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RpcUnreachable("a transaction of the block cannot be read") from error


def _read_authorization(fields: Any) -> SignedAuthorization:
    parity = fields["yParity"] if "yParity" in fields else fields["v"]
    numbers = (int(one, 16) for one in (fields["chainId"], fields["nonce"], parity, fields["r"], fields["s"]))
    chain_id, nonce, y_parity, r, s = numbers
    return SignedAuthorization(chain_id, to_checksum_address(str(fields["address"])), nonce, y_parity, r, s)


def _read_fee_history(answer: Any, head: BlockRef) -> FeeMarket:
    try:
        tips = tuple(int(row[0], 16) for row in answer.get("reward") or () if row)
        base_fees = [int(fee, 16) for fee in answer["baseFeePerGas"]]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RpcUnreachable("the fee history cannot be read") from error
    # The history ends with the next block's base fee; a head that is newer than the history counts too.
    return FeeMarket(max([head.base_fee_wei, *base_fees[-1:]]), tips)


def _reverted(error: RpcRefused) -> ChainError:
    if classify(error.detail, error.code) is not Answer.REVERT and not error.data:
        return error
    reason = revert_reason(bytes.fromhex(error.data[2:])) if _is_hex(error.data) else None
    if reason is None:
        reason = error.detail.partition("revert")[2].partition(":")[2].strip() or "no reason given"
    return CallReverted(reason, reason=reason)


def _is_hex(text: str) -> bool:
    return len(text) > 2 and len(text) % 2 == 0 and all(one in "0123456789abcdefABCDEF" for one in text[2:])


def _call_fields(to: str, data: bytes, sender: str | None) -> dict[str, str]:
    fields = {"to": to, "data": "0x" + data.hex()}
    if sender is not None:
        fields["from"] = sender
    return fields


def _block(which: int | str) -> str:
    return hex(which) if isinstance(which, int) else which
