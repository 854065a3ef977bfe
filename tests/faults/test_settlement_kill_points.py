"""Killed at every named step, with every mishap while dead: nothing lost, nothing claimed twice.

A kill is an exception that nothing in the product catches, raised at the step, after which every task is cut off and the
ledger reopened: what is on disk is what a killed process leaves. (Real kill -9 of the whole product is hunted elsewhere.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chain_support import Anvil, World, build_world
from limits import scaled
from settlement_support import Room, make_signer, room_in

from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.settlement.fees import FeeMarket

TOKENS = 150
FIRST_CLAIM = 100


class Killed(BaseException):
    """The process is gone at this very step."""


@dataclass(frozen=True)
class KillPoint:
    """Where the process dies: before or after a call of one of the parts. `bump` makes a fee bump due first."""

    name: str
    part: str
    method: str
    after: bool
    bump: bool = False
    mine_first: bool = False
    call: int = 1


POINTS = (
    KillPoint("K2 counted, nothing planned", "ledger", "transcript", after=False),
    KillPoint("K3 planned", "ledger", "plan_claim", after=True),
    KillPoint("K4 signed in memory", "outbox", "_sign", after=True),
    KillPoint("K5 bound, nothing sent", "ledger", "bind", after=True),
    KillPoint("K6 sent, no reply read", "client", "send_raw", after=True),
    KillPoint("K7 reply read, not noted", "ledger", "note_send", after=False),
    KillPoint("K8 bump signed in memory", "outbox", "_sign", after=True, bump=True, call=2),
    KillPoint("K9 bump stored", "ledger", "add_attempt", after=True, bump=True),
    KillPoint("K10 bump sent", "client", "send_raw", after=True, bump=True, call=2),
    KillPoint("K11 receipt seen, not stored", "ledger", "mark_included", after=False, mine_first=True),
    KillPoint("K12 included stored, nobody told", "ledger", "mark_included", after=True, mine_first=True),
    KillPoint("K12 confirmed stored, nobody told", "ledger", "mark_confirmed", after=True, mine_first=True),
    KillPoint("K13 final stored", "ledger", "mark_final", after=True, mine_first=True),
)


async def nothing(world: World, room: Room) -> None:
    """Only the kill."""


async def forgotten(world: World, room: Room) -> None:
    """The node lost its pool."""
    await world.client.request("anvil_dropAllTransactions")


async def mined(world: World, room: Room) -> None:
    await world.mine()


async def reorganised(world: World, room: Room) -> None:
    await world.mine()
    await world.reorg(1)


async def foreign_nonce(world: World, room: Room) -> None:
    """Another program with the same key uses the next nonce."""
    await world.client.request("anvil_dropAllTransactions")
    await world.host.send(world.host_address, gas=21_000)
    await world.mine()


MISHAPS: tuple[Callable[[World, Room], Awaitable[None]], ...] = (nothing, forgotten, mined, reorganised, foreign_nonce)


@contextlib.asynccontextmanager
async def new_world(anvil: Anvil) -> AsyncIterator[World]:
    async with ChainClient(anvil.rpc_url) as client:
        await client.request("evm_setAutomine", True)
        yield await build_world(anvil, client)


def arm(room: Room, point: KillPoint) -> asyncio.Event:
    """Let the process die at the point."""
    manager: Any = room.settlement._manager
    parts = {"ledger": room.ledger, "outbox": manager._parts.outbox, "client": room.settlement._client}
    part: Any = parts[point.part]
    original = getattr(part, point.method)
    killed, calls = asyncio.Event(), 0

    async def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < point.call:
            return await original(*arguments, **named)
        if point.after:
            await original(*arguments, **named)
        killed.set()
        raise Killed

    setattr(part, point.method, deadly)
    if point.bump:
        manager._parts.outbox._resend_s = 0.0
        client = room.settlement._client

        async def dear_market(head: Any) -> FeeMarket:
            return FeeMarket(head.base_fee_wei * 3, (10**7,) * 9)

        async def after_first(*arguments: Any) -> Any:
            answer = await sending(*arguments)
            client.fee_market = dear_market  # type: ignore[method-assign]
            manager._parts.outbox.forget_market()
            for sending_of_slot in manager._parts.outbox._sending.values():
                sending_of_slot.attempt_head = -1  # as if a block had come: without one nothing is raised
            return answer

        sending = client.send_raw
        client.send_raw = after_first  # type: ignore[method-assign]
    return killed


async def live_until_killed(world: World, data_dir: Path, point: KillPoint, mishap: Any) -> None:
    async with room_in(world, data_dir) as room:
        await room.ready()
        await world.set_automine(False)
        killed = arm(room, point)
        await room.generate(world.job_id, FIRST_CLAIM, step=FIRST_CLAIM)
        if point.mine_first:
            await room.reach(lambda view: view.claimed == FIRST_CLAIM, world.job_id)
            await world.mine(4)
            room.settlement._manager._finality_at = 0.0  # type: ignore[union-attr]
        async with asyncio.timeout(scaled(20)):
            await killed.wait()
        await room.die()
        await mishap(world, room)


async def drain(world: World, data_dir: Path) -> None:
    """Start again, end everything, and compare chain, ledger, and what was generated."""
    await world.set_automine(True)
    async with room_in(world, data_dir) as room:
        await room.generate(world.job_id, TOKENS - FIRST_CLAIM, step=7)
        await room.end()

        async def mine_on() -> None:
            while True:
                await world.mine()
                await asyncio.sleep(0.05)

        mining = asyncio.create_task(mine_on())
        try:
            view = await room.settled(world.job_id, 30)
        finally:
            mining.cancel()
            await asyncio.gather(mining, return_exceptions=True)
        assert view.generated == TOKENS
        claims = await world.events("CheckpointSubmitted")
        assert sum(int(event["tokensGenerated"]) for event in claims) == TOKENS
        assert await world.tokens_paid() == TOKENS
        assert view.earned[0].amount == TOKENS * world.price_wei * 9 // 10


@pytest.fixture
async def quick_final_anvil(start_anvil: Callable[..., Awaitable[Anvil]]) -> Anvil:
    """An anvil whose blocks are safe after one more block, and final after two."""
    return await start_anvil(arguments=["--slots-in-an-epoch", "1", "--balance", "10000000"])


@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda mishap: mishap.__name__)
async def test_no_kill_and_no_mishap_loses_or_doubles_a_token(
    quick_final_anvil: Anvil, tmp_path: Path, mishap: Any
) -> None:
    for number, point in enumerate(POINTS):
        async with new_world(quick_final_anvil) as world:
            data_dir = tmp_path / str(number)
            try:
                await live_until_killed(world, data_dir, point, mishap)
                await drain(world, data_dir)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{point.name}, {mishap.__name__}: {error}") from error


async def test_a_kill_in_the_middle_of_recovery_changes_nothing(quick_final_anvil: Anvil, tmp_path: Path) -> None:
    for number, method in enumerate(("mark_included", "mark_confirmed", "record_payments")):
        async with new_world(quick_final_anvil) as world:
            data_dir = tmp_path / str(number)
            await live_until_killed(world, data_dir, POINTS[4], mined)
            async with room_in(world, data_dir, with_key=False) as room:
                await room.ready()
                original = getattr(room.ledger, method)
                killed = asyncio.Event()

                async def deadly(
                    *arguments: Any, original: Any = original, killed: asyncio.Event = killed, **named: Any
                ) -> Any:
                    await original(*arguments, **named)
                    killed.set()
                    raise Killed

                setattr(room.ledger, method, deadly)
                await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
                async with asyncio.timeout(scaled(20)):
                    await killed.wait()
                await room.die()
            await drain(world, data_dir)
