"""A settlement room in a process of its own that kills itself, by SIGKILL, at a named step.

The step is a call of one of the room's parts, wrapped here; the product knows nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import web3  # noqa: F401  takes its second before the process forks, instead of after
from limits import scaled
from settlement_support import Room, make_settings, make_signer, open_room

from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.settlement.fees import FeeMarket

FIRST_CLAIM = 100
LIFE_LIMIT_S = 30.0
Call = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class KillPoint:
    """Where the process dies: before or after a call of one of its parts, the `call`th one (that has something to do).

    `beside`: another job's claim is in the pool then, so that what befalls the pool befalls something. `bump`: a fee bump is
    due first. `blocks`: so many are mined once the claim is sent. `at_boot`: in the first comparison with the chain.
    """

    name: str
    part: str
    method: str
    after: bool = True
    call: int = 1
    beside: bool = False
    bump: bool = False
    blocks: int = 0
    at_boot: bool = False


@dataclass(frozen=True)
class Place:
    """Where the process works: `rpc_url` is what the product is told, `chain_url` is for the test's own hands."""

    data_dir: Path
    rpc_url: str
    chain_url: str
    chain_id: int
    contract: str
    host_key: str
    jobs: tuple[int, ...]
    step_tokens: int


def run(place: Place, point: KillPoint, told: Connection) -> None:
    """The process's whole life. It tells each count of tokens that the ledger has acknowledged, as the server would send it."""
    place.data_dir.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=place.data_dir / "child.log", level=logging.INFO)
    asyncio.run(_live(place, point, told))


async def _live(place: Place, point: KillPoint, told: Connection) -> None:
    settings = make_settings(place.data_dir, place.rpc_url, place.chain_id, place.contract)
    signer = make_signer(place.host_key, place.chain_id, place.contract)
    async with (
        asyncio.timeout(scaled(LIFE_LIMIT_S)),
        ChainClient(place.chain_url) as chain,
        open_room(settings) as room,
    ):
        await room.ready()
        if point.at_boot:
            await _mine(chain, point.blocks)
            arm(room, point)
            await room.settlement.set_signer(signer)
        else:
            await room.settlement.set_signer(signer)
            await _work(room, place, point, chain, told)
        await asyncio.sleep(LIFE_LIMIT_S)


async def _work(room: Room, place: Place, point: KillPoint, chain: ChainClient, told: Connection) -> None:
    other, job_id = place.jobs
    if point.beside:
        await _serve(room, other, place.step_tokens, told)
        await _sent(room, other)
    arm(room, point)
    await _serve(room, job_id, place.step_tokens, told)
    if point.blocks:
        await _sent(room, job_id)
        await _mine(chain, point.blocks)
        room.settlement._manager._finality_at = 0.0  # type: ignore[union-attr]


async def _serve(room: Room, job_id: int, step: int, told: Connection) -> None:
    ticket = await room.settlement.tracker.admit(job_id, f"session-{job_id}", "127.0.0.1", FIRST_CLAIM)
    for first in range(0, FIRST_CLAIM, step):
        ids = list(range(first, min(first + step, FIRST_CLAIM)))
        told.send((job_id, await room.settlement.tracker.record(ticket, ids)))


async def _sent(room: Room, job_id: int) -> None:
    """Until the job's claim was handed to the node, and the node's answer is known or lost."""
    await room.reach(lambda view: view.claimed == FIRST_CLAIM, job_id)
    outbox: Any = room.settlement._manager._parts.outbox  # type: ignore[union-attr]
    slots = await room.ledger.slots(outbox.sender)
    await room.wait(lambda: all(outbox.last_answer(slot) is not None for slot in slots))


async def _mine(chain: ChainClient, blocks: int) -> None:
    for _ in range(blocks):
        await chain.request("evm_mine")


def arm(room: Room, point: KillPoint) -> None:
    """Let the process die at the point."""
    manager: Any = room.settlement._manager
    outbox = manager._parts.outbox if manager is not None else None
    parts = {"ledger": room.ledger, "outbox": outbox, "client": room.settlement._client}
    part: Any = parts[point.part]
    original: Call = getattr(part, point.method)
    calls = 0

    async def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += bool(arguments[0])  # payments are stored all the time, most often none
        if calls == point.call and not point.after:
            die()
        answer = await original(*arguments, **named)
        if calls >= point.call:
            die()
        return answer

    setattr(part, point.method, deadly)
    if point.bump:
        make_bump_due(room, outbox)


def die() -> None:
    """kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def make_bump_due(room: Room, outbox: Any) -> None:
    """After the first sending gas is three times as dear, and blocks seem to have come."""
    client: Any = room.settlement._client
    outbox._resend_s = 0.0
    sending: Call = client.send_raw

    async def dear_market(head: Any) -> FeeMarket:
        return FeeMarket(head.base_fee_wei * 3, (10**7,) * 9)

    async def after_first(*arguments: Any) -> Any:
        answer = await sending(*arguments)
        client.fee_market = dear_market
        outbox.forget_market()
        for one in outbox._sending.values():
            one.attempt_head = -1  # as if a block had come: without one nothing is raised
        return answer

    client.send_raw = after_first
