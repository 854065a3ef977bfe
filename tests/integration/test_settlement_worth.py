"""Claims that earn less than their gas: made and said by default, held back and gathered where the host wants it."""

from __future__ import annotations

from pathlib import Path

from chain_support import World
from settlement_support import room_in

from fabstir_desktop.jobs.claims import ClaimReason


async def test_by_default_a_claim_that_costs_more_than_it_earns_is_made_and_said(world: World, tmp_path: Path) -> None:
    job_id = await world.create_job(price_per_token_wei=1)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(job_id, 100, step=100)
        assert "earns less than its gas" in await room.problem("G04")
        await room.settled(job_id)


async def test_held_claims_gather_until_they_pay_or_the_host_asks(world: World, tmp_path: Path) -> None:
    job_id = await world.create_job(price_per_token_wei=1)
    async with room_in(world, tmp_path, uneconomic_claims="hold") as room:
        await room.ready()
        await room.generate(job_id, 150, step=50)
        view = await room.reach(lambda view: "earn less than its gas" in view.note, job_id)
        assert "with " in view.note, "it says with how many tokens it pays"
        await room.end()
        await room.generate(job_id, 50, step=50, session_id="another")
        assert "G04" in room.problem_codes
        assert (await room.view(job_id)).claimed == 0
        (outcome,) = await room.settlement.checkpoint(job_id)
        assert (outcome.submitted, outcome.tokens) == (True, 200), outcome.why
        await room.settled(job_id)
        (claim,) = await room.ledger.claims()
        assert claim.reason is ClaimReason.FORCED
    assert await world.tokens_paid(job_id) == 200


async def test_what_pays_is_claimed_at_the_threshold_though_losses_are_held(world: World, tmp_path: Path) -> None:
    job_id = await world.create_job(price_per_token_wei=10**13)
    async with room_in(world, tmp_path, uneconomic_claims="hold") as room:
        await room.ready()
        await room.generate(job_id, 100, step=100)
        await room.settled(job_id)
