"""Parts for tests of the server: an accountant in memory, a status, settings, a running server and a plain client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets
from engine_support import ScriptedEngine
from limits import scaled
from secrets_support import PROMPT

from fabstir_desktop.errors import AdmissionRefused, JobNotValid, LedgerError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.accounting import Ticket
from fabstir_desktop.jobs.generation import Accepted, FinishReason, GenerationRequest
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import (
    ChainState,
    ChainStatus,
    NodeStatus,
    ServingState,
    WalletState,
    WalletStatus,
)
from fabstir_desktop.server.api_server import ApiServer
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.settings import Settings

LIMIT_S = scaled(10.0)


class MemoryAccountant:
    """The Accountant protocol in memory. `log` is what was asked for, in order.

    `refuse` maps job ids to what admission raises; `allowed` to caps; `hold_admission` stops admission until it is set;
    `fail_after` lets the ledger break after so many recorded tokens.
    """

    def __init__(self) -> None:
        self.totals: dict[int, int] = {}
        self.ids: dict[int, list[int]] = {}
        self.log: list[tuple[Any, ...]] = []
        self.refuse: dict[int, Exception] = {}
        self.allowed: dict[int, int | None] = {}
        self.clients: list[str] = []
        self.hold_admission: asyncio.Event | None = None
        self.fail_after: int | None = None
        self.open_tickets: dict[int, Ticket] = {}
        self.begun: list[tuple[Ticket, GenerationRequest, Accepted]] = []
        self._next_ticket = 0

    async def admit(self, job_id: int, session_id: str, client: str, max_tokens: int) -> Ticket:
        self.log.append(("admit", job_id, session_id))
        self.clients.append(client)
        if self.hold_admission is not None:
            await self.hold_admission.wait()
        if job_id in self.refuse:
            raise self.refuse[job_id]
        self._next_ticket += 1
        ticket = Ticket(self._next_ticket, job_id, session_id, self.allowed.get(job_id))
        self.open_tickets[ticket.ticket_id] = ticket
        return ticket

    async def begin(self, ticket: Ticket, request: GenerationRequest, accepted: Accepted) -> None:
        self.begun.append((ticket, request, accepted))

    async def record(self, ticket: Ticket, token_ids: Sequence[int]) -> int:
        assert ticket.ticket_id in self.open_tickets, "tokens after the ticket was closed"
        if self.fail_after is not None and sum(self.totals.values()) + len(token_ids) > self.fail_after:
            raise LedgerError("the disk is full")
        self.totals[ticket.job_id] = self.totals.get(ticket.job_id, 0) + len(token_ids)
        self.ids.setdefault(ticket.job_id, []).extend(token_ids)
        return self.totals[ticket.job_id]

    async def finish(self, ticket: Ticket, finish_reason: FinishReason) -> None:
        if self.open_tickets.pop(ticket.ticket_id, None) is not None:
            self.log.append(("finish", ticket.job_id, finish_reason))

    async def end_session(self, session_id: str) -> None:
        self.log.append(("end_session", session_id))

    def ended(self) -> list[str]:
        """Sessions that were ended, in order."""
        return [entry[1] for entry in self.log if entry[0] == "end_session"]


class StandingStatus:
    """A StatusSource that a test sets; the server's own part is asked from the server."""

    def __init__(self, engine: ScriptedEngine, settings: Settings) -> None:
        self.state = ServingState.SERVING
        self.wallet = WalletStatus(WalletState.READY, address="0x" + "12" * 20)
        self.chain = ChainStatus(
            state=ChainState.READY,
            detail="",
            rpc="sepolia.base.org",
            chain_id=settings.chain_id,
            chain_name="Base Sepolia",
            is_testnet=True,
            contract=settings.contract_address,
            contract_name="ProofSystem",
            submitting=True,
        )
        self.problems: Sequence[Problem] = ()
        self.server: ApiServer | None = None
        self._engine = engine
        self._data_dir = str(settings.data_dir)

    @property
    def status(self) -> NodeStatus:
        assert self.server is not None
        return NodeStatus(
            version="0.1.0",
            state=self.state,
            sentence="Serving",
            engine=self._engine.status,
            wallet=self.wallet,
            chain=self.chain,
            server=self.server.status,
            started_at=0.0,
            resume_at=None,
            loop_lag_ms=1.5,
            data_dir=self._data_dir,
            demo=False,
        )


class World:
    """A running server and everything around it."""

    def __init__(self, settings: Settings, engine: ScriptedEngine, limits: Limits | None) -> None:
        self.settings = settings
        self.engine = engine
        self.feed = Feed()
        self.accountant = MemoryAccountant()
        self.source = StandingStatus(engine, settings)
        self.server = ApiServer(settings, engine, self.accountant, self.source, self.feed, limits=limits)
        self.source.server = self.server
        self.url = ""

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def connect(self, **options: Any) -> Any:
        """A plain client, as `async with`."""
        return websockets.connect(self.url, proxy=None, **options)


def make_settings(data_dir: Path, **changes: Any) -> Settings:
    """Settings on a free port with a short grace period."""
    return Settings(**{"data_dir": data_dir, "api_port": 0, "session_grace_seconds": 0.3, **changes})


@asynccontextmanager
async def serving(
    data_dir: Path, engine: ScriptedEngine | None = None, limits: Limits | None = None, **changes: Any
) -> AsyncIterator[World]:
    """A server on a scripted engine; stopped at the end, with nothing left over."""
    world = World(make_settings(data_dir, **changes), engine or ScriptedEngine(), limits)
    await world.engine.start()
    world.url = await world.server.start()
    try:
        yield world
    finally:
        await world.server.stop(2.0)
        assert world.accountant.open_tickets == {}, "tickets were left open"
        assert world.engine.status.active_streams == 0, "streams were left running"


def inference(prompt: str = PROMPT, **fields: Any) -> dict[str, Any]:
    """The brief's request; `id` stands outside, everything else inside."""
    outer = {"id": fields.pop("id")} if "id" in fields else {}
    inner = {"model": "tiny-vicuna", "prompt": prompt, "max_tokens": 5, "temperature": 0.7, **fields}
    return {"type": "inference", "request": inner, **outer}


async def send(socket: Any, frame: Any) -> None:
    await socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))


async def receive(socket: Any) -> dict[str, Any]:
    """The next frame but the greeting."""
    while True:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), LIMIT_S))
        if frame["type"] != "connected":
            return frame


async def receive_until(socket: Any, kind: str, **fields: Any) -> list[dict[str, Any]]:
    """Frames up to the first of `kind` with these fields, it included."""
    frames = []
    while True:
        frames.append(await receive(socket))
        if frames[-1]["type"] == kind and all(frames[-1].get(name) == value for name, value in fields.items()):
            return frames


async def ask(socket: Any, frame: dict[str, Any]) -> list[dict[str, Any]]:
    """Send a prompt and read to its stream_end, or to an error that has none."""
    await send(socket, frame)
    frames = []
    while True:
        frames.append(await receive(socket))
        begun = any(kept["type"] == "stream_chunk" for kept in frames)
        if frames[-1]["type"] == "stream_end" or (frames[-1]["type"] == "error" and not begun):
            return frames


def text_of(frames: Sequence[dict[str, Any]]) -> str:
    return "".join(frame["content"] for frame in frames if frame["type"] == "stream_chunk")


def tokens_of(frames: Sequence[dict[str, Any]]) -> int:
    return sum(frame["tokens"] for frame in frames if frame["type"] == "stream_chunk")


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for a condition. Fails if it does not come."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + scaled(limit_s)
    while not condition():
        assert loop.time() < ends_at, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def raw_request(port: int, data: bytes, *, read_all: bool = True) -> bytes:
    """Send bytes over TCP and return what comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read() if read_all else reader.read(65536), LIMIT_S)
    finally:
        writer.close()


async def http_get(port: int, path: str, host: str = "127.0.0.1", *headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    answer = await raw_request(port, "\r\n".join(lines).encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split(" ")[1]), fields, body


def refused(code_text: str) -> AdmissionRefused:
    return JobNotValid(code_text)
