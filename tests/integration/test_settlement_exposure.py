"""What may be unproven: a threshold above it stalls no job, and no single answer runs past it."""

from __future__ import annotations

from pathlib import Path

from chain_support import World
from settlement_support import room_in

from fabstir_desktop.jobs.claims import ClaimReason


async def test_a_threshold_above_the_limit_of_unproven_tokens_stalls_no_job(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, checkpoint_threshold=10**6, max_unproven_tokens=60) as room:
        await room.ready()
        await room.generate(world.job_id, 60)
        await room.reach(lambda view: view.proven >= 30, world.job_id)
        await room.generate(world.job_id, 20)
        await room.end()
        await room.settled(world.job_id)
        assert await world.tokens_paid() == 80
        reasons = [claim.reason for claim in await room.ledger.claims()]
        assert reasons[0] is ClaimReason.EXPOSURE


async def test_a_single_answer_is_promised_no_more_than_may_be_unproven(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path, max_unproven_tokens=60) as room:
        await room.ready()
        ticket = await room.settlement.tracker.admit(world.job_id, "s", "127.0.0.1", 1_000)
        assert ticket.allowed_tokens == 60
        await room.settlement.tracker.finish(ticket, "stop")
