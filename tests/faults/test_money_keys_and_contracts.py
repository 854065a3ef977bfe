"""Another key, another contract, another spelling: what was begun under the old one is brought to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web
from chain_support import World, build_world, wait_until
from eth_account.typed_transactions import TypedTransaction
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from mining_support import mining
from rpc_switch import RpcSwitch
from settlement_support import Room, make_settings, make_signer, open_room, room_in

from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.jobs.claims import SlotState
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.ledger import Ledger

SOON_S = 10.0
SEND = "eth_sendRawTransaction"


class NoSends(RpcSwitch):
    """A node that answers everything but takes no transaction while `shut`."""

    shut = True

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.shut and body["method"] == SEND:
            self.seen[SEND] = self.seen.get(SEND, 0) + 1
            error = {"code": -32000, "message": "txpool is full"}
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "error": error})
        return await super()._answer(request)


async def signed_but_not_sent(room: Room, world: World, rpc: NoSends, tokens: int) -> None:
    await room.ready()
    await room.generate(world.job_id, tokens, step=tokens)
    await room.end()
    await room.reach(lambda view: view.claimed == tokens, world.job_id)
    await room.wait(lambda: rpc.seen.get(SEND, 0) > 0)


async def test_a_claim_that_was_signed_is_sent_and_proven_though_its_key_was_removed(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    async with NoSends(world.rpc_url) as rpc, room_in(world, tmp_path, rpc_url=rpc.url) as room:
        await signed_but_not_sent(room, world, rpc, 100)
        await room.settlement.set_signer(None)
        rpc.shut = False
        await room.settled(world.job_id, SOON_S)
        assert await world.tokens_paid() == 100


async def test_a_claim_of_the_old_key_is_brought_to_its_end_beside_the_new_keys_own(
    embedded_world: World, tmp_path: Path
) -> None:
    world = embedded_world
    other = make_signer(await world.funded_key(), world.chain_id, world.contract)
    job_of_other = await world.create_job(host=other.address)
    async with NoSends(world.rpc_url) as rpc, room_in(world, tmp_path, rpc_url=rpc.url) as room:
        await signed_but_not_sent(room, world, rpc, 100)
        await room.settlement.set_signer(other)
        rpc.shut = False
        await room.generate(job_of_other, 40, session_id="second")
        await room.end("second")
        await room.settled(job_of_other, SOON_S)
        view = await room.settled(world.job_id, SOON_S)
        assert view.earned[0].amount == 100 * world.price_wei * 9 // 10


async def test_a_restart_without_a_key_still_sends_what_was_signed(embedded_world: World, tmp_path: Path) -> None:
    world = embedded_world
    async with NoSends(world.rpc_url) as rpc:
        async with room_in(world, tmp_path, rpc_url=rpc.url) as room:
            await signed_but_not_sent(room, world, rpc, 100)
            await room.die()
        rpc.shut = False
        async with room_in(world, tmp_path, rpc_url=rpc.url, with_key=False) as room:
            await room.settled(world.job_id, SOON_S)


async def test_a_claim_for_one_contract_is_never_signed_for_another(anvil_world: World, tmp_path: Path) -> None:
    world = anvil_world
    _, second = await world.deploy("ProofSystem", world.bank.address)
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.end()
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        (slot,) = await room.ledger.slots(world.host_address)
        await room.die()
    # Dearer gas makes a bump due while the app is set to another contract.
    await world.set_next_base_fee(slot.attempts[0].max_fee_per_gas_wei * 2)
    await world.mine()
    settings = make_settings(tmp_path, world.rpc_url, world.chain_id, second)
    async with open_room(settings, make_signer(world.host_key, world.chain_id, second)) as room:
        await room.ready()
        manager: Any = room.settlement._manager
        outbox = manager._parts.outbox
        looks = 0
        original = outbox.bump_if_it_helps

        async def counted(*arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            outbox._sending_of(arguments[-1]).attempt_since = -1e9
            return await original(*arguments)

        outbox.bump_if_it_helps = counted
        async with mining(world):

            async def is_mined() -> bool:
                (found,) = await room.ledger.slots(world.host_address)
                return found.state in {"confirmed", "final"}

            await wait_until(is_mined, SOON_S)
        (slot,) = await room.ledger.slots(world.host_address)
        targets = {TypedTransaction.from_bytes(HexBytes(one.raw)).as_dict()["to"] for one in slot.attempts}
        assert targets == {bytes.fromhex(world.contract[2:])}
    async with mining(world), room_in(world, tmp_path) as room:
        await room.settled(world.job_id, SOON_S)


async def test_another_spelling_of_the_contracts_address_finds_the_same_jobs(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    address = to_checksum_address("0x" + "ab" * 20)
    for spelling in (address, address.lower(), "0x" + address[2:].upper()):
        ledger = await Ledger.open(path, Venue(84532, spelling, "proof_system"))
        try:
            ticket = await ledger.open_ticket(7, "session-1")
            total = await ledger.add_tokens(ticket, [1, 2, 3])
        finally:
            await ledger.close()
    assert total == 9


async def test_a_silent_node_holds_up_a_claim_whose_nonce_another_used_and_is_told_until_it_is_taken_out(
    start_anvil: Any, tmp_path: Path
) -> None:
    """It may be the one that has our transaction: the bar does not fall with time."""
    chain = await start_anvil(arguments=["--slots-in-an-epoch", "1"])
    async with ChainClient(chain.rpc_url) as client, RpcSwitch(chain.rpc_url) as second:
        world = await build_world(chain, client)
        urls: Any = (world.rpc_url, second.url)
        async with room_in(world, tmp_path, rpc_url=urls) as room:
            await room.ready()
            await world.set_automine(False)
            await room.generate(world.job_id, 100, step=100)
            await room.reach(lambda view: view.claimed == 100, world.job_id)
            second.down = True
            await client.request("anvil_dropAllTransactions")
            manager: Any = room.settlement._manager
            (slot,) = await room.ledger.slots(world.host_address)
            manager._parts.outbox._sending_of(slot).next_at = float("inf")
            await world.host.send(world.host_address, gas=21_000)
            await world.mine(5)
            assert "does not answer" in await room.problem("C07")
            await world.mine(5)
            (slot,) = await room.ledger.slots(world.host_address)
            assert slot.state is SlotState.OPEN
        async with room_in(world, tmp_path) as room, mining(world):
            await room.settled(world.job_id, SOON_S)
            assert await world.tokens_paid() == 100
