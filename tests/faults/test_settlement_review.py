"""Where rooms of settlement meet: one claim's trouble beside the others, nonces that no transaction spent, kills in between."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from chain_support import Anvil, World, build_world
from eth_account import Account
from rpc_switch import RpcSwitch
from settlement_support import Room, make_settings, make_signer, open_room, room_in

from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.errors import LedgerError, RpcRefused
from fabstir_desktop.jobs.claims import ClaimState, SlotState
from fabstir_desktop.jobs.events import ProblemRaised
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.chain_client import BlockRef
from fabstir_desktop.settlement.chain_client import ChainClient as SettledClient
from fabstir_desktop.settlement.payments import PaymentReader


@pytest.fixture
async def world(start_anvil: Callable[..., Awaitable[Anvil]]) -> AsyncIterator[World]:
    """A world on an anvil whose blocks are safe after one more block, and final after two."""
    anvil = await start_anvil(arguments=["--slots-in-an-epoch", "1"])
    async with ChainClient(anvil.rpc_url) as client:
        yield await build_world(anvil, client)


@contextlib.asynccontextmanager
async def mining(world: World) -> AsyncIterator[None]:
    """Blocks go on coming."""

    async def mine_on() -> None:
        while True:
            await world.mine()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(mine_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def claim_in_the_pool(room: Room, world: World) -> None:
    """A claim of the world's job is signed and sent, and no block comes."""
    await room.ready()
    await world.set_automine(False)
    await room.generate(world.job_id, 100, step=100)
    await room.reach(lambda view: view.claimed == 100, world.job_id)


async def test_a_refused_claim_that_cannot_be_judged_yet_holds_up_no_other_job(world: World, tmp_path: Path) -> None:
    """Giving tokens up needs two endpoints, and one of them is away: that claim waits, nothing else does."""
    async with (
        RpcSwitch(world.rpc_url) as second,
        room_in(world, tmp_path, rpc_url=(world.rpc_url, second.url)) as room,
    ):
        other = await world.create_job()
        await claim_in_the_pool(room, world)
        ticket = await room.settlement.tracker.admit(other, "other", "127.0.0.1", 100)
        await world.client.request("anvil_dropAllTransactions")
        ending = asyncio.create_task(world.end_job(world.job_id))
        await asyncio.sleep(0.1)
        second.down = True
        async with mining(world):
            await ending
            await room.record(ticket, 100, step=100)
            await room.settled(other, 15)
            (slot, *_) = await room.ledger.slots(world.host_address)
            assert (slot.state, slot.succeeded) == (SlotState.INCLUDED, False)
            second.down = False
            async with asyncio.timeout(20):
                while not await room.ledger.claims(states=[ClaimState.WRITTEN_OFF]):
                    await asyncio.sleep(0.05)


async def relay_authorization(world: World, nonce: int) -> dict[str, Any]:
    """Another account's transaction carries the host's word to borrow no code, which spends a nonce of the host."""
    host = Account.from_key(world.host_key)
    word = host.sign_authorization({"chainId": world.chain_id, "address": "0x" + "00" * 20, "nonce": nonce})
    payer = Account.from_key(await world.funded_key())
    signed = payer.sign_transaction(
        {
            "type": 4,
            "chainId": world.chain_id,
            "nonce": 0,
            "to": payer.address,
            "value": 0,
            "data": b"",
            "gas": 200_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**9,
            "authorizationList": [word],
        }
    )
    sent = await world.client.request("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex())
    await world.mine()
    receipt: dict[str, Any] = await world.client.request("eth_getTransactionReceipt", sent)
    return receipt


async def test_a_nonce_spent_by_an_authorization_frees_its_claim(world: World, tmp_path: Path) -> None:
    """Such a nonce has no transaction (EIP-7702): the host's wallet app may have signed one with the same key."""
    async with room_in(world, tmp_path) as room:
        await claim_in_the_pool(room, world)
        await world.client.request("anvil_dropAllTransactions")
        await world.set_automine(True)
        receipt = await relay_authorization(world, 0)
        assert receipt["status"] == "0x1"
        async with mining(world):
            await room.settled(world.job_id, 15)
        first = (await room.ledger.slots(world.host_address))[0]
        assert first.state is SlotState.FOREIGN
    assert await world.tokens_paid() == 100


async def refused_as_replayed(room: Room, world: World) -> None:
    """The claim in the pool is mined and refused, because the same claim landed by a transaction that nobody knows."""
    await claim_in_the_pool(room, world)
    (claim,) = await room.ledger.claims()
    await world.client.request("anvil_dropAllTransactions")
    await world.set_automine(True)
    await world.host.send(world.contract, "0x" + claim.calldata.hex())
    await world.client.request("anvil_setNonce", world.host_address, "0x0")


async def test_tokens_that_landed_elsewhere_are_never_free_in_between(world: World, tmp_path: Path) -> None:
    """The disk is full between one step and the next: what the contract has is not claimed with the job's later tokens."""
    async with room_in(world, tmp_path) as room:
        ledger: Any = room.ledger

        async def full(*_: Any, **__: Any) -> None:
            raise LedgerError("the disk is full")

        ledger.record_foreign = full
        await refused_as_replayed(room, world)
        async with mining(world):
            await room.reach(lambda view: view.state != "claiming", world.job_id)
            await room.generate(world.job_id, 100, step=100)
            await room.settled(world.job_id, 15)
        messages = [event.problem.message for event in room.events if isinstance(event, ProblemRaised)]
        assert not any("They are claimed again" in message for message in messages), "they are paid"
    assert await world.tokens_paid() == 200


async def test_what_followed_a_spent_nonce_is_looked_at_once_its_claim_is_free(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup with a claim on its way is opened before the spender of its nonce is final. In the lost history the claim
    got the next nonce. The contract tells nothing of jobs, proofs or claims."""
    price, job_id = 10**10, 7
    arguments = (world.host_address, world.bank.address, price)
    _, address = await world.deploy("MinimalProofSystem", *arguments, value_wei=1000 * price)
    signer = make_signer(world.host_key, world.chain_id, address)

    def settings(name: str) -> Settings:
        return make_settings(tmp_path / name, world.rpc_url, world.chain_id, address)

    async with open_room(settings("live"), signer) as room:
        await room.ready()
        await world.set_automine(False)
        await room.generate(job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, job_id)
        await room.die()
    shutil.copytree(tmp_path / "live", tmp_path / "backup")
    await world.client.request("anvil_dropAllTransactions")
    await world.host.send(world.host_address, gas=21_000, nonce=0)
    await world.mine()
    async with open_room(settings("live"), signer) as room, mining(world):
        await room.settled(job_id)
    before = await world.balance_wei(address)

    original, is_final = SettledClient.settled_number, asyncio.Event()

    async def settled_number(self: SettledClient, tag: str, head: BlockRef) -> int:
        return await original(self, tag, head) if is_final.is_set() else 0

    monkeypatch.setattr(SettledClient, "settled_number", settled_number)
    async with open_room(settings("backup"), signer) as room, mining(world):
        await room.wait(lambda: room.settlement._manager is not None and room.settlement._manager.recovered)
        is_final.set()
        await room.settled(job_id, 15)
        await asyncio.sleep(0.5)
    assert await world.balance_wei(address) == before, "nothing was paid again"


async def test_a_payment_undone_by_mistake_comes_back_from_events_however_old(
    start_anvil: Callable[..., Awaitable[Anvil]], tmp_path: Path
) -> None:
    """A node on another fork makes a block look gone; later its receipt is there for one question and not for the next."""
    anvil = await start_anvil(arguments=["--slots-in-an-epoch", "200"])
    async with ChainClient(anvil.rpc_url) as client:
        world = await build_world(anvil, client)
        async with room_in(world, tmp_path) as room:
            await room.ready()
            await room.generate(world.job_id, 100, step=100)
            before = await room.settled(world.job_id)
            await world.mine(150)
            await room.settlement._manager._parts.payments.poll(None)  # type: ignore[union-attr]
            chain: Any = room.settlement._client
            receipt, asked = chain.receipt, 0

            async def one_in_two(tx_hash: bytes) -> Any:
                nonlocal asked
                asked += 1
                return await receipt(tx_hash) if asked % 2 else None

            chain.receipt = one_in_two
            (slot,) = await room.ledger.slots(world.host_address)
            await room.ledger.mark_reorged(slot.slot_id)
            await room.reach(lambda view: view.proven == 100, world.job_id)
            chain.receipt = receipt
            await room.settlement._manager._parts.payments.poll(None)  # type: ignore[union-attr]
            assert (await room.settled(world.job_id, 10)).earned == before.earned


async def test_payments_are_read_from_a_node_that_gives_three_blocks_at_a_time(world: World, tmp_path: Path) -> None:
    """What is read again each time must not be more than what is read."""
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        chain: Any = room.settlement._client
        logs = chain.logs

        async def stingy(address: str, topics: Any, first: int, last: int) -> Any:
            if last - first >= 3:
                raise RpcRefused("refused", code=-32005, detail="block range is too wide")
            return await logs(address, topics, first, last)

        chain.logs = stingy
        await world.mine(60)
        reader = PaymentReader(
            room.ledger,
            chain,
            room.settlement._contract,
            room.feed,
            host=world.host_address,
            confirmations=1,
            earnings_from="included",
        )
        for _ in range(4):
            await reader.poll(None)
        assert await room.ledger.event_cursor() is not None
        await world.checkpoint(world.job_id, 100)
        await world.mine(90)
        for _ in range(8):
            await reader.poll(None)
        assert (await room.view(world.job_id)).earned != ()


@pytest.mark.parametrize("is_paid", [True, False])
async def test_a_nonce_whose_spender_no_node_remembers_is_judged_by_the_proof(
    world: World, tmp_path: Path, *, is_paid: bool
) -> None:
    """The app was away for longer than the nodes keep receipts and states: its claim had landed, or something else had."""
    async with room_in(world, tmp_path) as room:
        await claim_in_the_pool(room, world)
        (claim,) = await room.ledger.claims()
        chain: Any = room.settlement._client
        count = chain.transaction_count

        async def forgetful(address: str, which: int | str = "latest") -> Any:
            if isinstance(which, int):
                raise RpcRefused("refused", code=-32000, detail="missing trie node")
            return await count(address, which)

        async def nothing(*_: Any) -> None:
            return None

        chain.transaction_count, chain.receipt = forgetful, nothing
        pool_asked = chain.pool.ask_all

        async def ask_all(method: str, *params: Any) -> Any:
            return [None] if method == "eth_getTransactionReceipt" else await pool_asked(method, *params)

        chain.pool.ask_all = ask_all
        if not is_paid:
            await world.client.request("anvil_dropAllTransactions")
            await world.host.send(world.host_address, gas=21_000, nonce=0)
        await world.mine()
        async with mining(world):
            async with asyncio.timeout(15):
                while (await room.ledger.slots(world.host_address))[0].state is not SlotState.BURNED:
                    await asyncio.sleep(0.05)
            del chain.receipt
            view = await room.settled(world.job_id, 15)
        assert view.generated == claim.tokens
        assert ("T03" in room.problem_codes) is not is_paid
    assert await world.tokens_paid() == 100
