"""Claims that meet trouble at the worst moment: each is paid, given up for a reason, or waits; none is stuck or burns gas."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web
from chain_support import World, wait_until
from rpc_switch import RpcSwitch
from settlement_support import Room, make_settings, make_signer, open_room, room_in

from fabstir_desktop.errors import LedgerError, RpcUnreachable
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.settlement.board import ClaimWaits

SOON_S = 10.0


def parts_of(room: Room) -> Any:
    """The parts of the running manager: where a test puts a fault."""
    manager: Any = room.settlement._manager
    return manager._parts


@contextlib.contextmanager
def no_room_for_transactions(room: Room) -> Any:
    """Claims are planned, but none gets a nonce: as with a lack of gas money."""
    outbox = parts_of(room).outbox

    async def refuse(*_: Any) -> None:
        raise ClaimWaits("no room in this test", retry_s=0.05)

    original, outbox._check_room = outbox._check_room, refuse
    try:
        yield
    finally:
        outbox._check_room = original


def claim_waits(room: Room) -> list[str]:
    manager: Any = room.settlement._manager
    return [entry.why for entry in manager._due._entries.values()]


async def planned_claim(room: Room, world: World, job_id: int, tokens: int) -> None:
    """Let the job have a claim that is planned and owns no nonce."""
    await room.generate(job_id, tokens, step=tokens)
    await room.end()

    async def is_planned() -> bool:
        return bool(await room.ledger.claims(job_id=job_id, states=[ClaimState.PLANNED]))

    await wait_until(is_planned)


async def test_an_rpc_that_fails_right_after_a_confirmation_does_not_hide_the_rest_of_the_job(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await room.generate(world.job_id, 20)
        await room.end()
        manager: Any = room.settlement._manager
        await room.wait(lambda: not manager.waiting_jobs)  # it was asked for, and waits for the open claim
        original = room.ledger.mark_confirmed

        async def confirmed_then_no_contact(slot_id: int) -> None:
            await original(slot_id)
            room.ledger.mark_confirmed = original  # type: ignore[method-assign]
            raise RpcUnreachable("gone in the middle of a look")

        room.ledger.mark_confirmed = confirmed_then_no_contact  # type: ignore[method-assign]
        await world.set_automine(True)
        await world.mine()
        await room.settled(world.job_id, SOON_S)
        assert await world.tokens_paid() == 120


class LowEstimates(RpcSwitch):
    """A node whose gas estimates are too low by far."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["method"] == "eth_estimateGas":
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": hex(31_000)})
        return await super()._answer(request)


async def test_a_claim_that_always_reverts_does_not_burn_the_gas_money(embedded_world: World, tmp_path: Path) -> None:
    world = embedded_world
    async with LowEstimates(world.rpc_url) as rpc, room_in(world, tmp_path, rpc_url=rpc.url) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.problem("T02")
        claimer = parts_of(room).claimer
        original, tries = claimer.resume, 0

        async def counted(claim: Any) -> Any:
            nonlocal tries
            tries += 1
            return await original(claim)

        claimer.resume = counted
        for number in range(6):
            await room.settlement.refresh()  # lets everything that waits be tried at once
            await room.wait(lambda number=number: tries > number)
        rows = await room.ledger.transaction_views()
        assert len(rows) == 2, [row.state for row in rows]
        assert "reverted 2 times" in next(iter(claim_waits(room)))


async def test_a_claim_that_ran_out_of_gas_is_sent_with_more(embedded_world: World, tmp_path: Path) -> None:
    world = embedded_world

    class SlightlyLow(LowEstimates):
        async def _answer(self, request: web.Request) -> web.StreamResponse:
            body = await request.json()
            if body["method"] == "eth_estimateGas":
                honest = await world.client.request("eth_estimateGas", *body["params"])
                result = hex(int(int(honest, 16) * 0.7))
                return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": result})
            return await RpcSwitch._answer(self, request)

    async with SlightlyLow(world.rpc_url) as rpc, room_in(world, tmp_path, rpc_url=rpc.url) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id, SOON_S)
        assert await world.tokens_paid() == 100


async def test_a_planned_claim_of_a_job_that_its_client_ended_is_written_off(
    anvil_world: World, tmp_path: Path
) -> None:
    world = anvil_world
    async with room_in(world, tmp_path) as room:
        await room.ready()
        with no_room_for_transactions(room):
            await planned_claim(room, world, world.job_id, 60)
            await world.end_job(world.job_id)
            await world.mine(100)
        await room.settlement.refresh()
        await room.reach(lambda view: view.unclaimed == 0, world.job_id, SOON_S)
        (claim,) = await room.ledger.claims(job_id=world.job_id)
        assert claim.state is ClaimState.WRITTEN_OFF
        assert "cannot be paid" in claim.note


async def test_a_planned_claim_above_what_is_left_of_the_deposit_is_cut_to_it(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    job_id = await world.create_job(tokens=150)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        with no_room_for_transactions(room):
            await planned_claim(room, world, job_id, 120)
            await world.checkpoint(job_id, 100)
        await room.settlement.refresh()
        await room.reach(lambda view: view.settled == 50, job_id, SOON_S)
        assert await world.tokens_paid(job_id) == 150


async def test_a_backup_with_a_planned_claim_that_was_paid_since_costs_no_token(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    live, backup = tmp_path / "live", tmp_path / "backup"
    async with room_in(world, live) as room:
        await room.ready()
        with no_room_for_transactions(room):
            await planned_claim(room, world, world.job_id, 60)
            await room.die()
    shutil.copytree(live, backup)
    async with room_in(world, live) as room:
        await room.settled(world.job_id)
    assert await world.tokens_paid() == 60
    async with room_in(world, backup) as room:
        await room.ready()
        await room.reach(lambda view: view.unclaimed == 0, world.job_id, SOON_S)
        assert (await room.view(world.job_id)).generated == 60
        await room.generate(world.job_id, 30)
        await room.end()
        await room.settled(world.job_id, SOON_S)
        assert (await room.view(world.job_id)).generated == 90
    assert await world.tokens_paid() == 90


async def test_a_job_that_cannot_be_proven_does_not_hold_up_the_others(embedded_world: World, tmp_path: Path) -> None:
    world = embedded_world
    broken = await world.create_job()
    async with room_in(world, tmp_path) as room:
        await room.ready()
        proofs = parts_of(room).claimer._proofs
        original = proofs.make

        async def fail_for_one(job_id: int, *more: Any) -> Any:
            if job_id == broken:
                raise ValueError("its transcript does not cover the range")
            return await original(job_id, *more)

        proofs.make = fail_for_one
        manager: Any = room.settlement._manager
        await room.generate(broken, 40, session_id="broken")
        await room.end("broken")
        await room.generate(world.job_id, 40)
        await room.end()
        await room.settled(world.job_id, SOON_S)
        assert manager._failures == 0, "the turns of all go on to their end"
        proofs.make = original
        await room.settlement.refresh()
        await room.settled(broken, SOON_S)


async def test_a_session_that_ends_while_the_ledger_cannot_be_written_is_claimed_all_the_same(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 40)
        original = room.ledger.end_session

        async def full(session_id: str) -> list[int]:
            raise LedgerError("the disk is full")

        room.ledger.end_session = full  # type: ignore[method-assign]
        with contextlib.suppress(LedgerError):
            await room.end()
        room.ledger.end_session = original  # type: ignore[method-assign]
        await room.settled(world.job_id, SOON_S)


async def test_a_contract_that_tells_nothing_is_claimed_up_to_what_it_pays(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    settings, signer = await minimal_contract(world, tmp_path, tokens=100)
    async with open_room(settings) as room:
        await room.ready()
        await room.generate(5, 130, step=130)  # without a key nothing is checked
        await room.settlement.set_signer(signer)
        await room.end()
        await room.reach(lambda view: view.proven >= 97, 5, SOON_S)
        assert (await room.view(5)).proven <= 100


async def test_two_prompts_at_once_share_the_deposit_of_a_contract_that_tells_nothing(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    settings, signer = await minimal_contract(world, tmp_path, tokens=100)
    async with open_room(settings, signer) as room:
        await room.ready()
        admit = room.settlement.tracker.admit
        results = await asyncio.gather(
            *(admit(5, "session-1", "127.0.0.1", 80) for _ in range(2)), return_exceptions=True
        )
        tickets = [one for one in results if not isinstance(one, BaseException)]
        assert sum(80 if one.allowed_tokens is None else one.allowed_tokens for one in tickets) <= 100


async def test_tokens_that_are_counted_while_another_prompt_is_admitted_are_not_promised_twice(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    job_id = await world.create_job(tokens=100)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        tracker = room.settlement.tracker
        running = await tracker.admit(job_id, "session-1", "127.0.0.1", 60)
        original, read = room.ledger.account, 0

        async def account_then_tokens(wanted: int) -> Any:
            nonlocal read
            found = await original(wanted)
            read += 1
            if read == 1:  # what was read is old when it arrives: the other answer went on
                await room.record(running, 30, step=30)
            return found

        room.ledger.account = account_then_tokens  # type: ignore[method-assign]
        second = await tracker.admit(job_id, "session-1", "127.0.0.1", 100)
        room.ledger.account = original  # type: ignore[method-assign]
        assert second.allowed_tokens == 40


async def minimal_contract(world: World, data_dir: Path, *, tokens: int) -> tuple[Any, Any]:
    price = 10**10
    _, address = await world.deploy(
        "MinimalProofSystem", world.host_address, world.bank.address, price, value_wei=tokens * price
    )
    settings = make_settings(data_dir, world.rpc_url, world.chain_id, address)
    return settings, make_signer(world.host_key, world.chain_id, address)
