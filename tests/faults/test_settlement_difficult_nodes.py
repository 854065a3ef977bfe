"""Nodes that refuse an offer, keep no history, lag, or cap their answers: nothing stands still and nothing is claimed twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from chain_support import Anvil, World, wait_until
from mining_support import mining, soon_final_world
from rpc_faults import SEND, FaultProxy
from settlement_support import Room, room_in

from fabstir_desktop.jobs.claims import Slot, SlotState
from fabstir_desktop.settlement.spent_nonces import LOOKS_BEFORE_FILLING, GapWatch
from fabstir_desktop.wallet.signer import read_payload

Reply = dict[str, Any] | None
Rule = Callable[[dict[str, Any]], Awaitable[Reply]]


class StrangeNode(FaultProxy):
    """A node in front of the chain with rules of its own: the first rule that answers a call decides."""

    def __init__(self, upstream: str, *rules: Rule) -> None:
        super().__init__(upstream, 0, rate=0.0)
        self.rules = list(rules)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call: dict[str, Any] = await request.json()
        if call["method"] == SEND:
            self.raw_seen.append(call["params"][0])
        for rule in self.rules:
            reply = await rule(call)
            if reply is not None:
                self.hits[rule.__name__] += 1
                return web.json_response({"jsonrpc": "2.0", "id": call["id"], **reply})
        return web.json_response(await self._forward(call))


def refusal(text: str, code: int = -32000) -> dict[str, Any]:
    return {"error": {"code": code, "message": text}}


@pytest.fixture
async def world(start_anvil: Callable[..., Awaitable[Anvil]]) -> AsyncIterator[World]:
    async with soon_final_world(start_anvil) as world:
        yield world


async def only_slot(room: Room, world: World) -> Slot:
    (slot,) = await room.ledger.slots(world.host_address)
    return slot


def assert_same_claim(slot: Slot) -> None:
    assert len({read_payload(attempt.raw) for attempt in slot.attempts}) == 1, "a dearer attempt carries the very same"


async def test_a_pool_that_wants_a_higher_tip_gets_it_at_once(world: World, tmp_path: Path) -> None:
    asked_wei = 123_456_789

    async def wants_a_tip(call: dict[str, Any]) -> Reply:
        if call["method"] != SEND or await tip_of(call) >= asked_wei:
            return None
        return refusal(f"transaction underpriced: gas tip cap 1, minimum needed {asked_wei}")

    async def tip_of(call: dict[str, Any]) -> int:
        slot = await only_slot(room, world)
        raw = bytes.fromhex(call["params"][0][2:])
        return next(one.max_priority_fee_per_gas_wei for one in slot.attempts if one.raw == raw)

    async with StrangeNode(world.rpc_url, wants_a_tip) as node, room_in(world, tmp_path, rpc_url=node.url) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id)
        slot = await only_slot(room, world)
        assert len(slot.attempts) == 2
        assert slot.attempts[1].max_priority_fee_per_gas_wei >= asked_wei
        assert_same_claim(slot)
        assert node.hits["wants_a_tip"] > 0
    assert await world.tokens_paid() == 100


async def test_a_node_that_asks_for_a_tip_above_the_cap_changes_no_offer(world: World, tmp_path: Path) -> None:
    async def greedy(call: dict[str, Any]) -> Reply:
        return (
            refusal("transaction underpriced: gas tip cap 1, minimum needed 1" + "0" * 30)
            if call["method"] == SEND
            else None
        )

    async with StrangeNode(world.rpc_url, greedy) as node, room_in(world, tmp_path, rpc_url=node.url) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        assert "cap" in await room.problem("G03")
        assert len((await only_slot(room, world)).attempts) == 1
        node.rules.clear()
        await room.settled(world.job_id)


async def test_a_gas_limit_that_nodes_refuse_is_estimated_anew_under_the_same_nonce(
    world: World, tmp_path: Path
) -> None:
    first_estimates = iter(["0x7530"])

    async def estimates_too_little(call: dict[str, Any]) -> Reply:
        if call["method"] != "eth_estimateGas":
            return None
        estimate = next(first_estimates, None)
        return {"result": estimate} if estimate is not None else None

    async def knows_better(call: dict[str, Any]) -> Reply:
        if call["method"] != SEND or (await only_slot(room, world)).attempts[-1].gas_limit > 50_000:
            return None
        return refusal("intrinsic gas too low: gas 36000, minimum needed 50000")

    rules = (estimates_too_little, knows_better)
    async with StrangeNode(world.rpc_url, *rules) as node, room_in(world, tmp_path, rpc_url=node.url) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id)
        slot = await only_slot(room, world)
        assert [attempt.gas_limit > 50_000 for attempt in slot.attempts] == [False, True]
        assert_same_claim(slot)
        assert node.hits["knows_better"] > 0


async def test_no_fee_is_raised_before_a_block_has_come_and_none_that_cannot_be_paid(
    world: World, tmp_path: Path
) -> None:
    await world.set_automine(False)
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        first = (await only_slot(room, world)).attempts[0]
        await world.set_next_base_fee(first.max_fee_per_gas_wei * 2)
        await asyncio.sleep(1.5)  # two dues of a bump
        assert len((await only_slot(room, world)).attempts) == 1, "without a block no fee would have helped"
        await world.set_balance(world.host_address, first.max_fee_per_gas_wei * first.gas_limit)
        await world.mine()
        assert "Not enough ETH" in await room.problem("G02")
        assert len((await only_slot(room, world)).attempts) == 1, "an attempt that cannot be paid hides one that can"
        await world.set_balance(world.host_address, 10**18)
        async with mining(world):
            await room.settled(world.job_id)
        assert_same_claim(await only_slot(room, world))


async def test_a_nonce_that_nobody_uses_any_more_is_filled(world: World, tmp_path: Path) -> None:
    """Another program's transaction was counted, ours took the next nonce, and a reorganisation took the other's away."""
    await world.set_automine(False)
    await world.host.send(world.host_address, "0x")
    await world.mine()
    async with room_in(world, tmp_path) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await world.reorg(1)
        await world.client.request("anvil_dropAllTransactions")
        async with mining(world):
            await room.settled(world.job_id)
        kinds = {slot.nonce: slot.kind for slot in await room.ledger.slots(world.host_address)}
        assert sorted(kinds.values()) == ["cancel", "claim"]
        assert min(kinds, key=kinds.__getitem__) == min(kinds), "the gap was below the claim"
    assert await world.tokens_paid() == 100


@pytest.mark.parametrize(("blocks_kept", "state"), [(0, "burned"), (16, "foreign")])
async def test_a_foreign_nonce_is_settled_with_nodes_that_forget_old_states(
    world: World, tmp_path: Path, blocks_kept: int, state: str
) -> None:
    async def forgets(call: dict[str, Any]) -> Reply:
        if call["method"] != "eth_getTransactionCount" or not call["params"][1].startswith("0x"):
            return None
        head = await world.block_number()
        is_old = int(call["params"][1], 16) < head - blocks_kept or blocks_kept == 0
        return refusal("missing trie node 5f21 (path ) state is not available") if is_old else None

    await world.mine(40)
    await world.set_automine(False)
    async with StrangeNode(world.rpc_url, forgets) as node, room_in(world, tmp_path, rpc_url=node.url) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.reach(lambda view: view.claimed == 100, world.job_id)
        await world.client.request("anvil_dropAllTransactions")
        node.rules.append(_nothing_is_taken)
        await world.host.send(world.host_address, "0x")
        await world.mine()
        node.rules.remove(_nothing_is_taken)
        for _ in range(6):
            await world.mine()
            await asyncio.sleep(0.2)
        async with mining(world):
            await room.settled(world.job_id)
        states = [slot.state.value for slot in await room.ledger.slots(world.host_address)]
        assert states[0] == state
        assert node.hits["forgets"] > 0 or blocks_kept
    assert await world.tokens_paid() == 100


async def _nothing_is_taken(call: dict[str, Any]) -> Reply:
    return refusal("503 Service Unavailable: gateway error", -32603) if call["method"] == SEND else None


@pytest.mark.parametrize(
    ("text", "code"), [("query returned more than 10000 results", -32005), ("block range is too wide", -32614)]
)
async def test_payments_are_read_from_a_node_that_caps_the_range_of_logs(
    world: World, tmp_path: Path, text: str, code: int
) -> None:
    async def capped(call: dict[str, Any]) -> Reply:
        if call["method"] != "eth_getLogs":
            return None
        query = call["params"][0]
        return refusal(text, code) if int(query["toBlock"], 16) - int(query["fromBlock"], 16) >= 7 else None

    await world.mine(50)
    async with StrangeNode(world.rpc_url, capped) as node, room_in(world, tmp_path, rpc_url=node.url) as room:
        await room.ready()
        await room.generate(world.job_id, 100, step=100)
        await room.settled(world.job_id)
        head = await world.block_number()

        async def read_up() -> bool:
            cursor = await room.ledger.event_cursor()
            if cursor is not None and cursor[0] >= head:
                return True
            room.settlement._manager._parts.payments._read_at = -1e9  # type: ignore[union-attr]
            return False

        await wait_until(read_up)
        assert node.hits["capped"] >= 3, "1000, 500, ... blocks were refused"


def test_a_gap_is_believed_after_several_looks_only() -> None:
    watch = GapWatch()
    slot = _slot(7)
    for _ in range(LOOKS_BEFORE_FILLING - 1):
        assert watch.missing(5, [slot], frozenset()) == []
    assert watch.missing(7, [slot], frozenset()) == [], "it closed: the count was an old one"
    for _ in range(LOOKS_BEFORE_FILLING - 1):
        assert watch.missing(5, [slot], frozenset({6})) == []
    assert watch.missing(5, [slot], frozenset({6})) == [5], "6 is ours and followed by its own rules"


def _slot(nonce: int) -> Slot:
    return Slot(1, "0x", nonce, "claim", SlotState.OPEN, (), (), 0.0, None, None, None, None, None)
