"""From counted tokens to payment on a real chain: the same tests on the embedded chain and on anvil."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from chain_support import World
from settlement_support import make_signer, room_in

from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.events import ClaimChanged
from fabstir_desktop.settlement.proof import verify_record


async def test_tokens_are_claimed_at_the_threshold_and_the_rest_at_the_sessions_end(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fabstir_desktop")
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 250)
        await room.reach(lambda view: view.settled >= 100, world.job_id)
        await room.end()
        view = await room.settled(world.job_id)
        assert view.generated == view.claimed == view.proven == 250
        assert await world.tokens_paid() == 250
        seen = await world.events("CheckpointSubmitted")
        assert sum(int(event["tokensGenerated"]) for event in seen) == 250
        assert len(seen) >= 2
        paid = await world.events("PaymentDistributed")
        assert (
            view.earned[0].amount == sum(int(event["hostAmount"]) for event in paid) == 250 * world.price_wei * 9 // 10
        )
        lines = caplog.text
        assert f"Generated 1 tokens for job {world.job_id} (total: 57, last checkpoint: 0)" in lines
        assert f"CHECKPOINT NEEDED for job {world.job_id} with 100 tokens!" in lines
        assert f"Checkpoint submitted successfully for job {world.job_id} - tx_hash: 0x" in lines
        told = f"Checkpoint confirmed for job {world.job_id} - payment distributed (90% host, 10% treasury)"
        assert told in lines

        def told_confirmed() -> int:
            states = [event.state for event in room.events if isinstance(event, ClaimChanged)]
            return states.count(ClaimState.CONFIRMED)

        await room.wait(lambda: told_confirmed() >= len(seen))  # told after it is stored
        assert told_confirmed() == len(seen)
        records = [path for path in (tmp_path / "proofs").glob("*.json") if ".transcript" not in path.name]
        assert len(records) == len(seen)
        assert all(verify_record(path).passed for path in records)


async def test_a_forced_checkpoint_says_for_each_job_what_it_did(world: World, tmp_path: Path) -> None:
    second = await world.create_job()
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 30)
        await room.generate(second, 7)
        outcomes = {outcome.job_id: outcome for outcome in await room.settlement.checkpoint()}
        assert {job: outcome.tokens for job, outcome in outcomes.items()} == {world.job_id: 30, second: 7}
        assert all(outcome.submitted and outcome.tx_hash for outcome in outcomes.values())
        await room.settled(world.job_id)
        await room.settled(second)
        (again,) = await room.settlement.checkpoint(world.job_id)
        assert not again.submitted
        assert "nothing" in again.why


async def test_without_a_key_it_counts_and_says_what_is_needed_and_claims_when_a_key_comes(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fabstir_desktop")
    running = await world.create_job()
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.ready()
        await room.generate(world.job_id, 130)
        await room.generate(running, 210, session_id="session-2")
        await room.end()
        needed = [line for line in caplog.messages if line.startswith("CHECKPOINT NEEDED")]
        assert needed == [
            f"CHECKPOINT NEEDED for job {world.job_id} with 100 tokens!",
            f"CHECKPOINT NEEDED for job {running} with 100 tokens!",
            f"CHECKPOINT NEEDED for job {running} with 200 tokens!",
            f"CHECKPOINT NEEDED for job {world.job_id} with 130 tokens!",
        ]
        place = caplog.messages.index("CHECKPOINT SUBMISSION REQUIRED:")
        assert caplog.messages[place + 1 : place + 5] == [
            f"- Job ID: {world.job_id}",
            "- Tokens to submit: 100",
            "- Session ID: session-1",
            f"- Contract: ProofSystem at {world.contract}",
        ]
        (outcome,) = await room.settlement.checkpoint(world.job_id)
        assert not outcome.submitted
        assert "no host key" in outcome.why
        assert await world.events("CheckpointSubmitted") == []
        assert not room.settlement.status.submitting
        await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
        assert room.settlement.status.submitting
        await room.settled(world.job_id)
        await room.settled(running)
        assert (await world.tokens_paid(), await world.tokens_paid(running)) == (130, 210)
        await room.settlement.set_signer(None)
        await room.generate(running, 100, session_id="session-2")
        assert not room.settlement.status.submitting
        assert (await room.view(running)).claimed == 210


async def test_a_claim_that_is_on_its_way_lets_further_tokens_gather(world: World, tmp_path: Path) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await room.generate(world.job_id, 150)
        await room.end()
        (outcome,) = await room.settlement.checkpoint(world.job_id)
        assert not outcome.submitted
        assert "on its way" in outcome.why
        view = await room.view(world.job_id)
        assert (view.generated, view.claimed, view.proven) == (250, 100, 0)
        await world.mine()
        await room.reach(lambda view: view.claimed == 250, world.job_id)
        await world.mine()
        await room.settled(world.job_id)
        assert [int(event["tokensGenerated"]) for event in await world.events("CheckpointSubmitted")] == [100, 150]


async def test_a_restart_sends_the_stored_bytes_again_and_claims_nothing_twice(world: World, tmp_path: Path) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await room.generate(world.job_id, 20)
        (before,) = [row.tx_hash for row in await room.ledger.transaction_views()]
        await room.die()
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await world.mine()
        await room.reach(lambda view: view.claimed == 120, world.job_id)
        await world.mine()
        await room.settled(world.job_id)
        rows = await room.ledger.transaction_views()
        assert before in {row.tx_hash for row in rows}
        assert sorted((claim.start, claim.end) for row in rows for claim in row.claims)[0][0] == 0
        assert await world.tokens_paid() == 120
        assert sum(int(event["tokensGenerated"]) for event in await world.events("CheckpointSubmitted")) == 120


async def test_tokens_of_a_killed_process_are_claimed_at_the_next_start(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.generate(world.job_id, 42)
        await room.die()
    async with room_in(world, tmp_path) as room:
        await room.settled(world.job_id)
        assert await world.tokens_paid() == 42


async def test_a_node_that_restarts_while_the_claim_is_mined_learns_it_from_the_receipt(
    world: World, tmp_path: Path
) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await room.die()
    await world.mine()
    await world.set_automine(True)
    async with room_in(world, tmp_path) as room:
        await room.settled(world.job_id)
        assert len(await world.events("CheckpointSubmitted")) == 1


async def test_several_sessions_of_one_job_are_settled_when_the_last_one_ends(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path) as room:
        await room.ready()
        first = await room.settlement.tracker.admit(world.job_id, "a", "127.0.0.1", 50)
        second = await room.settlement.tracker.admit(world.job_id, "b", "127.0.0.1", 50)
        await room.record(first, 20)
        await room.record(second, 30)
        await room.settlement.tracker.finish(second, "stop")
        await room.end("b")
        await room.record(first, 5)
        await room.settlement.tracker.finish(first, "cancelled")
        assert (await room.view(world.job_id)).claimed == 0
        await room.end("a")
        await room.settled(world.job_id)
        assert await world.tokens_paid() == 55


async def test_confirmations_are_waited_for(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, confirmations=4) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await world.mine(2)
        await room.wait(lambda: (room.settlement.status.open_claims, room.events)[0] == 1)
        assert (await room.view(world.job_id)).proven == 0
        await world.mine(2)
        view = await room.settled(world.job_id)
        assert view.earned[0].amount == 100 * world.price_wei * 9 // 10
