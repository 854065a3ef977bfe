"""The endpoints of one OpenAI-compatible server, over HTTP. What is said on them is read in `openai_dialects`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.http import HttpProcessingError
from pydantic import SecretStr

from fabstir_desktop.inference.openai_dialects import (
    MAX_COUNT,
    Chunk,
    OpenAiError,
    ServerFacts,
    parse_json,
    read_chunk,
    read_models,
    read_refusal,
    read_window,
    refused,
    request_body,
)
from fabstir_desktop.jobs.generation import GenerationRequest, Message

CONNECT_S: Final = 5.0
ASK_S: Final = 10.0
MAX_LINE_BYTES: Final = 1 << 20
MAX_ANSWER_BYTES: Final = 1 << 26
MAX_REFUSAL_BYTES: Final = 1 << 16
_NO_SUCH_ENDPOINT: Final = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the server is. `place` (host and port) is what may be shown; a key, or a user and password, is in `_header` alone."""

    base: str
    place: str
    _header: SecretStr

    @classmethod
    def of(cls, url: str, api_key: SecretStr | None = None) -> ServerAddress:
        """Take the address apart: its user and password go into a header, its query is dropped. The key outranks them."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        place = f"[{host}]" if ":" in host else host
        place += f":{parts.port}" if parts.port is not None else ""
        header = ""
        if api_key is not None:
            header = f"Bearer {api_key.get_secret_value()}"
        elif parts.username is not None:
            header = aiohttp.BasicAuth(unquote(parts.username), unquote(parts.password or ""), "utf-8").encode()
        path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
        return cls(f"{parts.scheme}://{place}{path}", place, SecretStr(header))

    @property
    def headers(self) -> dict[str, str]:
        """The header that opens the server; not to be shown or kept."""
        header = self._header.get_secret_value()
        return {"Authorization": header} if header else {}


class OpenAiApi:
    """`stall_s`: how long the server may say nothing while it streams; `model`: which of its models to use, None the first.

    Its methods raise OpenAiError for what the server says, aiohttp.ClientError and TimeoutError for what the network does.
    """

    def __init__(self, address: ServerAddress, *, stall_s: float, model: str | None = None) -> None:
        self._address = address
        self._model = model
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=stall_s)
        self._ask_timeout = aiohttp.ClientTimeout(total=ASK_S)
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._absent: set[str] = set()
        """Endpoints that this server does not have."""

    async def close(self) -> None:
        """Close the connections, for good."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def facts(self) -> ServerFacts:
        """Ask for the model and its window."""
        entry = read_models(await self._get("/v1/models"), self._model)
        window = read_window(entry)
        is_llama = entry.get("owned_by") == "llamacpp"
        if not window:
            window = await self._llama_window()
            is_llama = is_llama or window > 0
        return ServerFacts(entry["id"], window, is_llama)

    async def prompt_ids(self, messages: Sequence[Message], facts: ServerFacts) -> tuple[int, ...]:
        """The rendered prompt's ids; none if the server has no way to tell them, or takes too long over it."""
        spoken = [{"role": message.role, "content": message.content} for message in messages]
        try:
            ask: dict[str, Any] = {"model": facts.model, "messages": spoken, "add_generation_prompt": True}
            if facts.is_llama:
                rendered = (await self._post("/apply-template", {"messages": spoken})).get("prompt")
                # As the server itself tokenises it: a BOS that the template wrote was taken off by /apply-template.
                ask = {"content": rendered, "add_special": True, "parse_special": True}
            ids = (await self._post("/tokenize", ask)).get("tokens")
        except (OpenAiError, TimeoutError):
            return ()
        if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < MAX_COUNT for token in ids):
            return ()
        return tuple(ids)

    async def begin(
        self, request: GenerationRequest, seed: int, facts: ServerFacts, max_tokens: int | None
    ) -> aiohttp.ClientResponse:
        """Send the request; the response streams, and the caller closes it."""
        response = await self._open().post(
            f"{self._address.base}/v1/chat/completions",
            json=request_body(request, seed, facts, max_tokens),
            timeout=self._timeout,
            allow_redirects=False,  # a prompt goes where the host chose, nowhere else
        )
        if response.status != 200:
            try:
                raise read_refusal(response.status, await _read(response, MAX_REFUSAL_BYTES))
            finally:
                response.close()
        return response

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Chunk, None]:
        """The streamed parts, until the server says it is done."""
        try:
            async for line in response.content:
                text = line.strip()
                if not text.startswith(b"data:"):
                    continue
                body = text[5:].strip()
                if body == b"[DONE]":
                    return
                yield read_chunk(body)
        except (
            ValueError,
            HttpProcessingError,
        ):  # aiohttp's, for a line of more than twice its buffer; it quotes the line
            raise OpenAiError("the server sent a line beyond all reason") from None

    async def _llama_window(self) -> int:
        try:
            settings = (await self._get("/props")).get("default_generation_settings")
        except OpenAiError:
            return 0
        window = settings.get("n_ctx") if isinstance(settings, dict) else None
        return read_window({"max_model_len": window})

    async def _get(self, path: str) -> dict[str, Any]:
        address = self._address.base + path
        async with self._open().get(address, timeout=self._ask_timeout, allow_redirects=False) as response:
            return await _object(response)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path in self._absent:
            raise OpenAiError("not an endpoint of this server")
        address = self._address.base + path
        async with self._open().post(address, json=body, timeout=self._ask_timeout, allow_redirects=False) as response:
            if response.status in _NO_SUCH_ENDPOINT:
                self._absent.add(path)
            return await _object(response)

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise OpenAiError("the engine stops")
        if self._session is None:
            # llama-server closes a connection behind a streamed answer without saying so: one that is kept is found dead.
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._address.headers, read_bufsize=MAX_LINE_BYTES
            )
        return self._session


async def _object(response: aiohttp.ClientResponse) -> dict[str, Any]:
    if response.status != 200:
        raise refused(response.status)
    try:
        body = parse_json(await _read(response, MAX_ANSWER_BYTES))
    except ValueError:
        raise OpenAiError("the answer is no JSON") from None
    if not isinstance(body, dict):
        raise OpenAiError("the answer is no object")
    return body


async def _read(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The whole body, or so much of it that it cannot be read as JSON any more."""
    read = bytearray()
    async for part in response.content.iter_any():
        read += part
        if len(read) > limit_bytes:
            response.close()
            break
    return bytes(read)
