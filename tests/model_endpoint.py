"""JSON-RPC of the chain in memory: what a node answers, with faults that a test asks for."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from eth_abi.abi import encode
from model_chain import (
    CHAIN_ID,
    CLAIM_GAS,
    CONTRACT,
    FINAL_DEPTH,
    PRICE_WEI,
    SAFE_DEPTH,
    TREASURY,
    Block,
    Executed,
    ModelChain,
    Reverted,
    refused,
)

from fabstir_desktop.errors import RpcRefused, RpcUnreachable
from fabstir_desktop.settlement.contracts.base import address_topic
from fabstir_desktop.settlement.contracts.proof_system import (
    CHECKPOINT_SUBMITTED,
    JOBS,
    PAYMENT_DISTRIBUTED,
    PROOF_USED,
    SUBMIT,
)

SEND = "eth_sendRawTransaction"
FAULTS = ("down", "lose_reply", "null", "refuse", "limited")
ZERO = "0x" + "00" * 20


class ModelEndpoint:
    """One node. It may lag behind the chain; `faults` strike the next requests, one each, first come first struck.

    `before` and `after` are told of each request: a test kills there, or looks.
    """

    def __init__(self, chain: ModelChain, name: str = "model", *, is_silent: bool = False, lag_blocks: int = 0) -> None:
        self.chain = chain
        self.name = name
        self.is_silent = is_silent
        """The contract has `submitCheckpoint` and nothing else."""
        self.lag_blocks = lag_blocks
        self.faults: list[str] = []
        self.requests = 0
        self.before: Callable[[str, tuple[Any, ...]], None] = lambda _method, _params: None
        self.after: Callable[[str, tuple[Any, ...]], None] = lambda _method, _params: None

    async def request(self, method: str, *params: Any, timeout_s: float | None = None) -> Any:
        self.requests += 1
        self.before(method, params)
        fault = self._fault_for(method)
        if fault == "down":
            raise RpcUnreachable(f"{self.name}: no connection")
        if fault == "limited":
            raise RpcRefused(f"{self.name}: 429", code=-32005, detail="429 Too Many Requests")
        if fault == "refuse":
            raise refused("the moon is in the wrong house")
        answer = getattr(self, "_" + method)(*params) if fault != "null" else None
        self.after(method, params)
        if fault == "lose_reply":
            raise RpcUnreachable(f"{self.name}: the connection broke")
        return answer

    async def close(self) -> None:
        pass

    def _fault_for(self, method: str) -> str | None:
        if not self.faults:
            return None
        fault = self.faults[0]
        fits = {"null": method == "eth_getTransactionReceipt", "refuse": method == SEND, "lose_reply": method == SEND}
        if not fits.get(fault, True):
            return None
        self.chain.met[fault] += 1
        return self.faults.pop(0)

    # --- blocks -----------------------------------------------------------------------------------------------------

    @property
    def _blocks(self) -> list[Block]:
        return self.chain.blocks[: max(1, len(self.chain.blocks) - self.lag_blocks)]

    def _at(self, which: str) -> Block | None:
        blocks = self._blocks
        depth = {"latest": 0, "safe": SAFE_DEPTH, "finalized": FINAL_DEPTH}.get(which)
        number = len(blocks) - 1 - depth if depth is not None else int(which, 16)
        return blocks[max(0, number)] if number < len(blocks) else None

    def _state(self, which: str) -> Any:
        block = self._at(which)
        if block is None:
            raise refused("header not found")
        return block.state

    def _eth_chainId(self) -> str:  # noqa: N802
        return hex(CHAIN_ID)

    def _eth_blockNumber(self) -> str:  # noqa: N802
        return hex(self._blocks[-1].number)

    def _eth_getBlockByNumber(self, which: str, full: bool) -> Any:  # noqa: N802
        block = self._at(which)
        if block is None:
            return None
        shown = [_shown(one) for one in block.executed] if full else []
        return {
            "number": hex(block.number),
            "hash": "0x" + block.block_hash.hex(),
            "timestamp": hex(block.timestamp),
            "baseFeePerGas": hex(block.base_fee_wei),
            "transactions": shown,
        }

    def _eth_feeHistory(self, *_: Any) -> Any:  # noqa: N802
        return {"baseFeePerGas": [hex(self.chain.base_fee_wei)] * 2, "reward": [[hex(10**6)]] * 3}

    # --- accounts ---------------------------------------------------------------------------------------------------

    def _eth_getTransactionCount(self, _address: str, which: str) -> str:  # noqa: N802
        return hex(self._state(which).nonces.get(self.chain.host, 0))

    def _eth_getBalance(self, _address: str, which: str) -> str:  # noqa: N802
        return hex(self._state(which).balances[self.chain.host])

    def _eth_getCode(self, address: str, _which: str) -> str:  # noqa: N802
        if address.lower() != CONTRACT:
            return "0x"
        calls = (SUBMIT,) if self.is_silent else (SUBMIT, JOBS, PROOF_USED)
        code = b"".join(b"\x63" + call.selector for call in calls)
        return "0x" + (code if self.is_silent else code + PAYMENT_DISTRIBUTED.topic).hex()

    def _eth_getStorageAt(self, *_: Any) -> str:  # noqa: N802
        return "0x" + "00" * 32

    # --- the contract -----------------------------------------------------------------------------------------------

    def _eth_call(self, call: dict[str, str], which: str) -> str:
        state, data = self._state(which), bytes.fromhex(call["data"][2:])
        if data[:4] == SUBMIT.selector:
            self._try(state, data)
            return "0x"
        if data[:4] == JOBS.selector:
            job = state.jobs.get(int.from_bytes(data[4:36], "big"))
            fields = (ZERO, self.chain.host, PRICE_WEI, job.deposit_tokens * PRICE_WEI, job.paid_tokens, job.is_open)
            return "0x" + encode(JOBS.outputs, fields).hex()
        if data[:4] == PROOF_USED.selector:
            return "0x" + encode(("bool",), (data[36:68] in state.proofs,)).hex()
        raise refused("execution reverted", 3)

    def _eth_estimateGas(self, call: dict[str, str], _block: str) -> str:  # noqa: N802
        self._try(self._state("latest"), bytes.fromhex(call["data"][2:]))
        return hex(CLAIM_GAS)

    def _try(self, state: Any, data: bytes) -> None:
        try:
            self.chain.claim(deepcopy(state), data)
        except Reverted as error:
            raise refused(f"execution reverted: {error}", 3) from None

    # --- transactions -----------------------------------------------------------------------------------------------

    def _eth_sendRawTransaction(self, raw: str) -> str:  # noqa: N802
        return "0x" + self.chain.send(bytes.fromhex(raw[2:])).hex()

    def _eth_getTransactionReceipt(self, tx_hash: str) -> Any:  # noqa: N802
        for block in self._blocks:
            for one in block.executed:
                if "0x" + one.transaction.tx_hash.hex() == tx_hash:
                    return self._receipt(block, one)
        return None

    def _receipt(self, block: Block, one: Executed) -> dict[str, Any]:
        return {
            "transactionHash": "0x" + one.transaction.tx_hash.hex(),
            "blockNumber": hex(block.number),
            "blockHash": "0x" + block.block_hash.hex(),
            "status": hex(one.succeeded),
            "gasUsed": hex(one.gas_used),
            "effectiveGasPrice": hex(one.price_wei),
            "logs": self._logs(block, one),
        }

    def _eth_getLogs(self, query: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: N802
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        topics = query["topics"][0]
        everything = [
            entry
            for block in self._blocks[first : last + 1]
            for one in block.executed
            for entry in self._logs(block, one)
        ]
        return [entry for entry in everything if topics is None or entry["topics"][0] in topics]

    def _logs(self, block: Block, one: Executed) -> list[dict[str, Any]]:
        if one.claim is None or self.is_silent:
            return []
        job_id, tokens, proof_hash = one.claim
        host_wei = tokens * PRICE_WEI * 9 // 10
        amounts = (host_wei, TREASURY, tokens * PRICE_WEI - host_wei)
        rows = (
            (CHECKPOINT_SUBMITTED.topic, encode(CHECKPOINT_SUBMITTED.data, (tokens, proof_hash))),
            (PAYMENT_DISTRIBUTED.topic, encode(PAYMENT_DISTRIBUTED.data, amounts)),
        )
        names = ["0x" + job_id.to_bytes(32, "big").hex(), "0x" + address_topic(self.chain.host).hex()]
        index = 2 * block.executed.index(one)
        return [
            {
                "address": CONTRACT,
                "topics": ["0x" + topic.hex(), *names],
                "data": "0x" + data.hex(),
                "transactionHash": "0x" + one.transaction.tx_hash.hex(),
                "logIndex": hex(index + place),
                "blockNumber": hex(block.number),
                "blockHash": "0x" + block.block_hash.hex(),
            }
            for place, (topic, data) in enumerate(rows)
        ]


def _shown(one: Executed) -> dict[str, Any]:
    transaction = one.transaction
    return {
        "hash": "0x" + transaction.tx_hash.hex(),
        "from": transaction.sender,
        "to": transaction.to,
        "nonce": hex(transaction.nonce),
        "input": "0x" + transaction.data.hex(),
    }
