"""What a host does by hand: raise a waiting claim's fee, compare a job with the chain, try a claim without sending it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_support import World, wait_until
from settlement_support import room_in

from fabstir_desktop.inspection import read_chain_job
from fabstir_desktop.settlement.speeding import CannotSpeedUp


async def test_a_waiting_claim_is_sped_up_with_its_nonce_and_paid_once(embedded_world: World, tmp_path: Path) -> None:
    world = embedded_world
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await world.set_automine(False)
        await room.generate(world.job_id, 100)

        async def waiting() -> object:
            return next((one for one in await room.ledger.transaction_views() if one.state == "sent"), None)

        first = await wait_until(waiting)
        made = await room.settlement.speed_up(first.tx_hash)
        views = {view.tx_hash: view for view in await room.ledger.transaction_views()}
        assert made != first.tx_hash
        assert views[made].nonce == first.nonce
        assert views[made].replaces == first.tx_hash
        await world.set_automine(True)
        await world.mine()
        await room.settled(world.job_id)
        assert await world.tokens_paid() == 100
        assert len(await world.events("CheckpointSubmitted")) == 1
        with pytest.raises(CannotSpeedUp, match="not waiting"):
            await room.settlement.speed_up(made)


async def test_nothing_is_sped_up_without_a_key(embedded_world: World, tmp_path: Path) -> None:
    async with room_in(embedded_world, tmp_path, with_key=False) as room:
        with pytest.raises(CannotSpeedUp, match="no key"):
            await room.settlement.speed_up("0x" + "ab" * 32)


async def test_without_a_key_the_claim_is_said_not_to_be_tried_and_what_to_do(
    embedded_world: World, tmp_path: Path
) -> None:
    async with room_in(embedded_world, tmp_path, with_key=False) as room:
        claim = (await room.settlement.diagnose())[-1]
        assert (claim.name, claim.passed, claim.action) == ("claim", False, "add your host key")
        assert "not tried" in claim.detail


async def test_a_job_is_read_on_chain_and_a_claim_of_it_is_tried_and_not_sent(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    async with room_in(world, tmp_path) as room:
        await room.ready()
        claim = (await room.settlement.diagnose())[-1]
        assert (claim.name, claim.passed) == ("claim", True)
        assert claim.detail.startswith("not tried: this host has no open job yet")
        await room.generate(world.job_id, 130)
        await room.reach(lambda view: view.settled >= 100, world.job_id)
        found = await read_chain_job(room.settlement, world.job_id)
        assert found.tokens == await world.tokens_paid() >= 100
        unknown = await read_chain_job(room.settlement, 999_999)
        assert unknown.tokens is None
        assert unknown.why
        before = len(await world.events("CheckpointSubmitted"))
        claim = (await room.settlement.diagnose())[-1]
        assert (claim.name, claim.passed) == ("claim", True), claim
        assert "none was sent" in claim.detail
        assert len(await world.events("CheckpointSubmitted")) == before
        await world.end_job(world.job_id)
        claim = (await room.settlement.diagnose())[-1]
        assert (claim.name, claim.passed) == ("claim", False), claim
