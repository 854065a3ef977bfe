"""The self-test of the first steps, by a real node: a real model answers through the real socket, and nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from chain_support import World
from limits import scaled
from node_support import READY_LIMIT_S, real_node, until

from fabstir_desktop.node import HostNode


@pytest.fixture
async def node(embedded_world: World, tmp_path: Path) -> AsyncIterator[HostNode]:
    async with real_node(embedded_world, tmp_path / "data") as made:
        yield made


async def test_it_streams_a_real_answer_counts_it_asks_the_chain_and_sends_nothing(
    node: HostNode, embedded_world: World
) -> None:
    pieces: list[str] = []
    checks = await node.self_test(pieces.append)
    by_name = {check.name: check for check in checks}
    names = list(by_name)
    assert (names[0], names[-1]) == ("answer", "claim")
    assert {"RPC", "contract", "gas money"} <= set(names)
    assert [check for check in checks if not check.passed] == []
    assert len("".join(pieces)) > 20
    streamed, counted = (int(word) for word in by_name["answer"].detail.split() if word.isdigit())
    assert streamed == counted > 10
    assert by_name["claim"].detail.startswith("not tried: this host has no open job yet")
    assert await node.transactions() == []
    assert await node.jobs() == [], "a free prompt belongs to no job"
    assert await embedded_world.events("CheckpointSubmitted") == []


async def test_leaving_it_half_way_ends_the_prompt(node: HostNode) -> None:
    began = asyncio.Event()
    running = asyncio.create_task(node.self_test(lambda _: began.set()))
    await asyncio.wait_for(began.wait(), scaled(READY_LIMIT_S))
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    await until(lambda: node.status.server.active_requests == 0)
    assert [check for check in await node.self_test(lambda _: None) if not check.passed] == []


async def test_without_a_public_address_the_reach_fails_and_says_what_to_set(node: HostNode) -> None:
    check = await node.check_reach()
    assert not check.passed
    assert "PUBLIC_URL" in check.action
