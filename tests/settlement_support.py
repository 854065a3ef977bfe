"""A settlement room of its own for tests: real ledger, real signer, any chain; tokens come from nowhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chain_support import World, wait_until
from pydantic import SecretStr

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.accounting import Ticket
from fabstir_desktop.jobs.events import Event
from fabstir_desktop.jobs.generation import Accepted, GenerationRequest, Message, SamplingParameters
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.problems import ProblemList
from fabstir_desktop.jobs.views import JobView
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.batch_contract import BATCH_CONTRACT, signing_errands
from fabstir_desktop.settlement.service import Settlement
from fabstir_desktop.settlement.signing import read_signed
from fabstir_desktop.wallet.keys import parse_private_key
from fabstir_desktop.wallet.signer import Signer

MODEL = "ab" * 32
SESSION = "session-1"
LIMIT_S = 30.0


def make_settings(data_dir: Path, rpc_url: str, chain_id: int, contract: str, **more: Any) -> Settings:
    fields: dict[str, Any] = {
        "data_dir": data_dir,
        "rpc_url": (rpc_url,) if isinstance(rpc_url, str) else rpc_url,
        "chain_id": chain_id,
        "contract_proof_system": contract,
        "settlement_poll_seconds": 0.05,
        "checkpoint_threshold": 100,
        **more,
    }
    return Settings(**fields)


def make_signer(key: str | SecretStr, chain_id: int, contract: str) -> Signer:
    text = key.get_secret_value() if isinstance(key, SecretStr) else key
    return Signer(
        parse_private_key(text),
        chain_id=chain_id,
        contracts=frozenset({contract}),
        delegates=frozenset({BATCH_CONTRACT}),
        errands=signing_errands(),
    )


@dataclass
class Room:
    """One running settlement with its ledger and feed."""

    settings: Settings
    ledger: Ledger
    feed: Feed
    settlement: Settlement
    events: list[Event] = field(default_factory=list)
    problems: ProblemList = field(default_factory=ProblemList)

    @property
    def problem_codes(self) -> set[str]:
        return {problem.code for problem in self.problems}

    async def generate(self, job_id: int, count: int, *, session_id: str = SESSION, step: int = 1) -> Ticket:
        """An answer of `count` tokens, `step` at a time, as the server would count it."""
        ticket = await self.settlement.tracker.admit(job_id, session_id, "127.0.0.1", count)
        request = GenerationRequest("r", (Message("user", "hello"),), count, SamplingParameters(seed=7))
        await self.settlement.tracker.begin(ticket, request, Accepted((1, 2, 3), 2048, 7))
        await self.record(ticket, count, step=step)
        await self.settlement.tracker.finish(ticket, "stop")
        return ticket

    async def record(self, ticket: Ticket, count: int, *, step: int = 1) -> None:
        for first in range(0, count, step):
            ids: Sequence[int] = range(first, min(first + step, count))
            await self.settlement.tracker.record(ticket, list(ids))

    async def end(self, session_id: str = SESSION) -> None:
        await self.settlement.tracker.end_session(session_id)

    async def view(self, job_id: int) -> JobView:
        view = await self.ledger.job_view(job_id)
        assert view is not None
        return view

    async def reach(self, condition: Callable[[JobView], Any], job_id: int, limit_s: float = LIMIT_S) -> JobView:
        """The job's row once the condition holds."""

        async def look() -> JobView | None:
            view = await self.ledger.job_view(job_id)
            return view if view is not None and condition(view) else None

        try:
            return await wait_until(look, limit_s)
        except AssertionError:
            raise AssertionError(f"not reached: {await self.ledger.job_view(job_id)}, {list(self.problems)}") from None

    async def settled(self, job_id: int, limit_s: float = LIMIT_S) -> JobView:
        return await self.reach(lambda view: view.settled == view.generated > 0, job_id, limit_s)

    async def wait(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        async def look() -> bool:
            return bool(condition())

        await wait_until(look, limit_s)

    async def problem(self, code: str, limit_s: float = LIMIT_S) -> str:
        await self.wait(lambda: code in self.problem_codes, limit_s)
        return next(problem.message for problem in self.problems if problem.code == code)

    async def ready(self, limit_s: float = LIMIT_S) -> None:
        await self.wait(lambda: self.settlement.status.state == "ready", limit_s)

    async def die(self) -> None:
        """End as kill -9 does, as far as one process can: tasks are cut off, nothing is drained."""
        manager = self.settlement._manager
        if manager is not None and manager._task is not None:
            manager._task.cancel()
            await asyncio.gather(manager._task, return_exceptions=True)
            manager._task = None
        await self.settlement._monitor.stop()
        await self.settlement._pool.close()
        await self.ledger.close()


@contextlib.asynccontextmanager
async def open_room(settings: Settings, signer: Signer | None = None, **more: Any) -> AsyncIterator[Room]:
    """A started settlement; stopped and closed afterwards."""
    venue = Venue(settings.chain_id, settings.contract_address, settings.settlement_contract)
    ledger = await Ledger.open(settings.ledger_path, venue, reads=read_signed)
    feed = Feed()
    settlement = Settlement(settings, ledger, feed, model_sha256=lambda: MODEL, **more)
    room = Room(settings, ledger, feed, settlement)
    _listen(room)
    try:
        await settlement.start()
        if signer is not None:
            await settlement.set_signer(signer)
        yield room
    finally:
        await settlement.stop(1.0)
        await ledger.close()


def _listen(room: Room) -> None:
    from fabstir_desktop.jobs.events import ProblemCleared, ProblemRaised

    room.feed.subscribe(Event, room.events.append)
    room.feed.subscribe(ProblemRaised, lambda event: room.problems.raise_(event.problem))
    room.feed.subscribe(ProblemCleared, lambda event: room.problems.clear(event.code, event.subject))


@contextlib.asynccontextmanager
async def room_in(world: World, data_dir: Path, *, with_key: bool = True, **more: Any) -> AsyncIterator[Room]:
    """A settlement in a world, with its host's key."""
    settings = make_settings(data_dir, more.pop("rpc_url", world.rpc_url), world.chain_id, world.contract, **more)
    signer = make_signer(world.host_key, world.chain_id, world.contract) if with_key else None
    async with open_room(settings, signer) as room:
        yield room


Eventually = Callable[[], Awaitable[Any]]
