"""The JSON-RPC methods of the embedded chain, so that a client talks to it exactly as to a node on the network.

`evm_*` and `anvil_*` are the few controls that tests need, under the names that anvil gave them.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from typing import Any

from fabstir_desktop.devnet.answers import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    SERVER_ERROR,
    RpcFault,
    from_hex,
    quantity,
    read_quantity,
    to_hex,
)
from fabstir_desktop.devnet.encoding import (
    block_json,
    block_logs,
    effective_gas_price,
    receipt_json,
    transaction_json,
)
from fabstir_desktop.devnet.evm import CallRequest, DevChain, MinedBlock

CLIENT_VERSION = "fabstir-devnet/1 (py-evm)"
PRIORITY_FEE_WEI = 1_000_000
MAX_BATCH = 1_000
MAX_FEE_HISTORY = 1_024

_log = logging.getLogger(__name__)


class RpcMethods:
    """Answers requests and batches. Everything runs at once, in the order of arrival."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain
        self._methods: dict[str, Callable[..., Any]] = {
            "eth_chainId": lambda: quantity(chain.chain_id),
            "net_version": lambda: str(chain.chain_id),
            "web3_clientVersion": lambda: CLIENT_VERSION,
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_blockNumber": lambda: quantity(chain.head_number),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getTransactionCount": self._transaction_count,
            "eth_getBalance": lambda address, tag="latest": quantity(self._state(tag).get_balance(_address(address))),
            "eth_getCode": lambda address, tag="latest": to_hex(self._state(tag).get_code(_address(address))),
            "eth_getStorageAt": self._storage_at,
            "eth_call": lambda call, tag="latest": to_hex(chain.call(_call_request(call), self._number(tag))),
            "eth_estimateGas": self._estimate_gas,
            "eth_sendRawTransaction": lambda raw: to_hex(chain.submit(from_hex(raw, "transaction"))),
            "eth_getTransactionByHash": self._transaction_by_hash,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._logs,
            "eth_feeHistory": self._fee_history,
            "eth_maxPriorityFeePerGas": lambda: quantity(PRIORITY_FEE_WEI),
            "eth_gasPrice": lambda: quantity(chain.next_base_fee_wei + PRIORITY_FEE_WEI),
            "evm_mine": self._mine,
            "evm_setAutomine": self._set_automine,
            "evm_increaseTime": self._increase_time,
            "anvil_dropTransaction": self._drop,
        }

    def answer(self, body: bytes) -> bytes:
        """Answer one HTTP body: a request or a batch of them."""
        try:
            message = json.loads(body)
        except ValueError:
            return json.dumps(_failure(None, RpcFault(PARSE_ERROR, "parse error"))).encode()
        if isinstance(message, list):
            return json.dumps(self._batch(message)).encode()
        return json.dumps(self._one(message)).encode()

    def _batch(self, messages: list[Any]) -> Any:
        if not messages or len(messages) > MAX_BATCH:
            return _failure(None, RpcFault(INVALID_REQUEST, "empty batch" if not messages else "batch too large"))
        return [self._one(message) for message in messages]

    def _one(self, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            return _failure(None, RpcFault(INVALID_REQUEST, "invalid request"))
        request_id = message.get("id")
        try:
            result = self._dispatch(message["method"], message.get("params") or [])
        except RpcFault as fault:
            return _failure(request_id, fault)
        except Exception:  # noqa: BLE001  one bad request must not end the chain; it is logged and answered
            _log.exception("the embedded chain failed at %s", message["method"])
            return _failure(request_id, RpcFault(SERVER_ERROR, "internal error"))
        return {"jsonrpc": "2.0", "id": request_id, "result": result}

    def _dispatch(self, method: str, params: Any) -> Any:
        handler = self._methods.get(method)
        if handler is None:
            raise RpcFault(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
        if not isinstance(params, list):
            raise RpcFault(INVALID_PARAMS, "params must be a list")
        try:
            inspect.signature(handler).bind(*params)
        except TypeError as error:
            raise RpcFault(INVALID_PARAMS, f"invalid arguments for {method}: {error}") from error
        return handler(*params)

    # --- blocks and state -------------------------------------------------------------------------------------------

    def _number(self, tag: Any) -> int:
        """Read a block tag. Without reorgs every block is final as soon as it is mined."""
        if isinstance(tag, dict):
            return self._number_of_reference(tag)
        if tag in ("latest", "pending", "safe", "finalized"):
            return self._chain.head_number
        return 0 if tag == "earliest" else read_quantity(tag, "block number")

    def _number_of_reference(self, reference: dict[str, Any]) -> int:
        if "blockNumber" in reference:
            return self._number(reference["blockNumber"])
        number = self._chain.number_of(from_hex(reference.get("blockHash"), "block hash", 32))
        if number is None:
            raise RpcFault(SERVER_ERROR, "header for hash not found")
        return number

    def _state(self, tag: Any) -> Any:
        return self._chain.state_at(self._number(tag))

    def _block_by_number(self, tag: Any, full: bool = False) -> Any:
        mined = self._chain.block_at(self._number(tag))
        return block_json(mined, full=full) if mined else None

    def _block_by_hash(self, block_hash: Any, full: bool = False) -> Any:
        number = self._chain.number_of(from_hex(block_hash, "block hash", 32))
        return None if number is None else self._block_by_number(quantity(number), full)

    def _block_receipts(self, tag: Any) -> Any:
        mined = self._chain.block_at(self._number(tag))
        return [receipt_json(mined, index) for index in range(len(mined.receipts))] if mined else None

    def _transaction_count(self, address: Any, tag: Any = "latest") -> str:
        account = _address(address)
        if tag == "pending":
            return quantity(self._chain.pending_nonce(account))
        return quantity(self._state(tag).get_nonce(account))

    def _storage_at(self, address: Any, slot: Any, tag: Any = "latest") -> str:
        value = self._state(tag).get_storage(_address(address), read_quantity(slot, "storage slot"))
        return to_hex(value.to_bytes(32, "big"))

    def _estimate_gas(self, call: Any, tag: Any = "latest", *_: Any) -> str:
        return quantity(self._chain.estimate_gas(_call_request(call), self._number(tag)))

    # --- transactions and logs --------------------------------------------------------------------------------------

    def _place(self, tx_hash: Any) -> tuple[MinedBlock, int] | None:
        place = self._chain.place_of(from_hex(tx_hash, "transaction hash", 32))
        mined = self._chain.block_at(place[0]) if place else None
        return (mined, place[1]) if mined and place else None

    def _transaction_by_hash(self, tx_hash: Any) -> Any:
        place = self._place(tx_hash)
        if place is not None:
            mined, index = place
            return transaction_json(mined.block.transactions[index], mined, index)
        waiting = self._chain.pool.find(from_hex(tx_hash, "transaction hash", 32))
        return transaction_json(waiting.transaction, None, 0) if waiting else None

    def _receipt(self, tx_hash: Any) -> Any:
        place = self._place(tx_hash)
        return receipt_json(*place) if place else None

    def _logs(self, query: Any) -> list[dict[str, Any]]:
        if not isinstance(query, dict):
            raise RpcFault(INVALID_PARAMS, "the filter must be an object")
        first, last = self._log_range(query)
        addresses, topics = _addresses(query.get("address")), query.get("topics") or []
        blocks = (self._chain.block_at(number) for number in range(first, min(last, self._chain.head_number) + 1))
        return [
            log
            for mined in blocks
            if mined and mined.receipts
            for log in block_logs(mined)
            if (not addresses or log["address"] in addresses) and _topics_match(log["topics"], topics)
        ]

    def _log_range(self, query: dict[str, Any]) -> tuple[int, int]:
        if "blockHash" in query:
            number = self._number_of_reference(query)
            return number, number
        first, last = (self._number(query.get(side) or "latest") for side in ("fromBlock", "toBlock"))
        if first > last:
            raise RpcFault(INVALID_PARAMS, "invalid block range params")
        return first, last

    # --- fees -------------------------------------------------------------------------------------------------------

    def _fee_history(self, count: Any, newest: Any, percentiles: Any = None) -> dict[str, Any]:
        blocks = count if isinstance(count, int) else read_quantity(count, "block count")
        last = self._number(newest)
        if last > self._chain.head_number:
            raise RpcFault(SERVER_ERROR, f"request beyond head block: requested {last}, head {self._chain.head_number}")
        first = max(0, last - min(blocks, MAX_FEE_HISTORY) + 1)
        mined = [item for item in map(self._chain.block_at, range(first, last + 1)) if item]
        after = self._chain.block_at(last + 1)
        next_base_fee = after.header.base_fee_per_gas if after else self._chain.next_base_fee_wei
        answer = {
            "oldestBlock": quantity(first),
            "baseFeePerGas": [quantity(item.header.base_fee_per_gas) for item in mined] + [quantity(next_base_fee)],
            "gasUsedRatio": [item.header.gas_used / item.header.gas_limit for item in mined],
        }
        if percentiles:
            answer["reward"] = [_rewards(item, percentiles) for item in mined]
        return answer

    # --- controls ---------------------------------------------------------------------------------------------------

    def _mine(self, *_: Any) -> str:
        self._chain.mine()
        return "0x0"

    def _set_automine(self, on: bool) -> None:
        self._chain.is_automining = bool(on)

    def _increase_time(self, seconds: Any) -> str:
        amount = seconds if isinstance(seconds, int) else read_quantity(seconds, "seconds")
        self._chain.move_clock(amount)
        return quantity(amount)

    def _drop(self, tx_hash: Any) -> str | None:
        return tx_hash if self._chain.pool.drop(from_hex(tx_hash, "transaction hash", 32)) else None


def _failure(request_id: Any, fault: RpcFault) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": fault.as_json()}


def _address(text: Any) -> bytes:
    return from_hex(text, "address", 20)


def _addresses(value: Any) -> set[str]:
    given = value if isinstance(value, list) else [value] if value else []
    return {to_hex(_address(item)) for item in given}


def _topics_match(topics: list[str], wanted: list[Any]) -> bool:
    """Compare by place: null matches anything, a list any of its members."""
    if len(wanted) > len(topics):
        return False
    for have, want in zip(topics, wanted, strict=False):
        choices = want if isinstance(want, list) else [want]
        if want is not None and choices and have not in [str(choice).lower() for choice in choices]:
            return False
    return True


def _call_request(call: Any) -> CallRequest:
    if not isinstance(call, dict):
        raise RpcFault(INVALID_PARAMS, "the call must be an object")
    data = call.get("input") or call.get("data") or "0x"
    return CallRequest(
        sender=_address(call["from"]) if call.get("from") else b"\0" * 20,
        to=_address(call["to"]) if call.get("to") else b"",
        data=from_hex(data, "data"),
        value_wei=read_quantity(call["value"], "value") if call.get("value") else 0,
        gas=read_quantity(call["gas"], "gas") if call.get("gas") else None,
    )


def _rewards(mined: MinedBlock, percentiles: list[float]) -> list[str]:
    """Return the priority fee at each percentile of the block's gas; 0 in an empty block, as nodes do."""
    base_fee = mined.header.base_fee_per_gas
    used = [
        receipt.gas_used - (mined.receipts[index - 1].gas_used if index else 0)
        for index, receipt in enumerate(mined.receipts)
    ]
    tips = sorted(
        (effective_gas_price(transaction, base_fee) - base_fee, gas)
        for transaction, gas in zip(mined.block.transactions, used, strict=True)
    )
    return [quantity(_tip_at(tips, percentile * sum(used) / 100)) for percentile in percentiles]


def _tip_at(tips: list[tuple[int, int]], gas_threshold: float) -> int:
    passed = 0
    for tip, gas in tips:
        passed += gas
        if passed >= gas_threshold:
            return tip
    return tips[-1][0] if tips else 0
