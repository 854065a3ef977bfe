"""The deployed marketplace's shape, on its stand-in: minimum, first proof, hold-back, rate, dispute window, settlement."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chain_support import World
from marketplace_support import NATIVE, Marketplace
from settlement_support import Room, make_settings, make_signer, open_room

from fabstir_desktop.errors import DepositExhausted, JobNotValid
from fabstir_desktop.jobs.views import TokenAmount
from fabstir_desktop.settlement import kept_earnings


@contextlib.asynccontextmanager
async def room_at(world: World, market: Marketplace, data_dir: Path, **more: Any) -> AsyncIterator[Room]:
    settings = make_settings(
        data_dir,
        world.rpc_url,
        world.chain_id,
        world.contract,
        contract_job_marketplace=market.address,
        settlement_contract="job_marketplace",
        **more,
    )
    async with open_room(settings, make_signer(world.host_key, world.chain_id, market.address)) as room:
        yield room


async def test_claims_are_proven_at_once_and_settled_after_the_dispute_window(
    world: World, marketplace: Marketplace, tmp_path: Path
) -> None:
    job_id = await marketplace.create_session()
    await world.increase_time(5)
    async with room_at(world, marketplace, tmp_path) as room:
        await room.ready()
        await room.generate(job_id, 250, step=10)
        view = await room.reach(lambda view: view.proven >= 100, job_id)
        assert view.generated - view.proven >= 100, "so much is kept back that the last claim is large enough"
        await world.increase_time(5)
        await room.end()
        view = await room.reach(lambda view: view.proven == 250, job_id)
        assert view.settled == 0
        assert view.earned == ()
        session = await marketplace.session(job_id)
        assert (session["tokensUsed"], session["status"]) == (250, 0)
        await world.increase_time(40)
        view = await room.settled(job_id)
        assert (await marketplace.session(job_id))["status"] == 1
        expected = 250 * session["pricePerToken"] // 1000 * 9 // 10
        assert await marketplace.earnings_wei() == expected
        view = await room.reach(lambda view: view.earned, job_id)
        assert view.earned[0].amount == expected
        kinds = [row.kind for row in await room.ledger.transaction_views()]
        assert kinds.count("complete") == 1


async def test_what_is_kept_for_the_host_is_told_and_a_withdrawal_by_another_program_is_seen(
    world: World, marketplace: Marketplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_earnings, "READ_EVERY_S", 0.0)
    job_id = await marketplace.create_session()
    await world.increase_time(5)
    async with room_at(world, marketplace, tmp_path) as room:
        await room.ready()
        await room.generate(job_id, 120, step=10)
        await room.end()
        await room.reach(lambda view: view.proven == 120, job_id)
        await world.increase_time(40)
        view = await room.reach(lambda view: view.earned, job_id)
        await room.wait(lambda: room.settlement.status.withdrawable == view.earned)
        told = room.settlement.with_withdrawals(await room.ledger.earnings())
        assert (told.withdrawn, told.withdrawable) == ((), view.earned)
        data = marketplace.earnings_artifact.encode_call("withdraw", view.earned[0].amount // 3, NATIVE)
        await world.host.transact(marketplace.earnings_address, data)
        await room.wait(lambda: room.settlement.status.withdrawable != view.earned)
        told = room.settlement.with_withdrawals(await room.ledger.earnings())
        assert told.withdrawn == (TokenAmount("ETH", view.earned[0].amount // 3),)
        assert told.withdrawable == (TokenAmount("ETH", await marketplace.earnings_wei()),)


async def test_a_session_that_never_reaches_its_first_proof_is_told_so_and_sends_nothing(
    world: World, marketplace: Marketplace, tmp_path: Path
) -> None:
    job_id = await marketplace.create_session(proof_interval=500)
    await world.increase_time(5)
    async with room_at(world, marketplace, tmp_path) as room:
        await room.ready()
        await room.generate(job_id, 300, step=50)
        await room.end()
        (outcome,) = await room.settlement.checkpoint(job_id)
        assert not outcome.submitted
        assert "first claim of this job needs 500 tokens" in outcome.why
        assert (await room.view(job_id)).claimed == 0
        await room.generate(job_id, 200, step=50)
        await room.end()
        await room.reach(lambda view: view.proven == 500, job_id)


async def test_a_tail_below_the_minimum_is_forfeited_with_the_reason(
    world: World, marketplace: Marketplace, tmp_path: Path
) -> None:
    job_id = await marketplace.create_session()
    await world.increase_time(5)
    async with room_at(world, marketplace, tmp_path) as room:
        await room.ready()
        await room.generate(job_id, 120, step=10)
        (outcome,) = await room.settlement.checkpoint(job_id)
        assert outcome.submitted
        await room.generate(job_id, 30)
        await room.reach(lambda view: view.proven == 120, job_id)
        await room.end()
        (outcome,) = await room.settlement.checkpoint(job_id)
        assert "needs 100 tokens, has 30" in outcome.why
        await world.increase_time(40)
        view = await room.reach(lambda view: view.settled == 120, job_id)
        assert "30 tokens were not claimed" in view.note
        assert "J04" in room.problem_codes


async def test_a_session_that_takes_no_more_proofs_is_settled_for_what_was_proven(
    world: World, marketplace: Marketplace, tmp_path: Path
) -> None:
    job_id = await marketplace.create_session()
    await world.increase_time(5)
    async with room_at(world, marketplace, tmp_path, checkpoint_threshold=1000) as room:
        await room.ready()
        await room.generate(job_id, 120, step=10)
        (outcome,) = await room.settlement.checkpoint(job_id)
        assert outcome.submitted
        await room.reach(lambda view: view.proven == 120, job_id)
        await room.generate(job_id, 150, step=50)
        await world.increase_time(400)
        await room.end()
        view = await room.reach(lambda view: view.settled == 120 and "150 tokens" in view.note, job_id)
        assert "150 tokens were not claimed" in view.note
        assert (await marketplace.session(job_id))["status"] == 1
        kinds = [row.kind for row in await room.ledger.transaction_views()]
        assert kinds == ["complete", "claim"]


async def test_a_session_with_nothing_proven_is_timed_out_once_and_its_tokens_are_forfeited(
    world: World, marketplace: Marketplace, tmp_path: Path
) -> None:
    job_id = await marketplace.create_session()
    await world.increase_time(5)
    async with room_at(world, marketplace, tmp_path) as room:
        await room.ready()
        await room.generate(job_id, 60, step=10)
        await room.end()
    await world.increase_time(3000)
    async with room_at(world, marketplace, tmp_path) as room:
        await room.ready()
        await asyncio.sleep(1)
        assert await room.ledger.transaction_views() == [], "the customer may still end it, and pay his fee"
    await world.increase_time(3000)
    async with room_at(world, marketplace, tmp_path) as room:
        await room.ready()
        view = await room.reach(lambda view: "60 tokens were not claimed" in view.note, job_id)
        assert (await marketplace.session(job_id))["status"] == 2
        await world.mine(100)  # its end cannot be reorganised any more
        view = await room.reach(lambda view: view.unclaimed == 0, job_id)
        assert (view.claimed, view.settled) == (0, 0)
        assert [row.kind for row in await room.ledger.transaction_views()] == ["timeout"]


async def test_more_tokens_than_the_rate_allows_wait_for_block_time(
    world: World, marketplace: Marketplace, tmp_path: Path
) -> None:
    job_id = await marketplace.create_session()
    async with room_at(world, marketplace, tmp_path, checkpoint_threshold=20_000) as room:
        await room.ready()
        await world.increase_time(2)
        await room.generate(job_id, 20_000, step=5000)
        await room.end()
        assert "tokens per second" in await room.problem("T02")
        assert await room.ledger.transaction_views() == []
        await world.increase_time(10)
        await room.reach(lambda view: view.proven == 20_000, job_id)
        assert "T02" not in room.problem_codes


async def test_a_session_without_proof_is_claimed_before_its_window_closes(
    world: World, marketplace: Marketplace, tmp_path: Path
) -> None:
    job_id = await marketplace.create_session()
    await world.increase_time(5)
    async with room_at(world, marketplace, tmp_path, checkpoint_threshold=1000) as room:
        await room.ready()
        await room.generate(job_id, 150, step=50)
        assert (await room.view(job_id)).claimed == 0
        await world.increase_time(200)
        await room.reach(lambda view: view.proven == 150, job_id)


async def test_sessions_that_cannot_pay_are_refused(world: World, marketplace: Marketplace, tmp_path: Path) -> None:
    foreign = await marketplace.create_session(host=world.payer.address)
    small = await marketplace.create_session(tokens=10_000)
    closed = await marketplace.create_session()
    await marketplace.complete(closed, as_host=False)
    await world.increase_time(60)
    async with room_at(world, marketplace, tmp_path, max_unproven_tokens=50_000) as room:
        await room.ready()
        for job_id in (foreign, closed, 999_999):
            with pytest.raises(JobNotValid):
                await room.generate(job_id, 10)
        ticket = await room.settlement.tracker.admit(small, "session-1", "127.0.0.1", 50_000)
        assert ticket.allowed_tokens == 10_000
        with pytest.raises(DepositExhausted):
            await room.generate(small, 1)


async def test_a_proof_system_is_no_marketplace(world: World, marketplace: Marketplace, tmp_path: Path) -> None:
    wrong = Marketplace(
        world, marketplace.artifact, world.contract, marketplace.earnings_artifact, marketplace.earnings_address
    )
    async with room_at(world, wrong, tmp_path / "a") as room:
        assert "submitProofOfWork" in await room.problem("C06")
    settings = make_settings(tmp_path / "b", world.rpc_url, world.chain_id, marketplace.address)
    async with open_room(settings, make_signer(world.host_key, world.chain_id, marketplace.address)) as room:
        assert "submitCheckpoint" in await room.problem("C06")
