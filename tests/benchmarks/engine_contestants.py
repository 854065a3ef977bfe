"""Who takes part in the engine's benchmark: the engine alone, the whole product, llama-server, and the bare loops.

Each is asked the same way and tells when each piece of each answer came, on one clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from engine_support import ask, small_model_path
from llama_server_support import llama_server
from product_support import Product
from websockets.asyncio.client import ClientConnection, connect

from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.jobs.generation import Message, Piece

PEERS = Path(__file__).with_name("engine_peers.py")
NO_CHAIN = "http://127.0.0.1:9"
"""Nothing listens there: without a key the product counts its tokens and asks no chain."""

_numbers = itertools.count(1)


@dataclass
class Answer:
    """One answer: when it was asked for, when its pieces came (seconds of `perf_counter`), its tokens, its text."""

    asked_at: float
    came_at: list[float] = field(default_factory=list)
    tokens: int = 0
    text: str = ""
    began: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, text: str) -> None:
        """A piece with text came."""
        self.came_at.append(time.perf_counter())
        self.text += text
        self.began.set()

    @property
    def first_s(self) -> float:
        return self.came_at[0] - self.asked_at

    @property
    def ended_at(self) -> float:
        return self.came_at[-1]


@dataclass
class Outcome:
    """One run of answers that began together: seconds to each first token, seconds in all, tokens made."""

    firsts: list[float]
    seconds: float
    tokens: int

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    @property
    def slowest_first(self) -> float:
        return max(self.firsts)


Run = Callable[[list[str], int], Awaitable[Outcome]]
"""Answer the prompts, all at once, with so many tokens each."""


class Contestant:
    """Somebody who answers conversations. `ask` may be called many times at once."""

    name = ""

    async def ask(self, turns: Sequence[Message], count: int, seed: int, answer: Answer) -> None:
        """Answer the last turn with at most `count` tokens, into `answer`."""
        raise NotImplementedError

    async def prepare(self, answers: int) -> None:
        """Open what so many answers need, before the clock runs."""

    async def run(self, prompts: list[str], count: int) -> Outcome:
        """All prompts at once."""
        await self.prepare(len(prompts))
        started = time.perf_counter()
        answers = [Answer(started) for _ in prompts]
        await asyncio.gather(
            *(self.ask([Message("user", prompt)], count, seed, answer)
              for seed, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)))
        )  # fmt: skip
        seconds = time.perf_counter() - started
        return Outcome([answer.first_s for answer in answers], seconds, sum(answer.tokens for answer in answers))


class EngineAlone(Contestant):
    """Our engine without server and ledger."""

    name = "engine"

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    async def ask(self, turns: Sequence[Message], count: int, seed: int, answer: Answer) -> None:
        request = ask("", count, messages=tuple(turns), temperature=0.7, seed=seed)
        async for event in self._engine.generate(request):
            if isinstance(event, Piece):
                answer.take(event.text)
                answer.tokens += len(event.token_ids)


class LlamaServer(Contestant):
    """llama-server over HTTP. Its prompt cache is as it comes, unless `keeps` is False: then each prompt is read whole, as in a
    server that has just started."""

    name = "llama-server"

    def __init__(self, session: aiohttp.ClientSession, url: str, *, keeps: bool = True) -> None:
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._more = {} if keeps else {"cache_prompt": False}

    @property
    def keeping_nothing(self) -> LlamaServer:
        """The same server, asked to use nothing that it kept."""
        return LlamaServer(self._session, self._url.removesuffix("/v1/chat/completions"), keeps=False)

    async def ask(self, turns: Sequence[Message], count: int, seed: int, answer: Answer) -> None:
        body = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns], "max_tokens": count,
            "stream": True, "seed": seed, "temperature": 0.7, "top_p": 0.95, "top_k": 40, "min_p": 0.05,
            "stream_options": {"include_usage": True}, **self._more,
        }  # fmt: skip
        async with self._session.post(self._url, json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    part = json.loads(line[6:])
                    text = part["choices"][0]["delta"].get("content") if part["choices"] else None
                    if text:
                        answer.take(text)
                    answer.tokens = (part.get("usage") or {}).get("completion_tokens", answer.tokens)


class PythonServer(LlamaServer):
    """llama-cpp-python's own server. It answers one request after the other and tells no usage: each piece is a token."""

    name = "llama-cpp-python"

    async def ask(self, turns: Sequence[Message], count: int, seed: int, answer: Answer) -> None:
        await super().ask(turns, count, seed, answer)
        answer.tokens = len(answer.came_at)


class WholeProduct(Contestant):
    """The application as a process: WebSocket in, tokens in the ledger, frames out. One socket an answer."""

    name = "product"

    def __init__(self, product: Product) -> None:
        self.product = product
        self._sockets: list[ClientConnection] = []

    async def prepare(self, answers: int) -> None:
        await self.close()
        for _ in range(answers):
            socket = await connect(self.product.url, compression=None, max_size=None)
            await socket.recv()
            self._sockets.append(socket)

    async def close(self) -> None:
        """Close the sockets of the last run; their sessions end soon after."""
        sockets, self._sockets = self._sockets, []
        for opened in sockets:
            await opened.close()

    async def ask(self, turns: Sequence[Message], count: int, seed: int, answer: Answer) -> None:
        await self.ask_on(self._sockets[seed], turns[-1].content, count, seed, answer, f"bench-{next(_numbers)}")

    @staticmethod
    async def ask_on(
        socket: ClientConnection, prompt: str, count: int, seed: int, answer: Answer, session_id: str
    ) -> dict[str, Any]:
        """Ask in a session whose history the host keeps; returns the `stream_end`."""
        await socket.send(inference(prompt, count, seed, session_id))
        async for message in socket:
            frame = json.loads(message)
            if frame["type"] == "stream_chunk":
                answer.tokens += frame["tokens"]
                if frame["content"]:
                    answer.take(frame["content"])
            elif frame["type"] == "stream_end":
                return dict(frame)
            elif frame["type"] == "error" and frame["code"] != "WORKER_CRASHED":
                raise AssertionError(frame)
        raise AssertionError("the socket closed before the answer's end")


def inference(prompt: str, count: int, seed: int, session_id: str) -> str:
    """The brief's frame; each session pays from a job of its own."""
    request = {
        "prompt": prompt, "max_tokens": count, "temperature": 0.7, "top_p": 0.95, "top_k": 40, "min_p": 0.05,
        "seed": seed, "job_id": job_of(session_id), "session_id": session_id,
    }  # fmt: skip
    return json.dumps({"type": "inference", "request": request})


def job_of(session_id: str) -> int:
    """A job of its own for each session."""
    return int.from_bytes(session_id.encode()[-12:], "big")


def environment(window: int, parallel: int, threads: int, **more: str) -> dict[str, str]:
    """The product's settings: our model, no key, no chain."""
    return {
        "MODEL_PATH": str(small_model_path()),
        "CONTEXT_WINDOW": str(window),
        "MAX_PARALLEL": str(parallel),
        "THREADS": str(threads),
        "RPC_URL": NO_CHAIN,
        "LOG_LEVEL": "INFO",
        "SESSION_GRACE_SECONDS": "5",
        **more,
    }


@contextlib.asynccontextmanager
async def served_llama(window: int, parallel: int, threads: int) -> AsyncIterator[LlamaServer]:
    """A llama-server."""
    with llama_server(small_model_path(), window=window, parallel=parallel, threads=threads) as url:
        # It closes a connection after each answer; one that is kept for the next would be found closed.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:
            yield LlamaServer(session, url)


@contextlib.asynccontextmanager
async def served_python(window: int, threads: int) -> AsyncIterator[PythonServer]:
    """llama-cpp-python's server, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "model": small_model_path(), "n_ctx": window, "n_threads": threads, "n_threads_batch": threads, "flash_attn": True,
        "interrupt_requests": False, "verbose": False, "host": "127.0.0.1", "port": port,
    }  # fmt: skip
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llama_cpp.server", *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:
            url = f"http://127.0.0.1:{port}"
            await answers(session, f"{url}/v1/models", process)
            yield PythonServer(session, url)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def answers(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    """Wait until the process serves the URL."""
    for _ in range(600):
        assert process.returncode is None, "it ended: are the packages of the dev group installed?"
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url):
                return
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


@contextlib.asynccontextmanager
async def bare_loop(window: int, parallel: int, threads: int) -> AsyncIterator[Run]:
    """The bare decode loop in a process of its own."""
    arguments = [str(PEERS), str(small_model_path()), str(window), str(parallel), str(threads)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"READY"
    stdin, stdout = process.stdin, process.stdout

    async def run(prompts: list[str], count: int) -> Outcome:
        stdin.write(json.dumps([prompts, count]).encode() + b"\n")
        return Outcome(*json.loads(await stdout.readline()))

    try:
        yield run
    finally:
        stdin.close()
        await process.wait()
