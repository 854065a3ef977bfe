"""A lying RPC in front of a chain: each call may be dropped, answered late, wrongly, twice, or after it was done.

Faults are drawn from a seeded generator, so that a schedule can be played again. `raw_seen` is the ground truth of what
left the process under test; `hits` counts each fault that really struck.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from secrets_support import RPC_PATH

SEND = "eth_sendRawTransaction"
TEXTS = (
    "already known",
    "nonce too low: next nonce 8, tx nonce 7",
    "replacement transaction underpriced",
    "transaction underpriced: gas tip cap 1, minimum needed 1000",
    "txpool is full",
    "internal error",
    "the moon is in the wrong house",
)


class FaultProxy:
    """JSON-RPC over HTTP with faults; `rate` is the share of calls that are struck, 0 for none."""

    def __init__(self, upstream: str, seed: int, *, rate: float = 0.3) -> None:
        self.upstream = upstream
        self.rate = rate
        self.random = random.Random(seed)
        self.hits: Counter[str] = Counter()
        self.raw_seen: list[str] = []
        self.on_raw: Callable[[str], Awaitable[None]] | None = None
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._stale_head: str | None = None

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
        fault = self._draw(call["method"])
        if fault is None:
            return web.json_response(await self._forward(call))
        self.hits[fault] += 1
        return await getattr(self, "_" + fault)(request, call)

    def _draw(self, method: str) -> str | None:
        # Sends are few, and where it matters most: they are struck twice as often.
        if self.random.random() >= self.rate * (2 if method == SEND else 1):
            return None
        common = ["drop", "lose_reply", "delay", "too_many", "unavailable", "html", "truncated"]
        if method == SEND:
            return self.random.choice([*common, "twice", "send_error", "done_but_error", "other_hash", "lose_reply"])
        if method == "eth_getTransactionReceipt":
            return self.random.choice([*common, "null"])
        if method == "eth_getBlockByNumber":
            return self.random.choice([*common, "stale"])
        return self.random.choice(common)

    async def _forward(self, call: dict[str, Any]) -> dict[str, Any]:
        assert self._session is not None
        async with self._session.post(self.upstream, json=call) as answer:
            reply: dict[str, Any] = await answer.json(content_type=None)
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

    def _error(self, call: dict[str, Any]) -> web.StreamResponse:
        error = {"code": -32000, "message": self.random.choice(TEXTS)}
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "error": error})
