"""Batches when things go wrong: fees, reorganisations, kills, nodes that know no borrowed code. On anvil, which can do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from chain_support import Anvil, World
from mining_support import mining, soon_final_world
from settlement_support import Room, room_in

from fabstir_desktop.errors import RpcRefused
from fabstir_desktop.jobs.claims import BATCH, DELEGATION, TYPE_4, ClaimState, Slot, SlotState
from fabstir_desktop.settlement.batch_contract import BATCH_CONTRACT, OWN_DELEGATION
from fabstir_desktop.wallet.signer import read_authorizations, read_payload

JOBS = 4


class Killed(BaseException):
    """The process is gone at this very step."""


@pytest.fixture
async def world(start_anvil: Callable[..., Awaitable[Anvil]]) -> AsyncIterator[World]:
    async with soon_final_world(start_anvil) as world:
        yield world


async def slots_of(room: Room, world: World, kind: str) -> list[Slot]:
    return [slot for slot in await room.ledger.slots(world.host_address) if slot.kind == kind]


async def gather_behind_the_first(room: Room, world: World, jobs: list[int]) -> None:
    """The first job's claim is in the pool, and no block comes; the others are due and wait for it."""
    await world.set_automine(False)
    await room.generate(jobs[0], 100, step=100)
    async with asyncio.timeout(30):
        while (await room.ledger.transaction_views())[0].state != "sent":
            await asyncio.sleep(0.02)
    for job_id in jobs[1:]:
        await room.generate(job_id, 100, step=100)


async def batch_on_its_way(room: Room, world: World) -> tuple[list[int], Slot]:
    """Batching is on; the claims of three jobs are signed in one transaction that no block has taken."""
    await room.ready()
    await room.wait(lambda: room.settlement.batching.active)
    jobs = [world.job_id, *[await world.create_job() for _ in range(JOBS - 1)]]
    await gather_behind_the_first(room, world, jobs)
    await world.mine()
    await room.reach(lambda view: view.claimed == 100, jobs[-1])
    return jobs, (await slots_of(room, world, BATCH))[-1]


async def all_paid_once(room: Room, world: World, jobs: list[int], tokens: int = 100) -> None:
    for job_id in jobs:
        view = await room.settled(job_id)
        assert view.generated == view.settled == tokens
        assert await world.tokens_paid(job_id) == tokens
    seen = await world.events("CheckpointSubmitted")
    assert sum(int(event["tokensGenerated"]) for event in seen) == tokens * len(jobs)


async def bumped(room: Room, world: World, kind: str) -> Slot:
    """Blocks too dear for what waits, until it is replaced."""
    manager: Any = room.settlement._manager
    manager._parts.outbox._resend_s = 0.0
    slot = (await slots_of(room, world, kind))[-1]
    async with asyncio.timeout(30):
        while len(slot.attempts) < 2:
            await world.set_next_base_fee(slot.attempts[-1].max_fee_per_gas_wei + 1)
            await world.mine()
            manager._parts.outbox.forget_market()
            await asyncio.sleep(0.05)
            slot = (await slots_of(room, world, kind))[-1]
    return slot


async def test_a_dearer_batch_carries_the_same_claims_with_the_same_nonce(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, batch_claims=True) as room:
        jobs, batch = await batch_on_its_way(room, world)
        changed = await bumped(room, world, BATCH)
        assert (changed.slot_id, changed.nonce, changed.claim_ids) == (batch.slot_id, batch.nonce, batch.claim_ids)
        first, *dearer = changed.attempts
        assert all(read_payload(one.raw) == read_payload(first.raw) for one in dearer)
        async with mining(world):
            await all_paid_once(room, world, jobs)


async def test_a_dearer_delegation_keeps_its_authorization(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, batch_claims=True) as room:
        await room.ready()
        await room.wait(lambda: room.settlement.batching.active)
        await world.set_automine(False)
        await room.settlement.set_batching(False)
        changed = await bumped(room, world, DELEGATION)
        first, *dearer = changed.attempts
        assert all(one.raw[:1] == TYPE_4 for one in changed.attempts)
        assert all(read_authorizations(one.raw) == read_authorizations(first.raw) != () for one in dearer)
        async with mining(world):
            await room.wait(lambda: room.settlement.batching.sentence.startswith("Off"))
        assert await world.client.request("eth_getCode", world.host_address, "latest") == "0x"


async def test_a_reorganised_batch_is_sent_again_and_each_claim_is_judged_anew(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, batch_claims=True) as room:
        jobs, batch = await batch_on_its_way(room, world)
        await world.mine()
        for job_id in jobs:
            await room.settled(job_id)
        await world.reorg(1)
        for job_id in jobs[1:]:
            await room.reach(lambda view: view.proven == 0, job_id)
        (again,) = await slots_of(room, world, BATCH)
        assert (again.state, again.attempts, again.failed_ids) == (SlotState.OPEN, batch.attempts, ())
        async with mining(world):
            await all_paid_once(room, world, jobs)


async def test_a_batch_whose_delegation_was_reorganised_away_waits_for_it(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, batch_claims=True) as room:
        jobs, _ = await batch_on_its_way(room, world)
        await world.mine()
        for job_id in jobs:
            await room.settled(job_id)
        before = await room.ledger.slots(world.host_address)
        await world.reorg(await world.block_number() - (before[0].block_number or 0))
        async with mining(world):
            for slot in before:

                async def mined(slot_id: int = slot.slot_id) -> bool:
                    found = await room.ledger.slots(world.host_address)
                    return next(one for one in found if one.slot_id == slot_id).state is not SlotState.OPEN

                async with asyncio.timeout(30):
                    while not await mined():
                        await asyncio.sleep(0.05)
            await room.wait(lambda: room.settlement.batching.active)


async def live_until(world: World, data_dir: Path, part: str, method: str, *, after: bool) -> list[int]:
    """Die where a batch passes the step; returns the jobs."""
    async with room_in(world, data_dir, batch_claims=True) as room:
        await room.ready()
        await room.wait(lambda: room.settlement.batching.active)
        jobs = [world.job_id, *[await world.create_job() for _ in range(JOBS - 1)]]
        await gather_behind_the_first(room, world, jobs)
        manager: Any = room.settlement._manager
        owner: Any = {"ledger": room.ledger, "outbox": manager._parts.outbox, "client": room.settlement._client}[part]
        original, killed = getattr(owner, method), asyncio.Event()

        async def deadly(*arguments: Any, **named: Any) -> Any:
            batches = await slots_of(room, world, BATCH)
            if not (batches or named.get("kind") == BATCH or arguments[0] == world.host_address):
                return await original(*arguments, **named)
            if after:
                await original(*arguments, **named)
            killed.set()
            raise Killed

        setattr(owner, method, deadly)
        await world.mine()
        if method.startswith("mark"):
            await room.reach(lambda view: view.claimed == 100, jobs[-1])
            await world.mine(4)
        async with asyncio.timeout(20):
            await killed.wait()
        await room.die()
    return jobs


@pytest.mark.parametrize(
    ("part", "method", "after"),
    [
        ("outbox", "_sign", True),
        ("ledger", "bind", False),
        ("ledger", "bind", True),
        ("client", "send_raw", False),
        ("client", "send_raw", True),
        ("ledger", "note_send", False),
        ("ledger", "mark_included", False),
        ("ledger", "mark_included", True),
        ("ledger", "mark_confirmed", True),
    ],
)
async def test_no_kill_loses_or_doubles_a_claim_of_a_batch(
    world: World, tmp_path: Path, part: str, method: str, after: bool
) -> None:
    jobs = await live_until(world, tmp_path, part, method, after=after)
    await world.set_automine(True)
    async with room_in(world, tmp_path, batch_claims=True) as room, mining(world):
        await all_paid_once(room, world, jobs)


async def test_a_batch_that_finds_no_borrowed_code_has_claimed_nothing_and_its_claims_are_made_alone(
    world: World, tmp_path: Path
) -> None:
    """Another program takes the code away behind our back: status 1, and no claim was made."""
    async with room_in(world, tmp_path, batch_claims=True) as room:
        jobs, batch = await batch_on_its_way(room, world)
        await world.client.request("anvil_setCode", world.host_address, "0x")
        await world.mine()
        async with mining(world):
            await room.wait(lambda: not room.settlement.batching.active or "T02" in room.problem_codes)
            await all_paid_once(room, world, jobs)
        (found,) = [one for one in await slots_of(room, world, BATCH) if one.slot_id == batch.slot_id]
        assert found.succeeded, "the transaction succeeded"


async def test_a_node_that_takes_no_delegations_costs_a_nonce_and_no_claim(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path) as room:
        await room.ready()
        client: Any = room.settlement._client
        endpoint: Any = client.pool._endpoints[0]
        request = endpoint.request

        async def old_pool(method: str, *params: Any, **named: Any) -> Any:
            if method == "eth_sendRawTransaction" and params[0].startswith("0x04"):
                raise RpcRefused("refused", code=-32000, detail="transaction type not supported")
            return await request(method, *params, **named)

        endpoint.request = old_pool
        await room.settlement.set_batching(True)
        assert "takes no transactions" in await room.problem("X04")
        await room.generate(world.job_id, 100, step=100)
        async with mining(world):
            await all_paid_once(room, world, [world.job_id])
        (change,) = await slots_of(room, world, DELEGATION)
        assert [one.raw[:1] == TYPE_4 for one in change.attempts] == [True, False]
        claims = await slots_of(room, world, "claim")
        assert claims[0].nonce == change.nonce + 1, "what was mined used one nonce"


async def test_a_kill_between_storing_and_sending_a_delegation_changes_nothing(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, batch_claims=True) as room:
        client: Any = room.settlement._client
        original, killed = client.send_raw, asyncio.Event()

        async def deadly(raw: bytes, tx_hash: bytes) -> Any:
            if raw[:1] == TYPE_4:
                killed.set()
                raise Killed
            return await original(raw, tx_hash)

        client.send_raw = deadly
        async with asyncio.timeout(20):
            await killed.wait()
        await room.die()
    async with room_in(world, tmp_path, batch_claims=True) as room:
        await room.ready()
        await room.wait(lambda: room.settlement.batching.active)
        (change,) = await slots_of(room, world, DELEGATION)
        assert len(change.attempts) == 1, "the stored bytes"
        assert room.settlement.batching.borrowed == BATCH_CONTRACT
        code = await world.client.request("eth_getCode", world.host_address, "latest")
        assert code == "0x" + OWN_DELEGATION.hex()


async def test_a_batch_that_runs_out_of_gas_as_a_whole_lets_its_claims_be_made_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabstir_desktop.settlement.claimer.batch_gas_limit", lambda *_: 200_000)
    async with room_in(world, tmp_path, batch_claims=True) as room:
        jobs, batch = await batch_on_its_way(room, world)
        async with mining(world):
            await all_paid_once(room, world, jobs)
        found = next(one for one in await slots_of(room, world, BATCH) if one.slot_id == batch.slot_id)
        assert found.succeeded is False
        states = {claim.state for claim in await room.ledger.claims()}
        assert states <= {ClaimState.CONFIRMED, ClaimState.FINAL}
