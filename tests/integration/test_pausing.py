"""Pausing a real node: at once, and after the jobs of now; what its clients are told, and what is paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from chain_support import World
from node_support import real_node, until
from product_support import ask, brief_request
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fabstir_desktop.jobs.status import PauseKind, ServingState
from fabstir_desktop.node import HostNode

PROMPT = "Tell me a long story about a lighthouse keeper."


@pytest.fixture
async def node(embedded_world: World, tmp_path: Path) -> AsyncIterator[HostNode]:
    async with real_node(embedded_world, tmp_path / "data") as made:
        yield made


async def test_a_pause_after_jobs_serves_the_open_one_refuses_new_ones_and_then_pauses(
    node: HostNode, embedded_world: World
) -> None:
    url, job_id = str(node.status.server.url), embedded_world.job_id
    async with connect(url) as busy, connect(url) as idle:
        running = asyncio.create_task(ask(busy, brief_request(job_id, PROMPT, 120)))
        await until(lambda: node.status.server.active_requests == 1)
        await node.pause(kind=PauseKind.AFTER_JOBS)
        assert node.status.state is ServingState.DRAINING
        assert node.status.sentence == "Finishing 1 job, then pausing"

        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 503
        assert "Retry-After" in refused.value.response.headers
        new_one = await ask(idle, brief_request(job_id, PROMPT, 10, "another-session"))
        assert new_one.error is not None
        assert new_one.error["code"] == "BUSY"

        first = await running
        assert first.error is None
        assert first.tokens_used == first.chunk_tokens > 0
        second = await ask(busy, brief_request(job_id, PROMPT, 10))
        assert second.chunk_tokens > 0, "the open job goes on until it is over"
        assert node.status.state is ServingState.DRAINING
    await until(lambda: node.status.state is ServingState.PAUSED)
    assert node.status.sentence == "Paused until you resume"
    generated = first.chunk_tokens + second.chunk_tokens
    view = await node.job(job_id)
    assert view is not None
    assert view.generated == generated

    await node.resume()
    async with connect(url) as socket:
        assert (await ask(socket, brief_request(job_id, PROMPT, 10))).chunk_tokens > 0


async def test_a_pause_at_once_refuses_the_next_prompt_and_lets_the_running_one_end(
    node: HostNode, embedded_world: World
) -> None:
    url, job_id = str(node.status.server.url), embedded_world.job_id
    async with connect(url) as socket:
        running = asyncio.create_task(ask(socket, brief_request(job_id, PROMPT, 80)))
        await until(lambda: node.status.server.active_requests == 1)
        await node.pause()
        assert node.status.state is ServingState.PAUSED
        assert (await running).error is None
        refused = await ask(socket, brief_request(job_id, PROMPT, 10))
        assert refused.error is not None
        assert refused.error["code"] == "SHUTTING_DOWN"
