"""Random schedules of faults between settlement and anvil: zero lost, zero double, and nothing sent that is not stored.

The first seed is printed; each schedule's own is in the message of a failure, and `--long` plays many more. Every second
schedule has two endpoints, most speak as geth or reth do and refuse what those refuse, and some cap the range of getLogs. The
last tests break the sender on purpose, one way each, and expect the same hunt to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from chain_support import Anvil, World, build_world
from hunting import hunt_seed
from node_rules import DIALECTS, NodeRules
from outbox_rules import check_against_chain, check_settled_file
from rpc_faults import FaultProxy
from settlement_support import Room, room_in

from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.errors import FabstirError, LedgerError
from fabstir_desktop.jobs.accounting import Ticket
from fabstir_desktop.jobs.claims import Attempt, Slot, SlotState
from fabstir_desktop.settlement.checkpoint_manager import ManagerParts
from fabstir_desktop.settlement.classifier import Answer, SendAnswer
from fabstir_desktop.settlement.fees import FeeOffer

FIRST_SABOTAGED_SEED = 20_260
SHORT, LONG = 100, 2000
MORE = 25
"""So many are played on top, again and again, while a fault was never met."""
PER_ANVIL = 100
TOGETHER = 8
BLOCK_S = 0.2
RATES = (0.1, 0.2, 0.35)
"""Which share of calls is struck, in a schedule."""
MUST_STRIKE = (
    "drop", "lose_reply", "delay", "too_many", "unavailable", "html", "truncated", "null", "stale", "stale_count",
    "other_chain", "twice", "send_error", "done_but_error", "other_hash", "asks_more", "log_cap", "replaced", "translated",
)  # fmt: skip
StartAnvil = Callable[..., Awaitable[Anvil]]


class Caught(AssertionError):
    """An invariant did not hold."""


@contextlib.asynccontextmanager
async def stage(start_anvil: StartAnvil, count: int) -> AsyncIterator[list[World]]:
    """Worlds on one anvil, built before blocks come by themselves; those are soon final."""
    anvil = await start_anvil(arguments=["--slots-in-an-epoch", "1", "--balance", "10000000"])

    async def mine_on() -> None:
        while True:
            await client.request("evm_mine")
            await asyncio.sleep(BLOCK_S)

    async with ChainClient(anvil.rpc_url) as client:
        worlds = [await build_world(anvil, client, jobs=2) for _ in range(count)]
        await client.request("evm_setAutomine", False)
        mining = asyncio.create_task(mine_on())
        try:
            yield worlds
        finally:
            mining.cancel()
            await asyncio.gather(mining, return_exceptions=True)
            await anvil.stop()


class Nodes:
    """The endpoints of one schedule: one or two, in front of the same chain and the same pool."""

    def __init__(self, world: World, seed: int) -> None:
        chance = self.random = random.Random(seed)
        dialect = chance.choice((*DIALECTS, None))
        self.rate = chance.choice(RATES)
        self.rules = NodeRules(dialect) if dialect is not None else None
        cap = chance.choice((None, 50, 200))
        self.proxies = [
            FaultProxy(world.rpc_url, seed + 10**9 * number, rate=0.0, pool_rules=self.rules, log_cap_blocks=cap)
            for number in range(1 + seed % 2)
        ]

    async def __aenter__(self) -> Nodes:
        self._stack = contextlib.AsyncExitStack()
        for proxy in self.proxies:
            await self._stack.enter_async_context(proxy)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(proxy.url for proxy in self.proxies)

    @property
    def raw_seen(self) -> set[str]:
        return {raw for proxy in self.proxies for raw in proxy.raw_seen}

    @property
    def hits(self) -> Counter[str]:
        found = Counter(self.rules.hits) if self.rules is not None else Counter()
        for proxy in self.proxies:
            found.update(proxy.hits)
        found["two endpoints"] = len(self.proxies) - 1
        return found

    def lie(self, *, on: bool) -> None:
        for proxy in self.proxies:
            proxy.rate = self.rate if on else 0.0

    def watch(self, look: Callable[[str], Awaitable[None]]) -> None:
        for proxy in self.proxies:
            proxy.on_raw = look


async def play(
    world: World, folder: Path, seed: int, *, sabotage: Callable[[Room], None] | None = None, limit_s: float = 60.0
) -> Counter[str]:
    """One schedule: serve, end, restart once in the middle, with faults; then without, until all is settled."""
    async with Nodes(world, seed) as nodes:
        totals = dict.fromkeys(world.demo.job_ids, 0)
        unsaved: list[str] = []
        for _ in range(2):
            async with room_in(world, folder, rpc_url=nodes.urls) as room:
                await room.ready()
                nodes.watch(stored_before_sent(room, unsaved))
                if sabotage is not None:
                    sabotage(room)
                await live(room, nodes, totals)
        async with room_in(world, folder, rpc_url=nodes.urls) as room:
            nodes.watch(stored_before_sent(room, unsaved))
            if sabotage is not None:
                sabotage(room)
            try:
                for job_id in totals:
                    await room.settled(job_id, limit_s)
            finally:
                await check_nonces(room, world.client, seed, unsaved)
            await check_totals(room, world, seed, totals)
        try:
            assert check_settled_file(folder / "ledger.db") == totals
            await check_against_chain(world, folder / "ledger.db", nodes.raw_seen)
        except AssertionError as error:
            raise Caught(f"seed {seed}: {error}") from error
        return nodes.hits


async def live(room: Room, nodes: Nodes, totals: dict[int, int]) -> None:
    """One life among faults, that ends as with kill -9."""
    for job_id in totals:
        await room.settlement.tracker.admit(job_id, f"s{job_id}", "127.0.0.1", 1)
    nodes.lie(on=True)
    for _ in range(3):
        for job_id in totals:
            count = nodes.random.randint(20, 140)
            await serve(room, job_id, count)
            totals[job_id] += count
        await asyncio.sleep(nodes.random.uniform(0.0, 0.4))
    await room.die()
    nodes.lie(on=False)


async def check_totals(room: Room, world: World, seed: int, totals: dict[int, int]) -> None:
    """Each job's tokens are claimed and paid once."""
    events = await world.events("CheckpointSubmitted")
    for job_id, total in totals.items():
        view, paid = await room.view(job_id), await world.tokens_paid(job_id)
        claimed = sum(int(event["tokensGenerated"]) for event in events if event["jobId"] == job_id)
        if not view.generated == paid == claimed == total:
            raise Caught(f"seed {seed}: generated {total}, ledger {view}, paid {paid}, claimed {claimed}")


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


@pytest.mark.timeout(900)
async def test_no_schedule_of_faults_loses_or_doubles_a_token(
    start_anvil: StartAnvil, tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    caplog.set_level(logging.CRITICAL)
    seed = hunt_seed(request)
    hits = await hunt(start_anvil, tmp_path, seed, SHORT)
    for first in range(seed + SHORT, seed + 2 * SHORT, MORE):
        if missed(hits):
            hits += await hunt(start_anvil, tmp_path, first, MORE)
    assert_all_struck(hits)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
async def test_no_schedule_of_faults_loses_or_doubles_a_token_in_the_long_run(
    start_anvil: StartAnvil, tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    caplog.set_level(logging.CRITICAL)
    assert_all_struck(await hunt(start_anvil, tmp_path, hunt_seed(request), LONG))


def missed(hits: Counter[str]) -> list[str]:
    """Faults that a hunt never met: it proves nothing about them."""
    return [fault for fault in (*MUST_STRIKE, "two endpoints") if not hits[fault]]


def assert_all_struck(hits: Counter[str]) -> None:
    print(dict(hits))
    assert missed(hits) == []


async def hunt(start_anvil: StartAnvil, folder: Path, first_seed: int, schedules: int) -> Counter[str]:
    hits: Counter[str] = Counter()
    limit = asyncio.Semaphore(TOGETHER)

    async def one(world: World, seed: int) -> None:
        async with limit:
            try:
                hits.update(await play(world, folder / str(seed), seed))
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error

    for first in range(first_seed, first_seed + schedules, PER_ANVIL):
        async with (
            stage(start_anvil, min(PER_ANVIL, first_seed + schedules - first)) as worlds,
            asyncio.TaskGroup() as group,
        ):
            for seed, world in enumerate(worlds, first):
                group.create_task(one(world, seed))
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
    start_anvil: StartAnvil, tmp_path: Path, sabotage: Callable[[Room], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    outcomes: list[Any] = []
    async with stage(start_anvil, 12) as worlds:
        seeds = list(enumerate(worlds, FIRST_SABOTAGED_SEED))
        while seeds:
            chosen, seeds = seeds[:4], seeds[4:]
            plays = (play(world, tmp_path / str(seed), seed, sabotage=sabotage, limit_s=5.0) for seed, world in chosen)
            outcomes += await asyncio.gather(*plays, return_exceptions=True)
            if any(isinstance(found, Caught) for found in outcomes):
                return
    raise AssertionError(f"the hunt does not bite: twelve schedules did not notice the broken sender: {outcomes}")
