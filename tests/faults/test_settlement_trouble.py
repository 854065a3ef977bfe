"""What stands in the way of payment is said once and plainly, loses nothing, and needs no restart when it is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chain_support import World, wait_until
from rpc_switch import RpcSwitch
from secrets_support import canary_key
from settlement_support import make_settings, make_signer, open_room, room_in

from fabstir_desktop.devnet.artifacts import contract_address, load_artifact
from fabstir_desktop.errors import DepositExhausted, JobNotValid, RateLimited
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.status import ChainState


async def test_an_rpc_that_goes_away_delays_claims_and_nothing_else(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with RpcSwitch(world.rpc_url) as rpc, room_in(world, tmp_path, rpc_url=rpc.url) as room:
        await room.ready()
        await room.generate(world.job_id, 20)
        rpc.down = True
        await room.generate(world.job_id, 120)
        await room.end()
        assert "No contact" in await room.problem("C02")
        assert (await room.view(world.job_id)).generated == 140
        with pytest.raises(JobNotValid, match="cannot be checked"):
            await room.generate(await world.create_job(), 10)
        (outcome,) = await room.settlement.checkpoint(world.job_id)
        assert not outcome.submitted
        assert sum(line.startswith("C02") for line in caplog.messages) == 1
        rpc.down = False
        await room.settled(world.job_id)
        await room.wait(lambda: "C02" not in room.problem_codes)
        assert await world.tokens_paid() == 140


async def test_with_the_rpc_away_a_known_job_stops_at_the_backlog(world: World, tmp_path: Path) -> None:
    async with (
        RpcSwitch(world.rpc_url) as rpc,
        room_in(world, tmp_path, rpc_url=rpc.url, max_unproven_tokens=150) as room,
    ):
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id)
        rpc.down = True
        await room.problem("C02")
        ticket = await room.settlement.tracker.admit(world.job_id, "session-1", "127.0.0.1", 500)
        assert ticket.allowed_tokens == 150
        await room.record(ticket, 150, step=50)
        await room.settlement.tracker.finish(ticket, "length")
        with pytest.raises(RateLimited, match="not proven"):
            await room.generate(world.job_id, 1)
        rpc.down = False
        await room.settled(world.job_id)
        await room.generate(world.job_id, 1)


async def test_where_the_host_chose_so_unknown_jobs_wait_for_the_rpc(world: World, tmp_path: Path) -> None:
    strangers = await world.create_job(host="0x" + "5e" * 20)
    async with (
        RpcSwitch(world.rpc_url) as rpc,
        room_in(world, tmp_path, rpc_url=rpc.url, unknown_jobs="wait") as room,
    ):
        await room.ready()
        rpc.down = True
        await room.problem("C02")
        ours = asyncio.ensure_future(room.generate(world.job_id, 3))
        theirs = asyncio.ensure_future(room.generate(strangers, 3))
        await asyncio.wait({ours, theirs}, timeout=1)
        assert not ours.done()
        assert not theirs.done()
        rpc.down = False
        await ours
        with pytest.raises(JobNotValid, match="another host"):
            await theirs
        assert (await room.view(world.job_id)).generated == 3


async def test_a_node_that_starts_without_rpc_claims_when_it_comes(world: World, tmp_path: Path) -> None:
    async with RpcSwitch(world.rpc_url) as rpc:
        rpc.down = True
        async with room_in(world, tmp_path, with_key=False, rpc_url=rpc.url) as room:
            await room.generate(world.job_id, 60)
            await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
            await room.end()
            await room.problem("C02")
            rpc.down = False
            await room.settled(world.job_id)


async def test_on_a_wrong_chain_nothing_is_signed_or_sent_until_it_is_right(world: World, tmp_path: Path) -> None:
    async with RpcSwitch(world.rpc_url) as rpc, room_in(world, tmp_path, rpc_url=rpc.url) as room:
        await room.ready()
        await room.generate(world.job_id, 20)
        rpc.chain_id = 1
        await room.settlement.refresh()
        assert "chain 1" in await room.problem("C01")
        assert room.settlement.status.state is ChainState.WRONG_CHAIN
        rpc.seen.clear()
        await room.generate(world.job_id, 100)
        await room.end()
        await wait_until(lambda: _true(rpc.seen.get("eth_chainId", 0) > 3))
        assert "eth_sendRawTransaction" not in rpc.seen
        assert (await room.view(world.job_id)).claimed == 0
        rpc.chain_id = None
        await room.settled(world.job_id)
        assert "C01" not in room.problem_codes


async def test_a_contract_that_is_not_there_is_said_and_used_once_it_is(world: World, tmp_path: Path) -> None:
    bank = world.bank
    nonce = await world.client.number("eth_getTransactionCount", bank.address, "pending")
    absent = contract_address(bank.address, nonce)
    settings = make_settings(tmp_path, world.rpc_url, world.chain_id, absent)
    async with open_room(settings, make_signer(world.host_key, world.chain_id, absent)) as room:
        assert absent.lower() in (await room.problem("C06")).lower()
        with pytest.raises(JobNotValid):
            await room.generate(1, 10)
        await bank.deploy(load_artifact("ProofSystem"), bank.address)
        await room.ready()
        await room.wait(lambda: "C06" not in room.problem_codes)


async def test_a_contract_of_another_kind_is_not_sent_anything(world: World, tmp_path: Path) -> None:
    # A contract that takes any call without a word: its creation code returns the one byte STOP.
    receipt = await world.bank.transact(None, "0x60016000f3")
    other = str(receipt["contractAddress"])
    settings = make_settings(tmp_path, world.rpc_url, world.chain_id, other)
    async with open_room(settings, make_signer(world.host_key, world.chain_id, other)) as room:
        assert "submitCheckpoint" in await room.problem("C06")
        assert room.settlement.status.state is ChainState.NOT_SUPPORTED


async def test_without_gas_money_claims_wait_and_follow_when_it_arrives(world: World, tmp_path: Path) -> None:
    poor = canary_key()
    signer = make_signer(poor, world.chain_id, world.contract)
    job_id = await world.create_job(host=signer.address)
    settings = make_settings(tmp_path, world.rpc_url, world.chain_id, world.contract)
    async with open_room(settings, signer) as room:
        assert "ETH" in await room.problem("G02")
        await room.generate(job_id, 120)
        await room.end()
        assert (await room.view(job_id)).claimed == 0
        assert room.settlement.status.checkpoints_left == 0
        await world.bank.transact(signer.address, value_wei=10**18)
        await room.settled(job_id)
        await room.wait(lambda: "G02" not in room.problem_codes)


async def test_a_key_that_is_not_the_jobs_host_waits_for_the_right_one(world: World, tmp_path: Path) -> None:
    other = make_signer(await world.funded_key(), world.chain_id, world.contract)
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.ready()
        await room.generate(world.job_id, 50)
        await room.end()
        await room.settlement.set_signer(other)
        message = await room.problem("T02")
        assert "belongs to host" in message
        assert "belongs to host" in (await room.view(world.job_id)).note
        assert (await room.view(world.job_id)).claimed == 0
        with pytest.raises(JobNotValid, match="another host"):
            await room.generate(world.job_id, 10)
        await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
        view = await room.settled(world.job_id)
        assert "T02" not in room.problem_codes
        assert view.note == ""


async def test_a_job_that_cannot_pay_is_refused_before_a_token_is_made(world: World, tmp_path: Path) -> None:
    foreign = await world.create_job(host=world.payer.address)
    small = await world.create_job(tokens=30)
    ended = await world.create_job()
    await world.end_job(ended)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        for job_id in (foreign, ended, 10**70):
            with pytest.raises(JobNotValid):
                await room.settlement.tracker.admit(job_id, "session-1", "127.0.0.1", 10)
        ticket = await room.settlement.tracker.admit(small, "session-1", "127.0.0.1", 200)
        assert ticket.allowed_tokens == 30
        with pytest.raises(DepositExhausted):
            await room.settlement.tracker.admit(small, "session-1", "127.0.0.1", 1)
        await room.record(ticket, 20)
        await room.settlement.tracker.finish(ticket, "stop")
        again = await room.settlement.tracker.admit(small, "session-1", "127.0.0.1", 200)
        assert again.allowed_tokens == 10
        await room.record(again, 10)
        await room.settlement.tracker.finish(again, "length")
        with pytest.raises(DepositExhausted):
            await room.settlement.tracker.admit(small, "session-1", "127.0.0.1", 1)
        await room.end()
        await room.settled(small)


async def test_a_job_that_its_client_ends_first_is_written_off_once_that_is_final(world: World, tmp_path: Path) -> None:
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 60)
        await world.end_job(world.job_id)
        await room.end()
        view = await room.reach(lambda view: "ended" in view.note, world.job_id)
        assert view.claimed == 0
        assert "already ended" in await room.problem("T02")
        await world.mine(100)
        await room.settlement.refresh()
        await room.reach(lambda view: view.unclaimed == 0, world.job_id)
        (claim,) = await room.ledger.claims(job_id=world.job_id)
        assert claim.state is ClaimState.WRITTEN_OFF
        assert "60 tokens cannot be paid" in claim.note


async def test_a_claim_that_is_reverted_in_its_block_is_explained(world: World, tmp_path: Path) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        (claim,) = await room.ledger.claims(job_id=world.job_id)
        slot = await room.ledger.slot_of_claim(claim.claim_id)
        assert slot is not None
        # The client's end of the job gets into the block before the claim.
        attempt = slot.attempts[-1]
        await world.drop("0x" + attempt.tx_hash.hex())
        await world.payer.send(world.contract, world.artifact.encode_call("endJob", world.job_id), gas=300_000)
        await world.mine()
        await world.client.request("eth_sendRawTransaction", "0x" + attempt.raw.hex())
        await world.mine()
        assert "already ended" in await room.problem("T02")
        await room.reach(lambda view: view.unclaimed == 0, world.job_id)
        (claim,) = await room.ledger.claims(job_id=world.job_id)
        assert claim.state is ClaimState.WRITTEN_OFF
        assert "already ended" in claim.note
        (row,) = await room.ledger.transaction_views()
        assert row.state == "reverted"
        assert await world.tokens_paid() == 0


async def _true(value: bool) -> bool:
    return value
