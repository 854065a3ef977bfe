"""A small JSON-RPC client with which the demo and the tests set a chain up: clients of jobs, not the host.

The host's own way to a chain is in settlement/; this one has none of its care (outbox, fees, reorgs) and needs none.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from types import TracebackType
from typing import Any

import aiohttp

from fabstir_desktop.devnet.answers import SERVER_ERROR, RpcFault
from fabstir_desktop.devnet.artifacts import Artifact, contract_address

REQUEST_LIMIT_S = 30.0
RECEIPT_LIMIT_S = 60.0
POLL_S = 0.02
_MAX_FEE_WEI = 20 * 10**9
_TIP_WEI = 10**6


class TransactionReverted(RpcFault):
    """A transaction was mined and failed; `receipt` is its receipt."""

    def __init__(self, receipt: dict[str, Any]) -> None:
        super().__init__(SERVER_ERROR, f"transaction {receipt['transactionHash']} was reverted")
        self.receipt = receipt


class ChainClient:
    """Requests to one RPC URL. An async context manager; raises RpcFault for errors, aiohttp's for lost connections."""

    def __init__(self, rpc_url: str) -> None:
        self.rpc_url = rpc_url
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)

    async def __aenter__(self) -> ChainClient:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_LIMIT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, body: Any) -> Any:
        """Send one JSON body, a request or a batch, and return the whole answer."""
        if self._session is None:
            await self.__aenter__()
        assert self._session is not None  # noqa: S101  told to mypy
        async with self._session.post(self.rpc_url, json=body) as response:
            return await response.json(content_type=None)

    async def request(self, method: str, *params: Any) -> Any:
        """Call a method and return its result. Raises RpcFault when the node answers with an error."""
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        answer = await self.post(body)
        if "error" in answer:
            error = answer["error"]
            raise RpcFault(error["code"], error["message"], error.get("data"))
        return answer["result"]

    async def number(self, method: str, *params: Any) -> int:
        """Call a method that answers with a quantity."""
        return int(await self.request(method, *params), 16)

    async def balance_wei(self, address: str) -> int:
        """Return an account's money."""
        return await self.number("eth_getBalance", address, "latest")

    async def read(self, artifact: Artifact, address: str, function: str, *arguments: Any) -> tuple[Any, ...]:
        """Call a view function of a contract."""
        call = {"to": address, "data": artifact.encode_call(function, *arguments)}
        return artifact.decode_result(function, await self.request("eth_call", call, "latest"))

    async def receipt(self, tx_hash: str, limit_s: float = RECEIPT_LIMIT_S) -> dict[str, Any]:
        """Wait until a transaction is mined. Raises TransactionReverted when it failed, TimeoutError past the limit."""
        deadline = time.monotonic() + limit_s
        while (receipt := await self.request("eth_getTransactionReceipt", tx_hash)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{tx_hash} was not mined within {limit_s:g} s")
            await asyncio.sleep(POLL_S)
        if receipt["status"] != "0x1":
            raise TransactionReverted(receipt)
        return dict(receipt)


class Sender:
    """An account that sends transactions through a ChainClient and counts its nonces itself."""

    def __init__(self, client: ChainClient, key: str) -> None:
        from eth_account import Account  # noqa: PLC0415  takes 0.2 s to import

        self._client = client
        self._account = Account.from_key(key)
        self.address = str(self._account.address)
        self._next_nonce: int | None = None
        self._chain_id: int | None = None

    def __repr__(self) -> str:
        return f"Sender({self.address})"

    async def send(
        self, to: str | None, data: str = "0x", *, value_wei: int = 0, gas: int | None = None, nonce: int | None = None
    ) -> str:
        """Sign and send a transaction; return its hash. `to` None deploys. Without `gas` it is estimated."""
        from eth_utils.address import to_checksum_address  # noqa: PLC0415

        call = {"from": self.address, "data": data, "value": hex(value_wei)} | ({"to": to} if to else {})
        if gas is None:
            gas = await self._client.number("eth_estimateGas", call) * 5 // 4
        if self._chain_id is None:
            self._chain_id = await self._client.number("eth_chainId")
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": await self._nonce() if nonce is None else nonce,
                "to": to_checksum_address(to) if to else b"",
                "data": data,
                "value": value_wei,
                "gas": gas,
                "maxFeePerGas": _MAX_FEE_WEI,
                "maxPriorityFeePerGas": _TIP_WEI,
            }
        )
        tx_hash = await self._client.request("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
        if nonce is None and self._next_nonce is not None:
            self._next_nonce += 1
        return str(tx_hash)

    async def transact(
        self, to: str, data: str = "0x", *, value_wei: int = 0, gas: int | None = None
    ) -> dict[str, Any]:
        """Send and wait; return the receipt. Raises TransactionReverted."""
        return await self._client.receipt(await self.send(to, data, value_wei=value_wei, gas=gas))

    async def deploy(self, artifact: Artifact, *arguments: Any, value_wei: int = 0) -> str:
        """Deploy a contract; return its address."""
        data = artifact.encode_deployment(*arguments)
        nonce = await self._nonce()
        tx_hash = await self.send(None, data, value_wei=value_wei)
        await self._client.receipt(tx_hash)
        return contract_address(self.address, nonce)

    async def _nonce(self) -> int:
        if self._next_nonce is None:
            self._next_nonce = await self._client.number("eth_getTransactionCount", self.address, "pending")
        return self._next_nonce
