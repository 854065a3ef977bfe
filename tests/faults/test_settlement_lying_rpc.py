"""Random schedules of faults between settlement and anvil: zero lost, zero double, and nothing sent that is not stored.

Seeds are in the message of a failure; `--long` plays many more. The last tests break the sender on purpose, one way each,
and expect the same hunt to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from chain_support import Anvil, build_world
from rpc_faults import FaultProxy
from settlement_support import Room, room_in

from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.errors import FabstirError, LedgerError
from fabstir_desktop.jobs.accounting import Ticket
from fabstir_desktop.jobs.claims import Attempt, Slot, SlotState
from fabstir_desktop.settlement.checkpoint_manager import ManagerParts
from fabstir_desktop.settlement.classifier import Answer, SendAnswer
from fabstir_desktop.settlement.fees import FeeOffer

FIRST_SEED = 20_260
SHORT, LONG = 24, 2000
TOGETHER = 4
MUST_STRIKE = ("drop", "lose_reply", "too_many", "html", "truncated", "null", "stale", "done_but_error", "twice")


class Caught(AssertionError):
    """An invariant did not hold."""


@pytest.fixture
async def anvil(start_anvil: Callable[..., Awaitable[Anvil]]) -> Anvil:
    """Blocks come by themselves and are soon final."""
    return await start_anvil(block_time_s=0.2, arguments=["--slots-in-an-epoch", "1", "--balance", "10000000"])


async def play(
    building: asyncio.Lock,
    anvil: Anvil,
    folder: Path,
    seed: int,
    *,
    sabotage: Callable[[Room], None] | None = None,
    limit_s: float = 40.0,
) -> Counter[str]:
    """One schedule. Worlds are built one by one, for one bank pays for them.

    Serve, end, restart once in the middle, with faults; then without, until all is settled.
    """
    async with ChainClient(anvil.rpc_url) as client, FaultProxy(anvil.rpc_url, seed) as rpc:
        async with building:
            world = await build_world(anvil, client, jobs=2)
        jobs = world.demo.job_ids
        totals = dict.fromkeys(jobs, 0)
        rpc.rate = 0.0
        unsaved: list[str] = []
        for _ in range(2):
            async with room_in(world, folder, rpc_url=rpc.url) as room:
                await room.ready()
                rpc.on_raw = stored_before_sent(room, unsaved)
                if sabotage is not None:
                    sabotage(room)
                for job_id in jobs:
                    await room.settlement.tracker.admit(job_id, f"s{job_id}", "127.0.0.1", 1)
                rpc.rate = 0.35
                for _ in range(3):
                    for job_id in jobs:
                        count = rpc.random.randint(20, 140)
                        await serve(room, job_id, count)
                        totals[job_id] += count
                    await asyncio.sleep(rpc.random.uniform(0.0, 0.4))
                await room.die()
                rpc.rate = 0.0
        async with room_in(world, folder, rpc_url=rpc.url) as room:
            rpc.on_raw = stored_before_sent(room, unsaved)
            if sabotage is not None:
                sabotage(room)
            try:
                for job_id in jobs:
                    await room.settled(job_id, limit_s)
            finally:
                await check_nonces(room, client, seed, unsaved)
            for job_id in jobs:
                view, paid = await room.view(job_id), await world.tokens_paid(job_id)
                claims = [event for event in await world.events("CheckpointSubmitted") if event["jobId"] == job_id]
                claimed = sum(int(event["tokensGenerated"]) for event in claims)
                if not view.generated == paid == claimed == totals[job_id]:
                    raise Caught(
                        f"seed {seed}: generated {totals[job_id]}, ledger {view}, paid {paid}, claimed {claimed}"
                    )
        return rpc.hits


async def check_nonces(room: Room, client: ChainClient, seed: int, unsaved: list[str]) -> None:
    """No claim was reverted (then it was sent twice), and no nonce was given up whose transaction was mined."""
    if any(row.state == "reverted" for row in await room.ledger.transaction_views()):
        raise Caught(f"seed {seed}: a claim was sent twice, and only the contract refused the second")
    if unsaved:
        raise Caught(f"seed {seed}: bytes left that were not stored")
    given_up = [SlotState.BURNED, SlotState.FOREIGN]
    for slot in await room.ledger.slots(parts_of(room).outbox.sender, given_up):
        for attempt in slot.attempts:
            if await client.request("eth_getTransactionReceipt", "0x" + attempt.tx_hash.hex()) is not None:
                raise Caught(f"seed {seed}: nonce {slot.nonce} was given up, but its transaction was mined")


async def serve(room: Room, job_id: int, count: int) -> None:
    """Tokens of a job that was admitted before: with a lying RPC a new admission may be refused, and that is right."""
    ticket = await room.ledger.open_ticket(job_id, f"s{job_id}")
    await room.record(Ticket(ticket, job_id, f"s{job_id}", None), count, step=20)


def stored_before_sent(room: Room, unsaved: list[str]) -> Callable[[str], Awaitable[None]]:
    """Invariant: bytes that leave are bytes of an attempt in the ledger, committed."""

    async def check(raw: str) -> None:
        try:
            slots = await room.ledger.slots(sender)
        except LedgerError:  # the room has just died
            return
        if bytes.fromhex(raw[2:]) not in {attempt.raw for slot in slots for attempt in slot.attempts}:
            unsaved.append(raw)

    sender = room.settlement._manager.sender  # type: ignore[union-attr]
    return check


async def test_no_schedule_of_faults_loses_or_doubles_a_token(
    anvil: Anvil, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    hits = await hunt(anvil, tmp_path, FIRST_SEED, SHORT)
    more = FIRST_SEED + SHORT
    while any(not hits[fault] for fault in MUST_STRIKE) and more < FIRST_SEED + 4 * SHORT:
        hits += await hunt(anvil, tmp_path, more, TOGETHER)
        more += TOGETHER
    assert [fault for fault in MUST_STRIKE if not hits[fault]] == [], (
        "a hunt that never hit a fault proves nothing about it"
    )


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_no_schedule_of_faults_loses_or_doubles_a_token_in_the_long_run(anvil: Anvil, tmp_path: Path) -> None:
    await hunt(anvil, tmp_path, FIRST_SEED, LONG)


async def hunt(anvil: Anvil, folder: Path, first_seed: int, schedules: int) -> Counter[str]:
    hits: Counter[str] = Counter()
    limit, building = asyncio.Semaphore(TOGETHER), asyncio.Lock()

    async def one(seed: int) -> None:
        async with limit:
            hits.update(await play(building, anvil, folder / str(seed), seed))

    await asyncio.gather(*(one(first_seed + number) for number in range(schedules)))
    return hits


def frees_the_nonce_when_it_is_called_used(room: Room) -> None:
    """Broken: "nonce too low" is taken for "not ours any more"; the claim gets a new nonce."""
    outbox = parts_of(room).outbox
    send = outbox.send

    async def broken(slot: Slot) -> SendAnswer:
        answer = await send(slot)
        if answer.answer in {Answer.NONCE_USED, Answer.UNKNOWN, Answer.RETRY}:
            await give_up(room, slot)
        return answer

    outbox.send = broken  # type: ignore[method-assign]


def sends_before_it_stores(room: Room) -> None:
    """Broken: the bytes leave before they are committed."""
    outbox = parts_of(room).outbox
    sign = outbox._sign

    async def broken(*arguments: Any) -> Attempt:
        attempt = await sign(*arguments)
        await room.settlement._client.send_raw(attempt.raw, attempt.tx_hash)
        return attempt

    outbox._sign = broken  # type: ignore[method-assign]


def bumps_without_storing(room: Room) -> None:
    """Broken: an unclear answer is met with a dearer transaction that is in no ledger."""
    outbox = parts_of(room).outbox
    send = outbox.send

    async def broken(slot: Slot) -> SendAnswer:
        answer = await send(slot)
        if answer.answer is not Answer.SENT and slot.claim_ids:
            claim = await room.ledger.claim(slot.claim_ids[0])
            dearer = FeeOffer(
                slot.attempts[-1].max_fee_per_gas_wei * 2, slot.attempts[-1].max_priority_fee_per_gas_wei * 2
            )
            contract = room.settlement._contract.address
            attempt = await outbox._sign(contract, claim.calldata, slot.nonce, slot.attempts[-1].gas_limit, dearer)
            await room.settlement._client.send_raw(attempt.raw, attempt.tx_hash)
        return answer

    outbox.send = broken  # type: ignore[method-assign]


def trusts_a_null_receipt(room: Room) -> None:
    """Broken: no receipt means not sent; the claim gets a new nonce."""
    reconciler = parts_of(room).reconciler

    async def broken(slot: Slot) -> None:
        await give_up(room, slot)

    reconciler._send_again = broken  # type: ignore[method-assign]


async def give_up(room: Room, slot: Slot) -> None:
    with contextlib.suppress(FabstirError):
        await room.ledger.free_slot(slot.slot_id, state=SlotState.BURNED, note="given up")


def parts_of(room: Room) -> ManagerParts:
    manager = room.settlement._manager
    assert manager is not None
    return manager._parts


@pytest.mark.parametrize(
    "sabotage",
    [frees_the_nonce_when_it_is_called_used, sends_before_it_stores, bumps_without_storing, trusts_a_null_receipt],
    ids=lambda sabotage: sabotage.__name__,
)
async def test_a_sender_broken_on_purpose_is_caught(
    anvil: Anvil, tmp_path: Path, sabotage: Callable[[Room], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    outcomes: list[Any] = []
    building = asyncio.Lock()
    for first in range(FIRST_SEED, FIRST_SEED + 12, TOGETHER):
        seeds = range(first, first + TOGETHER)
        plays = (play(building, anvil, tmp_path / str(seed), seed, sabotage=sabotage, limit_s=5.0) for seed in seeds)
        outcomes += await asyncio.gather(*plays, return_exceptions=True)
        if any(isinstance(found, Caught) for found in outcomes):
            return
    raise AssertionError(f"the hunt does not bite: twelve schedules did not notice the broken sender: {outcomes}")
