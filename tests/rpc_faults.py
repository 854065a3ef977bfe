"""A lying RPC in front of a chain: each call may be dropped, answered late, wrongly, twice, or after it was done.

Faults are drawn from a seeded generator, so that a schedule can be played again. `raw_seen` is the ground truth of what
left the process under test; `hits` counts each fault that really struck. With `pool_rules` it speaks and refuses as another
node does, and with `log_cap_blocks` it answers for so many blocks at most.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from node_rules import NodeRules, underpriced
from raw_transactions import read_raw_text
from secrets_support import RPC_PATH

SEND = "eth_sendRawTransaction"
ERRORS = (
    (-32000, "already known"),
    (-32000, "known transaction: 7777"),
    (-32003, "transaction already imported"),
    (-32000, "nonce too low: next nonce 8, tx nonce 7"),
    (-32000, "nonce too high"),
    (-32000, "gapped-nonce tx from delegated accounts"),
    (-32000, "replacement transaction underpriced"),
    (-32000, "transaction underpriced: gas tip cap 1, minimum needed 1000"),
    (-32003, "max fee per gas less than block base fee"),
    (-32000, "insufficient funds for gas * price + value: balance 1, tx cost 2, overshot 1"),
    (-32003, "insufficient funds for gas * price + value: have 1 want 2"),
    (-32000, "txpool is full"),
    (-32003, "txpool is full"),
    (-32000, "account limit exceeded"),
    (-32000, "in-flight transaction limit reached for delegated accounts"),
    (-32000, "invalid sender"),
    (-32003, "invalid chain id for signer"),
    (-32000, "transaction indexing is in progress"),
    (-32005, "daily request count exceeded, request rate limited"),
    (-32016, "over rate limit"),
    (-32603, "internal error"),
    (-32000, "the moon is in the wrong house"),
)
"""What geth, reth, anvil and gateways say, with their codes."""
LOG_CAPS = (
    (-32005, "query returned more than 10000 results"),
    (-32602, "query exceeds max block range {cap}"),
    (-32000, "eth_getLogs is limited to a {cap} block range"),
    (-32600, "block range too large, limit the query to {cap} blocks"),
)
SEND_RATE = 0.7
"""Sends are few, and where it matters most: they are struck so often, if anything is."""
COMMON = ("drop", "lose_reply", "delay", "too_many", "unavailable", "html", "truncated")
OF_METHOD = {
    SEND: ("twice", "send_error", "done_but_error", "other_hash", "lose_reply", *("asks_more",) * 3),
    "eth_getTransactionReceipt": ("null",) * 3,
    "eth_getBlockByNumber": ("stale",),
    "eth_getTransactionCount": ("stale_count",),
    "eth_chainId": ("other_chain",) * 3,
}
"""Faults that only these methods have, beside the common ones."""
OTHER_CHAIN = "0x2105"


class FaultProxy:
    """JSON-RPC over HTTP with faults; `rate` is the share of calls that are struck, 0 for none."""

    def __init__(
        self,
        upstream: str,
        seed: int,
        *,
        rate: float = 0.3,
        pool_rules: NodeRules | None = None,
        log_cap_blocks: int | None = None,
    ) -> None:
        self.upstream = upstream
        self.pool_rules = pool_rules
        self.log_cap_blocks = log_cap_blocks
        self.rate = rate
        self.random = random.Random(seed)
        self.hits: Counter[str] = Counter()
        self.raw_seen: list[str] = []
        self.on_raw: Callable[[str], Awaitable[None]] | None = None
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> FaultProxy:
        self._session = aiohttp.ClientSession()
        application = web.Application()
        application.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/{RPC_PATH}"  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call: dict[str, Any] = await request.json()
        if call["method"] == SEND:
            self.raw_seen.append(call["params"][0])
            if self.on_raw is not None:
                await self.on_raw(call["params"][0])
        fault = "log_cap" if self._is_above_cap(call) else self._draw(call["method"])
        if fault is None:
            return web.json_response(await self._forward(call))
        self.hits[fault] += 1
        return await getattr(self, "_" + fault)(request, call)

    def _draw(self, method: str) -> str | None:
        rate = SEND_RATE if method == SEND and self.rate else self.rate
        if self.random.random() >= rate:
            return None
        return self.random.choice([*COMMON, *OF_METHOD.get(method, ())])

    def _is_above_cap(self, call: dict[str, Any]) -> bool:
        if call["method"] != "eth_getLogs" or self.log_cap_blocks is None:
            return False
        first, last = (int(call["params"][0][name], 16) for name in ("fromBlock", "toBlock"))
        return last - first + 1 > self.log_cap_blocks

    async def _forward(self, call: dict[str, Any]) -> dict[str, Any]:
        assert self._session is not None
        if call["method"] == SEND and self.pool_rules is not None:
            refusal = self.pool_rules.refusal_of(call["params"][0])
            if refusal is not None:
                return {"jsonrpc": "2.0", "id": call["id"], "error": refusal}
        async with self._session.post(self.upstream, json=call) as answer:
            reply: dict[str, Any] = await answer.json(content_type=None)
        if call["method"] == SEND and self.pool_rules is not None:
            self.pool_rules.translate(call["params"][0], reply)
        return reply

    async def _drop(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def _lose_reply(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        await self._forward(call)
        return await self._drop(request, call)

    async def _delay(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(self.random.uniform(0.01, 0.15))
        return web.json_response(await self._forward(call))

    async def _too_many(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=429, text="Too Many Requests", headers={"Retry-After": "1"})

    async def _unavailable(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=503, text="Service Unavailable")

    async def _html(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text="<html><body>Please log in</body></html>", content_type="text/html")

    async def _truncated(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text='{"jsonrpc":"2.0","id":1,"resu', content_type="application/json")

    async def _twice(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        await self._forward(call)
        return web.json_response(await self._forward(call))

    async def _send_error(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        return self._error(call)

    async def _done_but_error(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        await self._forward(call)
        return self._error(call)

    async def _other_hash(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        await self._forward(call)
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": "0x" + "77" * 32})

    async def _null(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": None})

    async def _stale(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        """A lagging node: the newest block is one that is some blocks old."""
        reply = await self._forward(call)
        if call["params"][0] == "latest" and reply.get("result"):
            number = max(0, int(reply["result"]["number"], 16) - self.random.randint(1, 3))
            reply = await self._forward({**call, "params": [hex(number), *call["params"][1:]]})
        return web.json_response(reply)

    async def _stale_count(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        """The same, for the number of transactions."""
        if call["params"][1] == "latest":
            head = await self._forward({**call, "method": "eth_blockNumber", "params": []})
            number = max(0, int(head["result"], 16) - self.random.randint(1, 3))
            call = {**call, "params": [call["params"][0], hex(number)]}
        return web.json_response(await self._forward(call))

    async def _other_chain(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        """Another chain's node, for this once."""
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": OTHER_CHAIN})

    async def _asks_more(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        """A node that has taken the bytes and says that it wants a tip a little higher; one with rules insists on it."""
        raw = call["params"][0]
        if self.pool_rules is not None:
            self.pool_rules.ask_more(raw)
        reply = await self._forward(call)
        if "error" in reply:
            return web.json_response(reply)
        return self._refuse(call, -32000, underpriced(tip := read_raw_text(raw).max_priority_fee_per_gas_wei, tip + 1))

    async def _log_cap(self, request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        code, text = self.random.choice(LOG_CAPS)
        return self._refuse(call, code, text.format(cap=self.log_cap_blocks))

    def _error(self, call: dict[str, Any]) -> web.StreamResponse:
        return self._refuse(call, *self.random.choice(ERRORS))

    def _refuse(self, call: dict[str, Any], code: int, text: str) -> web.StreamResponse:
        error = {"code": code, "message": text}
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "error": error})
