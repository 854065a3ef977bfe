"""The product as a child process, and the client of the brief: both know only what the outside may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from limits import SCALE
from secrets_support import planted, with_canary
from websockets.asyncio.client import ClientConnection, connect


class Product:
    """`fabstir-desktop` in a process of its own."""

    def __init__(
        self, data_dir: Path, environment: Mapping[str, str], arguments: tuple[str, ...] = ("--headless",)
    ) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in {"HOST_PRIVATE_KEY", "DISPLAY"}},
            "FABSTIR_DATA_DIR": str(data_dir),
            "API_PORT": "0",
            "SESSION_GRACE_SECONDS": "0.5",
            "SETTLEMENT_POLL_SECONDS": "0.2",
            "LOG_LEVEL": "DEBUG",
            **environment,
        }
        if "RPC_URL" in environment:
            self._environment["RPC_URL"] = with_canary(environment["RPC_URL"])
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    async def start(self, limit_s: float = 60.0, *, wait_for_model: bool = True) -> Product:
        """Start and wait until it listens (and the model is loaded)."""
        self.spawn()
        status = await self.wait_for(
            lambda answer: (
                bool(answer["server"]["url"]) and (not wait_for_model or answer["engine"]["state"] == "ready")
            ),
            limit_s,
        )
        self.url = status["server"]["url"]
        return self

    def spawn(self) -> None:
        """Start, and wait for nothing."""
        with open(self.data_dir.with_name(self.data_dir.name + ".out"), "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fabstir_desktop", *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def http_url(self) -> str:
        return self.url.replace("ws://", "http://").removesuffix("/v1/ws")

    @property
    def output(self) -> str:
        return self.data_dir.with_name(self.data_dir.name + ".out").read_text(errors="replace")

    @property
    def log(self) -> str:
        return (self.data_dir / "logs" / "fabstir-desktop.log").read_text(encoding="utf-8")

    async def wait_for(self, condition: Callable[[dict[str, Any]], bool], limit_s: float = 30.0) -> dict[str, Any]:
        """Ask the control socket for the status until the condition holds."""
        from fabstir_desktop.server.control import call_running

        limit = time.monotonic() + limit_s * SCALE
        status: dict[str, Any] | None = None
        while time.monotonic() < limit:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the product ended with {self.process.returncode}:\n{self.output[-4000:]}")
            with contextlib.suppress(Exception):
                status = await call_running(self.data_dir, "status", {}, timeout_s=5.0)
                if status is not None and condition(status):
                    return status
            await asyncio.sleep(0.05)
        raise AssertionError(f"not reached within {limit_s} s; last status: {status}\n{self.output[-4000:]}")

    async def wait_for_log(self, text: str, limit_s: float = 30.0, *, count: int = 1) -> None:
        limit = time.monotonic() + limit_s * SCALE
        while self.log.count(text) < count:
            assert time.monotonic() < limit, f"{text!r} is not {count} times in the log:\n{self.log[-4000:]}"
            await asyncio.sleep(0.05)

    async def command(self, *arguments: str, input_text: str | None = None) -> tuple[int, str]:
        """Run another command of the product for this profile; exit code and standard output with errors behind it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fabstir_desktop", *arguments,
            env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        output, errors = await asyncio.wait_for(
            process.communicate(input_text.encode() if input_text is not None else b""), 60 * SCALE
        )
        return process.returncode or 0, output.decode() + errors.decode()

    async def jobs(self) -> dict[str, dict[str, Any]]:
        """`jobs --json`, by job id."""
        code, text = await self.command("jobs", "--json")
        assert code == 0, text
        return {row["job_id"]: row for row in json.loads(text)}

    async def job(
        self, job_id: int, condition: Callable[[dict[str, Any]], bool], limit_s: float = 40.0
    ) -> dict[str, Any]:
        """The job's row once the condition holds."""
        from fabstir_desktop.server.control import call_running

        limit = time.monotonic() + limit_s * SCALE
        row: dict[str, Any] | None = None
        while time.monotonic() < limit:
            rows = await call_running(self.data_dir, "jobs", {}, timeout_s=10.0)
            row = next((item for item in rows or [] if item["job_id"] == str(job_id)), None)
            if row is not None and condition(row):
                return row
            await asyncio.sleep(0.1)
        raise AssertionError(f"job {job_id} did not get there within {limit_s} s: {row}\n{self.log[-4000:]}")

    async def stop(self, limit_s: float = 5.0) -> tuple[int, float]:
        """SIGTERM; exit code and seconds it took."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(self.process.wait, limit_s * SCALE + 5)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end:\n{self.output[-4000:]}") from None
        return code, time.monotonic() - started

    def kill(self) -> None:
        """kill -9, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.asynccontextmanager
async def running(
    data_dir: Path,
    environment: Mapping[str, str],
    arguments: tuple[str, ...] = ("--headless",),
    *,
    wait_for_model: bool = True,
) -> AsyncIterator[Product]:
    """A started product that is gone afterwards."""
    product = Product(data_dir, environment, arguments)
    try:
        yield await product.start(wait_for_model=wait_for_model)
    finally:
        product.kill()


@dataclass
class Answer:
    """What a client received for one request."""

    text: str = ""
    chunk_tokens: int = 0
    frames: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def tokens_used(self) -> int:
        assert self.end is not None, self.frames[-3:]
        return int(self.end["tokens_used"])


def brief_request(
    job_id: object, prompt: str, max_tokens: int = 200, session_id: str = "user-session-001"
) -> dict[str, Any]:
    """The request as the brief has it, its prompt is one that must never be written anywhere."""
    return {
        "type": "inference",
        "request": {
            "model": "tiny-vicuna",
            "prompt": planted(prompt),
            "max_tokens": max_tokens,
            "temperature": 0.7,
            "job_id": job_id,
            "session_id": session_id,
        },
    }


async def ask(socket: ClientConnection, request: Mapping[str, Any], limit_s: float = 90.0) -> Answer:
    """Send one request and read until its end (or its refusal)."""
    await socket.send(json.dumps(request))
    answer = Answer()
    async with asyncio.timeout(limit_s * SCALE):
        async for message in socket:
            frame = json.loads(message)
            answer.frames.append(frame)
            if frame["type"] == "stream_chunk":
                answer.text += frame["content"]
                answer.chunk_tokens += frame["tokens"]
            elif frame["type"] == "stream_end":
                answer.end = frame
                return answer
            elif frame["type"] == "error":
                answer.error = frame
                if frame["code"] != "WORKER_CRASHED":
                    return answer
    return answer


def tokens_of(frame: Mapping[str, Any]) -> int:
    """The answer's tokens in a frame; checkpoint frames have a field of that name too."""
    return int(frame["tokens"]) if frame["type"] == "stream_chunk" else 0


async def ask_once(url: str, request: Mapping[str, Any]) -> Answer:
    """The same over a socket of its own, closed afterwards."""
    async with connect(url, max_size=None) as socket:
        return await ask(socket, request)


async def get_json(url: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of a GET."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json(content_type=None)


def claimed_in_log(log: str) -> list[int]:
    """Tokens of each CHECKPOINT NEEDED line."""
    return [int(number) for number in re.findall(r"CHECKPOINT NEEDED for job \d+ with (\d+) tokens!", log)]
