"""Claims that travel together, by the product itself, on both chains: borrow the code, batch, judge each claim, undo."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from chain_support import Anvil, World, build_world, wait_until
from settlement_support import Room, room_in

from fabstir_desktop.devnet.artifacts import load_artifact
from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.jobs.claims import BATCH, DELEGATION, DEPLOYMENT, ClaimState, Slot
from fabstir_desktop.settlement.batch_contract import BATCH_CONTRACT, OWN_DELEGATION, create2_address

JOBS = 10


async def code_of(world: World) -> bytes:
    return bytes.fromhex((await world.client.request("eth_getCode", world.host_address, "latest"))[2:])


async def slots_of(room: Room, world: World, *kinds: str) -> list[Slot]:
    return [slot for slot in await room.ledger.slots(world.host_address) if slot.kind in kinds]


async def gathered(room: Room, world: World, jobs: Sequence[int], tokens: int = 100) -> None:
    """The first job's claim is on its way, and no block comes; the others are due and wait for it."""
    await world.set_automine(False)
    first, *others = jobs
    await room.generate(first, tokens, step=tokens)

    async def is_in_the_pool() -> bool:
        return (await room.ledger.transaction_views())[0].state == "sent"

    await wait_until(is_in_the_pool, 30)
    for job_id in others:
        await room.generate(job_id, tokens, step=tokens)


async def blocks_again(world: World) -> None:
    await world.set_automine(True)
    await world.mine()


async def jobs_of(world: World, count: int) -> list[int]:
    return [world.job_id, *[await world.create_job() for _ in range(count - 1)]]


async def test_ten_due_claims_travel_in_one_transaction_and_each_is_paid(world: World, tmp_path: Path) -> None:
    jobs = await jobs_of(world, JOBS + 1)
    async with room_in(world, tmp_path, batch_claims=True) as room:
        await room.ready()
        await room.wait(lambda: room.settlement.batching.active)
        assert await code_of(world) == OWN_DELEGATION
        await gathered(room, world, jobs)
        await blocks_again(world)
        for job_id in jobs:
            await room.settled(job_id)
        assert [await world.tokens_paid(job_id) for job_id in jobs] == [100] * len(jobs)
        slots = [slot for slot in await room.ledger.slots(world.host_address) if slot.claim_ids]
        assert sum(len(slot.claim_ids) for slot in slots) == len(jobs)
        assert max(len(slot.claim_ids) for slot in slots) <= JOBS
        batch = (await slots_of(room, world, BATCH))[0]
        assert batch.succeeded
        assert (slots[0].kind, len(slots[0].claim_ids)) == ("claim", 1), "one alone needs no batch"
        view = next(one for one in await room.ledger.transaction_views() if one.kind == BATCH)
        assert (len(view.claims) > 1, view.error) == (True, None)
        assert "T03" not in room.problem_codes, "the second nonce of the delegation is no other program's"


async def test_one_failing_claim_of_ten_does_not_stop_the_others_and_says_why(world: World, tmp_path: Path) -> None:
    jobs = await jobs_of(world, JOBS + 1)
    failing = jobs[1]
    async with room_in(world, tmp_path, batch_claims=True) as room:
        await room.ready()
        await room.wait(lambda: room.settlement.batching.active)
        await gathered(room, world, jobs)
        await world.mine()  # the first claim; the batch is signed and waits
        await room.reach(lambda view: view.claimed == 100, failing)
        batch = (await slots_of(room, world, BATCH))[0]
        await end_before(world, failing, batch)
        await blocks_again(world)
        for job_id in jobs:
            if job_id != failing:
                await room.settled(job_id)
        lost = await room.reach(lambda view: "already ended" in view.note, failing)
        assert (lost.claimed, lost.settled, lost.unclaimed) == (0, 0, 0)
        assert [await world.tokens_paid(job_id) for job_id in jobs] == [100 * (job != failing) for job in jobs]
        assert (await slots_of(room, world, BATCH))[0].succeeded
        views = await room.ledger.transaction_views(slot_id=batch.slot_id)
        assert views[0].error is not None
        assert views[0].error.startswith(f"1 of {len(batch.claim_ids)} claims failed: ")
        assert len(batch.claim_ids) > 1
        (claim,) = await room.ledger.claims(job_id=failing)
        assert claim.state is ClaimState.WRITTEN_OFF


async def end_before(world: World, job_id: int, batch: Slot) -> None:
    """The customer ends the job in a block before the batch, which has left the pool and is sent again."""
    await world.drop("0x" + batch.attempts[-1].tx_hash.hex())
    await world.payer.send(world.contract, world.artifact.encode_call("endJob", job_id), gas=200_000)
    await world.mine()


async def test_batching_is_undone_by_one_command_and_single_claims_go_on(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.wait(lambda: room.settlement.batching.sentence.startswith("Off"))
        assert await room.ledger.slots(world.host_address) == [], "off by default: nothing was sent"
        told = await room.settlement.set_batching(True)
        assert told.wanted
        await room.wait(lambda: room.settlement.batching.active)
        assert room.settlement.batching.borrowed == BATCH_CONTRACT
        told = await room.settlement.set_batching(False)
        assert not told.wanted
        await room.wait(lambda: room.settlement.batching.sentence.startswith("Off"))
        assert await code_of(world) == b""
        assert [slot.kind for slot in await slots_of(room, world, DELEGATION)] == [DELEGATION] * 2
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id)
        assert "T03" not in room.problem_codes


async def test_the_code_is_put_on_chain_once_at_the_address_that_follows_from_it(
    anvil_world: World, tmp_path: Path
) -> None:
    world = anvil_world
    async with room_in(world, tmp_path, batch_claims=True) as room:
        await room.ready()
        await room.wait(lambda: room.settlement.batching.active)
        assert [slot.kind for slot in await room.ledger.slots(world.host_address)] == [DEPLOYMENT, DELEGATION]
    artifact = load_artifact("BatchClaims")
    code = await world.client.request("eth_getCode", BATCH_CONTRACT, "latest")
    assert code == artifact.deployed_bytecode
    assert create2_address(bytes.fromhex(artifact.bytecode[2:])) == BATCH_CONTRACT


async def test_a_chain_before_prague_is_told_so_and_claims_go_on_one_by_one(
    start_anvil: Callable[..., Awaitable[Anvil]], tmp_path: Path
) -> None:
    anvil = await start_anvil(hardfork="cancun")
    async with ChainClient(anvil.rpc_url) as client:
        world = await build_world(anvil, client)
        async with room_in(world, tmp_path, batch_claims=True) as room:
            await room.ready()
            assert "Prague" in await room.problem("X04")
            assert not (await room.settlement.set_batching(True)).active
            await room.generate(world.job_id, 100, step=100)
            await room.settled(world.job_id)
            assert [slot.kind for slot in await room.ledger.slots(world.host_address)] == ["claim"]
            await room.settlement.set_batching(False)
            await room.wait(lambda: "X04" not in room.problem_codes)


async def test_an_account_that_borrows_another_programs_code_is_left_alone(anvil_world: World, tmp_path: Path) -> None:
    world = anvil_world
    other = "0x" + "0b47" * 10
    code = "0xef0100" + other[2:]
    await world.client.request("anvil_setCode", world.host_address, code)
    async with room_in(world, tmp_path, batch_claims=True) as room:
        await room.ready()
        assert "another program" in await room.problem("X04")
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id)
        await room.settlement.set_batching(False)
        assert await code_of(world) == bytes.fromhex(code[2:])
        assert [slot.kind for slot in await room.ledger.slots(world.host_address)] == ["claim"]


async def measured_batch(room: Room, world: World, jobs: Sequence[int]) -> int:
    """Gas of a batch of ten; again where a slow machine let some of them miss it."""
    for _ in range(5):
        await gathered(room, world, jobs)
        await blocks_again(world)
        for job_id in jobs:
            await room.settled(job_id)
        for view in await room.ledger.transaction_views():
            if view.kind == BATCH and len(view.claims) == JOBS:
                return view.gas_used or 0
    raise AssertionError("no batch of ten came together")


async def test_ten_claims_one_by_one_and_batched_as_measured(
    world: World, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """The two lines of the README. Second claims: the first of a job pays for its storage slot either way."""
    jobs = await jobs_of(world, JOBS + 1)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        for _ in range(2):
            for job_id in jobs:
                await room.generate(job_id, 100, step=100)
                await room.settled(job_id)
        views = await room.ledger.transaction_views()
        alone = sum(view.gas_used or 0 for view in views[:JOBS])
        await room.settlement.set_batching(True)
        await room.wait(lambda: room.settlement.batching.active)
        together = await measured_batch(room, world, jobs)
    record_property("gas of ten claims one by one", alone)
    record_property("gas of ten claims batched", together)
    print(f"gas of {JOBS} claims: {alone:,} one by one, {together:,} batched")
    assert together < alone * 5 / 6
