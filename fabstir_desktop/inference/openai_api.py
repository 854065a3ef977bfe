"""OpenAI's chat completions as servers really speak them: what is asked, and how their dialects of counting are read."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from fabstir_desktop.errors import (
    ContextOverflow,
    EngineBusy,
    GenerationError,
    InvalidGenerationRequest,
    ModelUnavailable,
)
from fabstir_desktop.jobs.generation import GenerationRequest, Message

CONNECT_S = 5.0
ASK_S = 10.0
MAX_LINE_BYTES = 1 << 20


class OpenAiError(Exception):
    """The server refused or said something unusable. The text holds nothing of a prompt."""

    def __init__(self, message: str, *, status: int = 0, prompt_tokens: int = 0, window: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.prompt_tokens = prompt_tokens
        self.window = window

    def as_generation_error(self, place: str) -> GenerationError:
        """The error in the engine's words."""
        if self.window:
            return ContextOverflow(self.prompt_tokens, self.window)
        if self.status == 429:
            return EngineBusy(f"the server at {place} is busy", position=1, retry_after_s=2.0)
        if self.status in (400, 422):
            return InvalidGenerationRequest(f"the server at {place} refuses the request")
        return ModelUnavailable(f"the server at {place} failed: {self}")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself; `context_window` 0 if it does not say."""

    model: str
    context_window: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A streamed part. `made_tokens` is the server's count so far, None if it gives none; `is_ids_complete` whether
    `token_ids` are all tokens of this part."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    is_ids_complete: bool = False
    made_tokens: int | None = None
    finish_reason: str | None = None


class OpenAiApi:
    """The endpoints of one server. `stall_s`: how long it may say nothing while it streams."""

    def __init__(self, url: str, *, stall_s: float) -> None:
        self._base = url.rstrip("/").removesuffix("/v1")
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=stall_s)
        self._ask_timeout = aiohttp.ClientTimeout(total=ASK_S)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def facts(self) -> ServerFacts:
        """Ask for the model and its window. Raises OpenAiError, aiohttp.ClientError, TimeoutError."""
        listed = await self._get("/v1/models")
        models = listed.get("data")
        if not isinstance(models, list) or not models or not isinstance(models[0].get("id"), str):
            raise OpenAiError("the server lists no model")
        window = models[0].get("max_model_len")
        if not isinstance(window, int):
            window = await self._llama_window()
        return ServerFacts(models[0]["id"], window)

    async def prompt_ids(self, messages: Sequence[Message], facts: ServerFacts) -> list[int]:
        """The rendered prompt's ids where the server tells them, else none."""
        spoken = [{"role": message.role, "content": message.content} for message in messages]
        try:
            rendered = (await self._post("/apply-template", {"messages": spoken})).get("prompt")
            ask = {"content": rendered, "add_special": True, "parse_special": True}
        except OpenAiError:
            ask = {"model": facts.model, "messages": spoken, "add_generation_prompt": True}
        try:
            ids = (await self._post("/tokenize", ask)).get("tokens")
        except OpenAiError:
            return []
        return ids if isinstance(ids, list) and all(isinstance(token, int) for token in ids) else []

    async def begin(self, request: GenerationRequest, seed: int, facts: ServerFacts) -> aiohttp.ClientResponse:
        """Send the request; the response streams. Raises OpenAiError, aiohttp.ClientError, TimeoutError."""
        response = await self._open().post(
            f"{self._base}/v1/chat/completions", json=_body(request, seed, facts), timeout=self._timeout
        )
        if response.status != 200:
            raise await _refusal(response)
        return response

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Chunk, None]:
        """The streamed parts, until the server says it is done."""
        async for line in response.content:
            if len(line) > MAX_LINE_BYTES:
                raise OpenAiError("the server sent a line beyond all reason")
            text = line.strip()
            if not text.startswith(b"data:"):
                continue
            body = text[5:].strip()
            if body == b"[DONE]":
                return
            yield read_chunk(body)

    async def _llama_window(self) -> int:
        try:
            properties = await self._get("/props")
        except OpenAiError:
            return 0
        window = properties.get("default_generation_settings", {}).get("n_ctx")
        return window if isinstance(window, int) else 0

    async def _get(self, path: str) -> dict[str, Any]:
        async with self._open().get(self._base + path, timeout=self._ask_timeout) as response:
            return await _object(response)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._open().post(self._base + path, json=body, timeout=self._ask_timeout) as response:
            return await _object(response)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(read_bufsize=MAX_LINE_BYTES)
        return self._session


def read_chunk(body: bytes) -> Chunk:
    """Read a streamed part in any of the known dialects. Raises OpenAiError."""
    try:
        part = json.loads(body)
        if "error" in part:
            raise OpenAiError("the server broke off with an error")
        choice = (part.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        ids = choice.get("token_ids")
        told = ids if isinstance(ids, list) else [entry["id"] for entry in _logprobs(choice) if "id" in entry]
        usage, timings = part.get("usage") or {}, part.get("timings") or {}
        made = usage.get("completion_tokens", timings.get("predicted_n"))
        return Chunk(
            text=delta.get("content") or "",
            token_ids=tuple(token for token in told if isinstance(token, int)),
            is_ids_complete=isinstance(ids, list),
            made_tokens=made if isinstance(made, int) else None,
            finish_reason=choice.get("finish_reason"),
        )
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise OpenAiError(f"the server sent something unreadable: {type(error).__name__}") from None


def _logprobs(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return (choice.get("logprobs") or {}).get("content") or []


def _body(request: GenerationRequest, seed: int, facts: ServerFacts) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "model": facts.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "max_tokens": request.max_tokens,
        "stop": list(request.stop),
        "seed": seed,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "repetition_penalty": sampling.repeat_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "stream": True,
        # The counting, once for each dialect; a server ignores what it does not know.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "timings_per_token": True,
        "return_token_ids": True,
        "logprobs": True,
        "top_logprobs": 0,
    }


async def _object(response: aiohttp.ClientResponse) -> dict[str, Any]:
    if response.status != 200:
        raise OpenAiError(f"HTTP status {response.status}", status=response.status)
    try:
        body = json.loads(await response.read())
    except ValueError:
        raise OpenAiError("the answer is no JSON") from None
    if not isinstance(body, dict):
        raise OpenAiError("the answer is no object")
    return body


async def _refusal(response: aiohttp.ClientResponse) -> OpenAiError:
    status = response.status
    try:
        error = json.loads(await response.read()).get("error", {})
        prompt, window = error.get("n_prompt_tokens", 0), error.get("n_ctx", 0)
    except (ValueError, AttributeError):
        prompt, window = 0, 0
    finally:
        response.close()
    return OpenAiError(f"HTTP status {status}", status=status, prompt_tokens=prompt, window=window)
