"""Sessions of the marketplace at their edges: none is served that can never be paid, none is forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from aiohttp import web
from chain_support import World
from ledger_support import attempt, fact, new_claim, opened
from marketplace_support import Marketplace, deploy_marketplace
from rpc_switch import RpcSwitch
from settlement_support import Room, make_settings, make_signer, open_room

from fabstir_desktop.errors import JobNotValid
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger import claims, slots, tokens
from fabstir_desktop.settlement.contracts.job_marketplace import MARKETPLACE

SOON_S = 15.0
OWNER = "0x" + MARKETPLACE.selector.hex()


@contextlib.asynccontextmanager
async def room_at(world: World, market: Marketplace, data_dir: Path, **more: Any) -> AsyncIterator[Room]:
    settings = make_settings(
        data_dir,
        more.pop("rpc_url", world.rpc_url),
        world.chain_id,
        world.contract,
        contract_job_marketplace=market.address,
        settlement_contract="job_marketplace",
        **more,
    )
    async with open_room(settings, make_signer(world.host_key, world.chain_id, market.address)) as room:
        yield room


async def test_a_session_whose_first_claim_can_never_be_large_enough_is_refused_before_a_token_is_made(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    market = await deploy_marketplace(world)
    job_id = await market.create_session(proof_interval=10_000)
    async with room_at(world, market, tmp_path) as room:
        await room.ready()
        with pytest.raises(JobNotValid, match=r"must have 10000 tokens.*at most 5000"):
            await room.generate(job_id, 100, step=100)
        assert await room.ledger.job_view(job_id) is None


async def test_a_session_that_can_be_paid_from_its_limit_on_is_claimed_there_and_says_how_far_it_is(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    market = await deploy_marketplace(world)
    job_id = await market.create_session(proof_interval=5_000)
    await world.increase_time(30)
    async with room_at(world, market, tmp_path) as room:
        await room.ready()
        await room.generate(job_id, 1_000, step=500)
        view = await room.reach(lambda view: view.note, job_id, SOON_S)
        assert "of 5000 tokens until this session can be paid at all" in view.note
        for _ in range(4):
            await room.generate(job_id, 1_000, step=500)
        view = await room.reach(lambda view: view.proven == 5_000, job_id, SOON_S)
        assert view.note == ""


async def test_every_claim_of_a_long_job_is_settled_however_many_there_are(
    embedded_world: World, tmp_path: Path
) -> None:
    world, price, count = embedded_world, 10**10, 1_100
    _, address = await world.deploy(
        "MinimalProofSystem", world.host_address, world.bank.address, price, value_wei=100 * price
    )
    settings = make_settings(tmp_path, world.rpc_url, world.chain_id, address)

    def prove(db: apsw.Connection) -> None:
        ticket = tokens.open_ticket(db, 1, 7, "session-1")
        tokens.count_tokens(db, ticket, range(count))
        tokens.close_ticket(db, ticket, "stop")
        for place in range(count):
            claim = claims.plan_claim(db, 1, new_claim(7, place, place + 1))
            sent = attempt(place)
            bound = {"sender": world.host_address, "nonce": place, "attempt": sent, "kind": "claim"}
            slot = slots.bind(db, world.chain_id, [claim.claim_id], **bound)  # type: ignore[arg-type]
            slots.mark_included(db, slot.slot_id, fact(sent, 1))
            slots.mark_confirmed(db, slot.slot_id)
            slots.mark_final(db, slot.slot_id)

    async with opened(settings.ledger_path, Venue(world.chain_id, address, "proof_system")) as ledger:
        await ledger._engine.write(prove, durable=True)
    async with open_room(settings, make_signer(world.host_key, world.chain_id, address)) as room:
        view = await room.settled(7, SOON_S)
        assert (view.proven, view.settled) == (count, count)


async def test_what_an_ended_session_leaves_is_written_off_with_the_reason(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    market = await deploy_marketplace(world)
    tail, never = await market.create_session(), await market.create_session()
    await world.increase_time(5)
    async with room_at(world, market, tmp_path) as room:
        await room.ready()
        await room.generate(tail, 120, step=10)
        (outcome,) = await room.settlement.checkpoint(tail)
        assert outcome.submitted
        await room.generate(tail, 30)
        await room.generate(never, 40, step=40, session_id="never")
        await room.reach(lambda view: view.proven == 120, tail)
        await room.end()
        await room.end("never")
        await market.complete(never, as_host=False)
        await world.increase_time(40)
        await world.mine(200)
        for job_id, lost in ((tail, 30), (never, 40)):
            view = await room.reach(lambda view: view.unclaimed == 0, job_id, SOON_S)
            assert f"{lost} tokens were not claimed" in view.note
            (claim,) = await room.ledger.claims(job_id=job_id, states=[ClaimState.WRITTEN_OFF])
            assert (claim.tokens, "unverified" in claim.note) == (lost, True)
        assert (await room.view(tail)).settled == 120


class AnothersEarnings(RpcSwitch):
    """A chain on which the linked contracts say that they serve another marketplace."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if isinstance(body, dict) and body["method"] == "eth_call" and body["params"][0]["data"] == OWNER:
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": "0x" + "00" * 12 + "77" * 20})
        return await super()._answer(request)


async def test_a_marketplace_whose_linked_contracts_serve_another_is_not_supported(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    market = await deploy_marketplace(world)
    async with AnothersEarnings(world.rpc_url) as rpc, room_at(world, market, tmp_path, rpc_url=(rpc.url,)) as room:
        assert "belongs to another marketplace" in await room.problem("C06", SOON_S)
        assert room.settlement.status.state == "not_supported"
