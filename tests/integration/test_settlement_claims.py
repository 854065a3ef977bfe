"""From counted tokens to payment on a real chain: the same tests on the embedded chain and on anvil."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from chain_support import World
from settlement_support import room_in

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
        assert view.earned[0].amount == sum(int(event["hostAmount"]) for event in paid) == 250 * world.price_wei * 9 // 10
        lines = caplog.text
        assert f"Generated 1 tokens for job {world.job_id} (total: 57, last checkpoint: 0)" in lines
        assert f"CHECKPOINT NEEDED for job {world.job_id} with 100 tokens!" in lines
        assert f"Checkpoint submitted successfully for job {world.job_id} - tx_hash: 0x" in lines
        told = f"Checkpoint confirmed for job {world.job_id} - payment distributed (90% host, 10% treasury)"
        assert told in lines
        states = [event.state for event in room.events if isinstance(event, ClaimChanged)]
        assert states.count(ClaimState.CONFIRMED) == len(seen)
        records = [path for path in (tmp_path / "proofs").glob("*.json") if ".transcript" not in path.name]
        assert len(records) == len(seen)
        assert all(verify_record(path).passed for path in records)
