"""The door to web3: one JSON-RPC endpoint, asked once per call.

web3's provider speaks JSON-RPC; its silent retries are off (it would repeat `eth_sendRawTransaction` by itself), its
sessions are replaced by one of our own that keeps the connection, follows no redirect and reads the body of an HTTP error,
because gateways answer JSON-RPC errors with status 400. Nothing here, and no error text, holds more of the URL than the
host's name: the path of an RPC URL often is a password.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from fabstir_desktop.errors import RpcRefused, RpcUnreachable

MAXIMUM_ANSWER_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 4.0
RETRY_AFTER = "Retry-After"

SHORTEST_SECRET = 6
"""Shorter parts of a URL, such as `v2` or `rpc`, are no passwords, and are words of many errors."""


class RpcEndpoint:
    """One RPC URL. Translates every failure into RpcUnreachable (no usable answer) or RpcRefused (its own error)."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._provider: Any = None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self.name = endpoint_name(url)
        """Host and port: all that may be shown."""

    async def request(self, method: str, *params: Any, timeout_s: float | None = None) -> Any:
        """Ask once. Raises RpcUnreachable or RpcRefused; neither says whether a transaction was taken."""
        provider = await self._ready_provider()
        limit = timeout_s or self._timeout_s
        try:
            async with asyncio.timeout(limit):
                answer = await provider.make_request(method, list(params))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RpcUnreachable(f"{self.name}: {_describe(error)}") from None
        except (json.JSONDecodeError, UnicodeDecodeError, ValueError) as error:
            raise RpcUnreachable(f"{self.name}: {_describe(error)}") from None
        return self._result(answer)

    async def close(self) -> None:
        """Close the connections; whoever asks afterwards gets RpcUnreachable. Safe to call twice."""
        self._closed = True
        session, self._session, self._provider = self._session, None, None
        if session is not None:
            await session.close()

    def _result(self, answer: object) -> Any:
        if not isinstance(answer, dict):
            raise RpcUnreachable(f"{self.name}: the answer is no JSON-RPC")
        fields = cast("dict[str, Any]", answer)
        error = fields.get("error")
        if error is not None:
            raise self._refusal(error)
        if "result" not in fields:
            raise RpcUnreachable(f"{self.name}: the answer has neither result nor error")
        return fields["result"]

    def _refusal(self, error: object) -> RpcRefused:
        fields = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": str(error)}
        text = hide_url(str(fields.get("message") or "no reason given"), self._url)
        code = fields.get("code")
        return RpcRefused(
            f"{self.name}: {text[:300]}",
            code=code if isinstance(code, int) else None,
            detail=text[:2000],
            data=_hex_in(fields.get("data")),
            retry_after_s=_retry_after_s(fields.get("data")),
        )

    async def _ready_provider(self) -> Any:
        if self._provider is None:
            # web3 takes more than half a second to import: the window must not wait for it.
            make = await asyncio.get_running_loop().run_in_executor(None, _provider_class)
            if self._closed:
                raise RpcUnreachable(f"{self.name}: the connection is closed")
            if self._provider is None:
                self._session = aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=self._timeout_s, connect=CONNECT_TIMEOUT_S),
                    connector=aiohttp.TCPConnector(limit=32),
                )
                self._provider = make(self._url, self._session)
        return self._provider


def endpoint_name(url: str) -> str:
    """Host and port of an RPC URL: what may be shown and logged."""
    parts = urlsplit(url)
    host = parts.hostname or "RPC"
    return f"{host}:{parts.port}" if parts.port else host


def hide_url(text: str, url: str) -> str:
    """The text without the URL, and without those of its parts that may be a password: nodes like to repeat them."""
    parts = urlsplit(url)
    text = text.replace(url, endpoint_name(url))
    given = [parts.path, *parts.path.split("/"), *_query_values(parts.query), parts.username, parts.password]
    for secret in sorted({one for one in given if one and len(one) >= SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(secret, "...")
    return text


def _query_values(query: str) -> list[str]:
    """The query as it stands, and each of its values, as sent and as read."""
    raw = [pair.partition("=")[2] for pair in query.split("&")]
    return [query, *raw, *(value for _, value in parse_qsl(query))]


def _provider_class() -> Any:
    from web3 import AsyncHTTPProvider  # noqa: PLC0415
    from web3.types import RPCEndpoint as Method  # noqa: PLC0415

    logging.getLogger("web3").setLevel(logging.CRITICAL)  # it logs whole URLs and transactions

    class Provider(AsyncHTTPProvider):
        """web3's provider over our own session."""

        def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
            super().__init__(url, exception_retry_configuration=None)
            self._our_session = session

        async def _make_request(self, method: Method, request_data: bytes) -> bytes:  # noqa: ARG002 - web3's shape
            headers = {"Content-Type": "application/json", "User-Agent": "fabstir-desktop"}
            async with self._our_session.post(
                str(self.endpoint_uri), data=request_data, headers=headers, allow_redirects=False
            ) as response:
                return await _read_answer(response)

    return Provider


async def _read_answer(response: aiohttp.ClientResponse) -> bytes:
    """The body, if it is JSON-RPC; an HTTP error with another body becomes a refusal that names its status."""
    body = await response.content.read(MAXIMUM_ANSWER_BYTES)
    while not response.content.at_eof():
        more = await response.content.read(MAXIMUM_ANSWER_BYTES)
        if len(body) + len(more) > MAXIMUM_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError("the answer is too long")
        body += more
    if response.status < 300 or b'"jsonrpc"' in body[:4096]:
        return body
    # No JSON-RPC error: say it in the form of one, so that the classifier reads the status.
    text = f"{response.status} {response.reason or 'error'}: gateway error"
    code = -32005 if response.status == 429 else -32603
    error = {"code": code, "message": text, "data": {RETRY_AFTER: response.headers.get(RETRY_AFTER)}}
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()


def _retry_after_s(data: object) -> float | None:
    """Seconds of the header; its other form, a date, is not worth a parser: the usual back-off serves."""
    value = data.get(RETRY_AFTER) if isinstance(data, dict) else None
    return float(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


def _hex_in(data: object) -> str:
    """Revert data, wherever nodes put it: a hex string, an object with `data` or `result`, or `Reverted 0x...`."""
    if isinstance(data, dict):
        fields = cast("dict[str, object]", data)
        return _hex_in(fields.get("data") or fields.get("result") or fields.get("originalError"))
    if isinstance(data, str) and "0x" in data:
        return data[data.index("0x") :].split()[0]
    return ""


def _describe(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    if isinstance(error, aiohttp.ClientError | OSError):
        return f"the connection failed ({type(error).__name__})"
    return "the answer is no JSON"
