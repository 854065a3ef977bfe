"""An old backup is restored, or a second machine has the key: what the chain paid before is never claimed again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from chain_support import World
from eth_abi import encode
from eth_utils.crypto import keccak
from rpc_switch import RpcSwitch
from settlement_support import Room, make_settings, make_signer, open_room, room_in

from fabstir_desktop.errors import CallReverted, RpcRefused
from fabstir_desktop.jobs.claims import ClaimState, SlotState
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts import proof_system
from fabstir_desktop.settlement.contracts.proof_system import ProofSystem
from fabstir_desktop.settlement.recovery import Recovery

SOON_S = 15.0
JOBS = "0x" + proof_system.JOBS.selector.hex()


def slow_recovery(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Recovery begins only when the returned function is called: as with a thousand jobs and a slow RPC."""
    may_begin = asyncio.Event()
    original = Recovery.run

    async def run(self: Recovery, *more: Any) -> None:
        await may_begin.wait()
        await original(self, *more)

    monkeypatch.setattr(Recovery, "run", run)
    return may_begin.set


async def backup_of(world: World, folder: Path, job_id: int, *, before: int, after: int) -> Path:
    """A copy of the data folder with `before` tokens of the job; `after` more were made and all were claimed since."""
    live, backup = folder / "live", folder / "backup"
    async with room_in(world, live, with_key=False) as room:
        await room.generate(job_id, before, step=10)
    shutil.copytree(live, backup)
    async with room_in(world, live, with_key=False) as room:
        await room.generate(job_id, after, step=10)
    async with room_in(world, live) as room:
        await room.settled(job_id)
    return backup


async def quiet(room: Room, job_id: int) -> None:
    """Nothing of the job is unclaimed, or on its way."""
    await room.reach(lambda view: view.unclaimed == 0 and view.claimed == view.settled, job_id, SOON_S)


async def test_claim_now_waits_until_the_ledger_was_compared_with_the_chain(
    embedded_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = embedded_world
    backup = await backup_of(world, tmp_path, world.job_id, before=80, after=70)
    begin = slow_recovery(monkeypatch)
    async with room_in(world, backup) as room:
        await room.ready()
        forced = asyncio.create_task(room.settlement.checkpoint(world.job_id))
        done, _ = await asyncio.wait({forced}, timeout=1.0)
        assert not done
        assert (await room.view(world.job_id)).claimed == 0
        begin()
        (outcome,) = await forced
        assert not outcome.submitted
        await quiet(room, world.job_id)
        view = await room.view(world.job_id)
        assert (view.generated, view.settled) == (150, 150), "what was found on chain counts once"
    assert await world.tokens_paid() == 150


async def test_claim_now_says_that_the_comparison_is_not_over(
    embedded_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = embedded_world
    slow_recovery(monkeypatch)
    monkeypatch.setattr("fabstir_desktop.settlement.checkpoint_manager.FORCE_LIMIT_S", 0.2)
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.ready()
        await room.generate(world.job_id, 50, step=50)
        await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
        (outcome,) = await room.settlement.checkpoint(world.job_id)
        assert not outcome.submitted
        assert "compared with the chain" in outcome.why
        await room.die()


# --- a contract that tells nothing ------------------------------------------------------------------------------------


@dataclass
class Silent:
    """A contract that has `submitCheckpoint` and nothing else: what it paid is read from its storage by the test alone."""

    world: World
    address: str
    folder: Path

    def room(self, name: str, *, with_key: bool = True) -> Any:
        world = self.world
        settings = make_settings(self.folder / name, world.rpc_url, world.chain_id, self.address)
        signer = make_signer(world.host_key, world.chain_id, self.address) if with_key else None
        return open_room(settings, signer)

    async def paid(self, job_id: int) -> int:
        place = keccak(encode(["uint256", "uint256"], [job_id, 0]))
        word = await self.world.client.request("eth_getStorageAt", self.address, "0x" + place.hex(), "latest")
        return int(word, 16)

    def back_up(self, name: str = "live", to: str = "backup") -> None:
        shutil.copytree(self.folder / name, self.folder / to)


@pytest.fixture
async def silent(embedded_world: World, tmp_path: Path) -> Silent:
    world, price = embedded_world, 10**10
    arguments = (world.host_address, world.bank.address, price)
    _, address = await world.deploy("MinimalProofSystem", *arguments, value_wei=10_000 * price)
    return Silent(world, address, tmp_path)


async def test_a_silent_contract_pays_nothing_twice_after_a_backup_is_restored(silent: Silent) -> None:
    async with silent.room("live", with_key=False) as room:
        await room.generate(7, 80, step=10)
    silent.back_up()
    async with silent.room("live", with_key=False) as room:
        await room.generate(7, 70, step=10)
    async with silent.room("live") as room:
        await room.settled(7)
    assert await silent.paid(7) == 150
    async with silent.room("backup") as room:
        assert "claimed elsewhere" in await room.problem("J03", SOON_S)
        await quiet(room, 7)
        await room.generate(7, 60, step=60)
        await room.end()
        await room.settled(7, SOON_S)
    assert await silent.paid(7) == 210


async def test_claims_of_the_lost_history_that_are_this_folders_own_are_known_by_their_proof(silent: Silent) -> None:
    async with silent.room("live", with_key=False) as room:
        await room.generate(7, 100, step=10)
        await room.generate(8, 40, step=10)
    silent.back_up()
    async with silent.room("live") as room:
        await room.settled(7)
        await room.settled(8)
    async with silent.room("backup") as room:
        await quiet(room, 7)
        await quiet(room, 8)
        assert [(await room.view(job_id)).generated for job_id in (7, 8)] == [100, 40]
        assert "perhaps" not in await room.problem("J03", SOON_S), "nothing is in doubt"
        assert await room.ledger.transaction_views() == []
    assert [await silent.paid(7), await silent.paid(8)] == [100, 40]


async def test_what_cannot_be_read_is_held_until_it_can_and_other_jobs_go_on(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with silent.room("live", with_key=False) as room:
        await room.generate(7, 80, step=10)
    silent.back_up()
    async with silent.room("live") as room:
        await room.settled(7)
    blocks = ChainClient.transactions_of_block
    forget_the_past(monkeypatch)
    async with silent.room("backup") as room:
        assert "held back" in await room.problem("J03", SOON_S)
        await room.generate(9, 50, step=50)
        await room.end()
        await room.settled(9, SOON_S)
        (outcome,) = await room.settlement.checkpoint(7)
        assert "not in this data folder" in outcome.why
        monkeypatch.setattr(ChainClient, "transactions_of_block", blocks)
        manager: Any = room.settlement._manager
        manager._parts.history._look_at = 0.0
        manager.wake()
        await quiet(room, 7)
        await room.wait(lambda: "J03" not in room.problem_codes)
    assert await silent.paid(7) == 80


async def test_a_host_who_asks_twice_for_a_held_job_is_obeyed(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key sent other things meanwhile, the node has forgotten them, and only the host knows that they were no claims."""
    async with silent.room("only", with_key=False) as room:
        await room.generate(7, 80, step=10)
    await silent.world.host.transact(silent.world.bank.address, value_wei=1)
    forget_the_past(monkeypatch)
    async with silent.room("only") as room:
        await room.problem("J03", SOON_S)
        (first,) = await room.settlement.checkpoint(7)
        assert not first.submitted
        (second,) = await room.settlement.checkpoint(7)
        assert second.submitted
        await room.settled(7, SOON_S)
    assert await silent.paid(7) == 80


def forget_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgotten(self: ChainClient, number: int) -> Any:
        raise RpcRefused("the RPC refuses", code=-32000, detail="missing trie node")

    monkeypatch.setattr(ChainClient, "transactions_of_block", forgotten)


# --- a claim of the lost history that waits in the pool -----------------------------------------------------------------


async def meet_at_one_nonce(world: World, folder: Path, *, more: int) -> int:
    """A claim of 100 tokens waits in the pool, a backup from before it is restored and claims at the same nonce; then the
    old claim is mined. Returns what was paid in the end, of 100 + `more` tokens."""
    job_id = await world.create_job()
    live, backup = folder / "live", folder / "backup"
    async with room_in(world, live, with_key=False) as room:
        await room.generate(job_id, 100, step=10)
    shutil.copytree(live, backup)
    await world.set_automine(False)
    async with room_in(world, live) as room:
        await room.reach(lambda view: view.claimed == 100, job_id)
        (old,) = await room.ledger.slots(world.host_address, [SlotState.OPEN])
        await room.die()
    async with room_in(world, backup, with_key=False) as room:
        if more:
            await room.generate(job_id, more, step=more)
        await room.end()
        await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
        await room.reach(lambda view: view.claimed > 0, job_id)
        (mine,) = await room.ledger.slots(world.host_address, [SlotState.OPEN])
        assert mine.nonce == old.nonce
        manager: Any = room.settlement._manager
        manager._parts.outbox._sending_of(mine).next_at = float("inf")
        await world.drop("0x" + mine.attempts[-1].tx_hash.hex())
        with contextlib.suppress(Exception):
            await world.client.request("eth_sendRawTransaction", "0x" + old.attempts[-1].raw.hex())
        await world.mine()
        await world.set_automine(True)
        await world.mine(3)
        await quiet(room, job_id)
        view = await room.view(job_id)
        assert (view.generated, view.settled) == (100 + more, 100 + more)
    return await world.tokens_paid(job_id)


async def test_an_old_claim_that_is_mined_after_all_is_paid_once(embedded_world: World, tmp_path: Path) -> None:
    assert await meet_at_one_nonce(embedded_world, tmp_path, more=20) == 120


async def test_an_old_claim_over_the_very_same_tokens_is_known_by_its_proof(
    embedded_world: World, tmp_path: Path
) -> None:
    assert await meet_at_one_nonce(embedded_world, tmp_path, more=0) == 100


async def test_a_bump_that_the_backup_does_not_have_is_the_same_claim(silent: Silent) -> None:
    """The contract tells nothing, and a second copy of the calldata would only be refused by luck: nothing is sent."""
    world = silent.world
    await world.set_automine(False)
    async with silent.room("live") as room:
        await room.ready()
        await room.generate(7, 100, step=10)
        await room.reach(lambda view: view.claimed == 100, 7)
        await room.die()
    silent.back_up()
    async with silent.room("live") as room:
        await room.ready()
        manager: Any = room.settlement._manager
        outbox = manager._parts.outbox
        (slot,) = await room.ledger.slots(world.host_address, [SlotState.OPEN])
        market = await outbox.market_now()
        bumped = await outbox.bump(slot, market)
        assert len(bumped.attempts) == 2
        await room.die()
    await world.drop("0x" + slot.attempts[0].tx_hash.hex())
    await world.client.request("eth_sendRawTransaction", "0x" + bumped.attempts[1].raw.hex())
    await world.mine()
    await world.set_automine(True)
    await world.mine(3)
    async with silent.room("backup") as room:
        await quiet(room, 7)
        states = {claim.state for claim in await room.ledger.claims(job_id=7)}
        assert states == {ClaimState.VOID, ClaimState.FINAL}
        assert len(await room.ledger.transaction_views()) == 1, "no second transaction"
    assert await silent.paid(7) == 100


# --- tokens that are made before the comparison ---------------------------------------------------------------------------


async def test_tokens_that_were_made_after_the_folder_was_opened_are_never_taken_for_claimed_ones(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    live, backup = tmp_path / "live", tmp_path / "backup"
    async with room_in(world, live, with_key=False) as room:
        await room.generate(world.job_id, 50, step=10)
    shutil.copytree(live, backup)
    async with room_in(world, live) as room:
        await room.settled(world.job_id)
        await room.generate(world.job_id, 150, step=150)
        await room.end()
        await room.settled(world.job_id)
    async with room_in(world, backup, with_key=False) as room:
        await room.ready()
        await room.generate(world.job_id, 40, step=40)
        await room.end()
        await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
        view = await room.settled(world.job_id, SOON_S)
        assert view.generated == 240
    assert await world.tokens_paid() == 240


async def test_a_job_that_the_ledger_knows_is_served_after_the_comparison(
    embedded_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = embedded_world
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.generate(world.job_id, 50, step=10)
    begin = slow_recovery(monkeypatch)
    fresh = await world.create_job()
    async with room_in(world, tmp_path) as room:
        await room.ready()
        known = asyncio.create_task(room.generate(world.job_id, 10))
        await room.generate(fresh, 10)
        done, _ = await asyncio.wait({known}, timeout=1.0)
        assert not done
        begin()
        await known


# --- another program with the key -----------------------------------------------------------------------------------------


async def test_while_another_program_uses_the_key_claims_go_one_at_a_time_and_no_fee_is_raised(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    jobs = [await world.create_job() for _ in range(3)]
    async with room_in(world, tmp_path) as room:
        await room.ready()
        manager: Any = room.settlement._manager
        outbox = manager._parts.outbox
        await room.generate(jobs[0], 100, step=100)
        await room.settled(jobs[0])
        await world.host.transact(world.bank.address, value_wei=1)  # nobody here knows of it
        await room.generate(jobs[0], 100, step=100)
        await room.settled(jobs[0], SOON_S)
        assert "one at a time" in await room.problem("T03")
        await world.set_automine(False)
        for job_id in jobs[1:]:
            await room.generate(job_id, 100, step=100, session_id=str(job_id))
        await room.wait(lambda: manager.waiting_jobs == 1 and manager.open_claims == 1, SOON_S)
        (slot,) = await room.ledger.slots(world.host_address, [SlotState.OPEN])
        outbox._sending_of(slot).attempt_since = float("-inf")
        outbox._sending_of(slot).called_low = True
        assert (await outbox.bump_if_it_helps(slot)).attempts == slot.attempts
        await world.set_automine(True)
        for job_id in jobs[1:]:
            await world.mine()
            await room.settled(job_id, SOON_S)


# --- one endpoint's word ----------------------------------------------------------------------------------------------------


class SaysClosed(RpcSwitch):
    """A node that calls every job ended."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if isinstance(body, dict) and body["method"] == "eth_call" and body["params"][0]["data"].startswith(JOBS):
            assert self._session is not None
            async with self._session.post(self.upstream, json=body) as answer:
                result = (await answer.json())["result"]
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": result[:-1] + "0"})
        return await super()._answer(request)


async def test_nothing_is_written_off_by_one_endpoints_word(embedded_world: World, tmp_path: Path) -> None:
    world = embedded_world
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.ready()
        await room.generate(world.job_id, 60, step=60)
    await world.mine(20)
    async with SaysClosed(world.rpc_url) as liar:
        urls: Any = (liar.url, world.rpc_url)
        async with room_in(world, tmp_path, rpc_url=urls) as room:
            await room.problem("T02", SOON_S)
            assert (await room.view(world.job_id)).unclaimed == 60
            assert await room.ledger.claims(job_id=world.job_id) == []
    async with room_in(world, tmp_path) as room:
        await room.settled(world.job_id, SOON_S)


async def test_a_contract_that_cannot_be_asked_has_not_said_that_a_claim_landed(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = True
    original = ProofSystem.simulate

    async def simulate(self: ProofSystem, host: str, calldata: bytes) -> None:
        if refuse:
            raise CallReverted("refused", reason="Proof already used")
        await original(self, host, calldata)

    async with silent.room("only", with_key=False) as room:
        await room.generate(7, 80, step=10)
    monkeypatch.setattr(ProofSystem, "simulate", simulate)
    async with silent.room("only") as room:
        await room.problem("T02", SOON_S)
        view = await room.view(7)
        assert (view.claimed, view.unclaimed) == (0, 80)
        refuse = False
        await room.settlement.refresh()
        await room.settled(7, SOON_S)
    assert await silent.paid(7) == 80
