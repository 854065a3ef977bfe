"""A switch between the product and a chain: the RPC that is away, on another chain, or back again."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
from aiohttp import web
from secrets_support import RPC_PATH


class RpcSwitch:
    """Forwards JSON-RPC to `upstream` unless told otherwise. `seen` counts the methods asked for."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.down = False
        self.chain_id: int | None = None
        self.seen: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    async def __aenter__(self) -> RpcSwitch:
        self._session = aiohttp.ClientSession()
        application = web.Application()
        application.router.add_post("/{path:.*}", self._answer)
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

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body: Any = await request.json()
        for call in body if isinstance(body, list) else [body]:
            self.seen[call["method"]] = self.seen.get(call["method"], 0) + 1
        if self.down:
            return web.Response(status=503, text="<html>gone fishing</html>")
        if self.chain_id is not None and isinstance(body, dict) and body["method"] == "eth_chainId":
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": hex(self.chain_id)})
        assert self._session is not None
        async with self._session.post(self.upstream, json=body) as answer:
            content = await answer.read()
        if self.chain_id is not None and isinstance(body, list):
            replies = json.loads(content)
            ids = {call["id"] for call in body if call["method"] == "eth_chainId"}
            for reply in replies:
                if reply["id"] in ids:
                    reply["result"] = hex(self.chain_id)
            content = json.dumps(replies).encode()
        return web.Response(body=content, content_type="application/json")
