"""A chain that answers as the test says: the real pool, client, monitor and outbox over endpoints without a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fabstir_desktop.errors import RpcRefused, RpcUnreachable

CHAIN_ID = 84532
CONTRACT = "0x" + "11" * 20
HOST = "0x12ab34Cd56eF7890aB12cD34Ef56789012349fE0"


class PlayedEndpoint:
    """One RPC. `answers` replaces what it says to a method, by a value or a call; `is_down` and `is_limited` refuse all."""

    def __init__(self, name: str = "rpc.example", **answers: Any) -> None:
        self.name = name
        self.answers: dict[str, Any] = answers
        self.is_down = False
        self.is_limited = False
        self.block_age_s = 2.0
        self.base_fee_wei = 10**6
        self.balance_wei = 10**18
        self.chain_id = CHAIN_ID
        self.code = "0x60006000"

    async def request(self, method: str, *params: Any, timeout_s: float | None = None) -> Any:
        if self.is_down:
            raise RpcUnreachable(f"{self.name}: no connection")
        if self.is_limited:
            raise RpcRefused(f"{self.name}: 429 Too Many Requests", code=-32005, detail="429 Too Many Requests")
        answer = self.answers.get(method, getattr(self, f"_{method}", None))
        if answer is None:
            raise RpcRefused(f"{self.name}: the method {method} does not exist", code=-32601, detail="no such method")
        return answer(*params) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]

    async def close(self) -> None:
        pass

    def _eth_chainId(self) -> str:  # noqa: N802 - the method's name
        return hex(self.chain_id)

    def _eth_getBlockByNumber(self, *_: Any) -> dict[str, Any]:  # noqa: N802
        return {
            "number": "0x64",
            "hash": "0x" + "aa" * 32,
            "parentHash": "0x" + "bb" * 32,
            "timestamp": hex(int(time.time() - self.block_age_s)),
            "baseFeePerGas": hex(self.base_fee_wei),
        }

    def _eth_feeHistory(self, *_: Any) -> dict[str, Any]:  # noqa: N802
        return {"oldestBlock": "0x60", "baseFeePerGas": [hex(self.base_fee_wei)] * 2, "reward": [["0x64"]]}

    def _eth_getBalance(self, *_: Any) -> str:  # noqa: N802
        return hex(self.balance_wei)

    def _eth_getTransactionCount(self, *_: Any) -> str:  # noqa: N802
        return "0x0"

    def _eth_getCode(self, address: str, *_: Any) -> str:  # noqa: N802
        return self.code if address.lower() == CONTRACT else "0x"

    def _eth_getStorageAt(self, *_: Any) -> str:  # noqa: N802
        return "0x" + "00" * 32

    def _eth_estimateGas(self, *_: Any) -> str:  # noqa: N802
        return hex(90_000)
