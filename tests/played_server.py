"""A small HTTP server that speaks a model server's documented wire format: what vLLM, SGLang and llama-server send, byte for byte
in the fields that matter, but scripted. It notes what it was asked.

vLLM: the first part has `prompt_token_ids`; every part has a running `usage`; with `return_token_ids` each choice has its
`token_ids`, and the part with `finish_reason` has the end-of-generation token's among them and a `stop_reason`.
SGLang: a running `usage`, no ids; `finish_reason` and `matched_stop` come in a part of their own.
llama-server: `timings` beside each text; the end's part has neither; the last part has the final `usage` and no choices.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

EOS = 2


@dataclass
class Step:
    """What came out of one step of the server: tokens, and the text that became whole with them."""

    text: str
    token_ids: tuple[int, ...]


Part = dict[str, Any] | bytes
Chat = Callable[[dict[str, Any]], "Sequence[Part] | web.Response"]


def vllm(
    steps: Sequence[Step], finish: str, stop_reason: object = None, prompt: int = 7, ids: bool = True
) -> list[Part]:
    """A chat completion as vLLM streams it. The last step is the one that ended it, its end-of-generation token included."""
    made = 0
    first = {
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        ]
    }
    parts: list[Part] = [
        first | _usage(prompt, 0) | ({"prompt_token_ids": list(range(10, 10 + prompt))} if ids else {})
    ]
    for number, step in enumerate(steps, 1):
        made += len(step.token_ids)
        choice: dict[str, Any] = {"index": 0, "delta": {"content": step.text}, "logprobs": None, "finish_reason": None}
        choice["token_ids"] = list(step.token_ids) if ids else None
        if number == len(steps):
            choice |= {"finish_reason": finish, "stop_reason": stop_reason}
        parts.append({"choices": [choice]} | _usage(prompt, made))
    return [*parts, {"choices": []} | _usage(prompt, made)]


def sglang(steps: Sequence[Step], finish: str, matched_stop: object = None, prompt: int = 7) -> list[Part]:
    """The same as SGLang streams it: a step without text is not sent, the end stands in a part without a count."""
    made = 0
    parts: list[Part] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    ]
    for step in steps:
        made += len(step.token_ids)
        if step.text:
            choice = {"index": 0, "delta": {"content": step.text}, "finish_reason": None, "matched_stop": None}
            parts.append({"choices": [choice]} | _usage(prompt, made))
    end = {"index": 0, "delta": {"content": None}, "finish_reason": finish, "matched_stop": matched_stop}
    return [*parts, {"choices": [end], "usage": None}, {"choices": []} | _usage(prompt, made)]


def llama(steps: Sequence[Step], finish: str, prompt: int = 7) -> list[Part]:
    """The same as llama-server streams it: of several tokens of one text it tells the last one's id, and the token that ends
    the answer is looked at by itself."""
    if steps[-1].text and steps[-1].token_ids[-1] == EOS:
        steps = [*steps[:-1], Step(steps[-1].text, steps[-1].token_ids[:-1]), Step("", (EOS,))]
    made = 0
    parts: list[Part] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]}
    ]
    timings = {"cache_n": 2, "prompt_n": prompt - 2}
    for step in steps:
        made += len(step.token_ids)
        if step.text:
            told = {"content": [{"id": step.token_ids[-1], "token": step.text, "logprob": -0.1, "top_logprobs": []}]}
            choice = {"index": 0, "delta": {"content": step.text}, "finish_reason": None, "logprobs": told}
            parts.append({"choices": [choice], "timings": timings | {"predicted_n": made}})
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    return [*parts, end, {"choices": [], "timings": timings | {"predicted_n": made}} | _usage(prompt, made)]


def _usage(prompt: int, made: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}}


def refusal(message: str, status: int = 400, **more: Any) -> web.Response:
    """An error in OpenAI's shape."""
    return web.json_response(
        {"error": {"message": message, "type": "BadRequestError", "code": status, **more}}, status=status
    )


@dataclass
class PlayedServer:
    """`chat` gives the parts for a request's body. `asked` are the bodies of all chat completions, `headers` of all requests."""

    chat: Chat
    models: Any = field(default_factory=lambda: {"data": [{"id": "org/played", "max_model_len": 100}]})
    tokenize: Callable[[dict[str, Any]], Any] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    before_each: Callable[[], Awaitable[None]] | None = None
    url: str = ""

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.headers.append((request.path, request.headers.get("Authorization", "")))
        if isinstance(self.models, web.Response):
            return web.Response(status=self.models.status, body=self.models.body, headers=dict(self.models.headers))
        return web.Response(text=self.models if isinstance(self.models, str) else json.dumps(self.models))

    async def _tokenize(self, request: web.Request) -> web.Response:
        self.headers.append((request.path, request.headers.get("Authorization", "")))
        if self.tokenize is None:
            raise web.HTTPNotFound
        return web.json_response(self.tokenize(await request.json()))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.headers.append((request.path, request.headers.get("Authorization", "")))
        body = await request.json()
        self.asked.append(body)
        parts = self.chat(body)
        if isinstance(parts, web.Response):
            return parts
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for part in parts:
                if self.before_each is not None:
                    await self.before_each()
                await response.write(
                    part if isinstance(part, bytes) else b"data: " + json.dumps(part).encode() + b"\n\n"
                )
            if not any(part == b"" for part in parts):  # an empty part: it breaks off
                await response.write(b"data: [DONE]\n\n")
        return response


@contextlib.asynccontextmanager
async def played(server: PlayedServer) -> AsyncIterator[PlayedServer]:
    """Serve it on a port of its own."""
    app = web.Application()
    app.router.add_get("/v1/models", server._models)
    app.router.add_post("/tokenize", server._tokenize)
    app.router.add_post("/v1/chat/completions", server._chat)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)
