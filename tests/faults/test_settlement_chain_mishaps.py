"""Reorganisations, lost and stuck transactions, foreign nonces, old backups: on anvil, which can do them all."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from chain_support import Anvil, World
from limits import scaled
from mining_support import mining, soon_final_world
from settlement_support import Room, make_settings, make_signer, open_room, room_in

from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.events import ClaimChanged


@pytest.fixture
async def world(start_anvil: Callable[..., Awaitable[Anvil]]) -> AsyncIterator[World]:
    async with soon_final_world(start_anvil) as world:
        yield world


def states_of(room: Room) -> list[ClaimState]:
    return [event.state for event in room.events if isinstance(event, ClaimChanged)]


async def test_a_reorganised_claim_is_sent_again_and_its_earnings_come_back(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        before = await room.settled(world.job_id)
        await world.set_automine(False)
        await world.reorg(1)
        await room.wait(lambda: ClaimState.REOPENED in states_of(room))
        view = await room.view(world.job_id)
        assert view.proven == 0
        async with mining(world):
            again = await room.settled(world.job_id)
        assert again.earned == before.earned
        assert len(await room.ledger.transaction_views()) == 1, "the same bytes"
        assert await world.tokens_paid() == 100


async def test_a_transaction_that_left_the_pool_is_sent_again(world: World, tmp_path: Path) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await world.client.request("anvil_dropAllTransactions")
        async with mining(world):
            await room.settled(world.job_id)
        assert len(await room.ledger.transaction_views()) == 1


async def test_the_gas_of_a_claim_does_not_count_on_another_one_that_waits_in_the_pool(
    world: World, tmp_path: Path
) -> None:
    """The first payment ever to the treasury needs a fifth more gas than later ones, whichever claim makes it."""
    other = await world.create_job()
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        for job_id in (world.job_id, other):
            await room.generate(job_id, 100, session_id=f"session-{job_id}", step=100)
            await room.reach(lambda view: view.claimed == 100, job_id)
        first, second = await room.ledger.slots(world.host_address)
        assert second.attempts[0].gas_limit > first.attempts[0].gas_limit - 1000


async def test_a_fee_that_became_too_low_is_raised_with_the_same_nonce_and_calldata(
    world: World, tmp_path: Path
) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        (slot,) = await room.ledger.slots(world.host_address)
        dear = slot.attempts[0].max_fee_per_gas_wei * 2
        await world.set_next_base_fee(dear)
        await world.mine()

        async def bumped() -> bool:
            return len((await room.ledger.slots(world.host_address))[0].attempts) > 1

        async with asyncio.timeout(scaled(20)):
            while not await bumped():
                await asyncio.sleep(0.05)
        async with mining(world):
            await room.settled(world.job_id)
        (slot,) = await room.ledger.slots(world.host_address)
        first, second = slot.attempts[:2]
        assert second.max_fee_per_gas_wei >= dear
        assert second.max_fee_per_gas_wei * 8 >= first.max_fee_per_gas_wei * 9
        assert second.max_priority_fee_per_gas_wei * 8 >= first.max_priority_fee_per_gas_wei * 9
        rows = await room.ledger.transaction_views()
        assert {row.state for row in rows} <= {"confirmed", "final", "replaced"}
        assert await world.tokens_paid() == 100


async def test_gas_that_is_dearer_than_the_cap_is_waited_out(world: World, tmp_path: Path) -> None:
    await world.set_next_base_fee(3 * 10**9)
    await world.mine()
    async with room_in(world, tmp_path, max_fee_gwei=1) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        assert "cap" in await room.problem("G03")
        assert (await room.view(world.job_id)).claimed == 0
        await world.set_next_base_fee(10**8)
        await world.mine()
        await room.settled(world.job_id)
        await room.wait(lambda: "G03" not in room.problem_codes)


async def test_a_nonce_used_by_another_program_is_found_said_and_replaced(world: World, tmp_path: Path) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await world.client.request("anvil_dropAllTransactions")
        await world.host.send(world.host_address, gas=21_000)
        async with mining(world):
            assert "nonce 0" in await room.problem("T03")
            await room.settled(world.job_id)
        slots = await room.ledger.slots(world.host_address)
        assert slots[0].state.value == "foreign"
        assert await world.tokens_paid() == 100
        assert len(await world.events("CheckpointSubmitted")) == 1


async def test_a_ledger_restored_from_an_old_backup_claims_only_what_is_surely_unclaimed(
    world: World, tmp_path: Path
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    async with room_in(world, data, with_key=False) as room:
        await room.generate(world.job_id, 150, step=10)
    shutil.copytree(data, backup)
    async with room_in(world, data) as room:
        await room.settled(world.job_id)
    async with room_in(world, backup) as room:
        assert "claimed elsewhere" in await room.problem("J03")
        await room.reach(lambda view: view.unclaimed == 0, world.job_id)
        await room.generate(world.job_id, 30)
        await room.end()
        await room.settled(world.job_id)
    assert await world.tokens_paid() == 180


async def test_a_lost_ledger_claims_new_tokens_only(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path / "first") as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id)
    async with room_in(world, tmp_path / "second") as room:
        await room.ready()
        await room.generate(world.job_id, 40)
        await room.die()
    async with room_in(world, tmp_path / "second") as room:
        view = await room.settled(world.job_id)
        assert view.generated == 140, "100 known from the chain alone"
    assert await world.tokens_paid() == 140


async def test_two_machines_with_one_key_are_paid_each_for_its_own_tokens(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path / "a") as first, room_in(world, tmp_path / "b") as second:
        await first.ready()
        await second.ready()

        async def work(room: Room, count: int) -> None:
            for _ in range(4):
                await room.generate(world.job_id, count, step=count)
            await room.end()

        async with mining(world):
            await asyncio.gather(work(first, 50), work(second, 35))
            await first.settled(world.job_id)
            await second.settled(world.job_id)
        assert "T03" in first.problem_codes | second.problem_codes
    assert await world.tokens_paid() == 4 * 85
    claims = await world.events("CheckpointSubmitted")
    assert sum(int(event["tokensGenerated"]) for event in claims) == 4 * 85


async def test_many_jobs_at_once_go_through_one_key_in_one_block(world: World, tmp_path: Path) -> None:
    jobs = [await world.create_job() for _ in range(40)]
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await asyncio.gather(*(room.generate(job_id, 100, step=100, session_id=str(job_id)) for job_id in jobs))
        for job_id in jobs:
            await room.reach(lambda view: view.claimed == 100, job_id)
        await world.mine()
        for job_id in jobs:
            await room.settled(job_id)
        nonces = [slot.nonce for slot in await room.ledger.slots(world.host_address)]
        assert nonces == list(range(len(jobs)))


async def test_a_contract_without_getters_and_events_is_claimed_from_too(world: World, tmp_path: Path) -> None:
    host = make_signer(world.host_key, world.chain_id, world.contract)
    _, minimal = await world.deploy(
        "MinimalProofSystem", host.address, world.bank.address, 10**10, value_wei=10**10 * 300
    )
    settings = make_settings(tmp_path, world.rpc_url, world.chain_id, minimal)
    async with open_room(settings, make_signer(world.host_key, world.chain_id, minimal)) as room:
        await room.ready()
        ticket = await room.settlement.tracker.admit(7, "session-1", "127.0.0.1", 1000)
        assert ticket.allowed_tokens is not None
        assert 250 <= ticket.allowed_tokens <= 300, "as much as the contract would pay"
        await room.record(ticket, 120, step=10)
        await room.settlement.tracker.finish(ticket, "stop")
        await room.end()
        view = await room.settled(7)
        assert view.earned == (), "never computed here"
        assert view.proven == 120
