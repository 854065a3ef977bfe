"""Stopping while an answer streams and no node answers: within five seconds, and the next start claims every token."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from host_environment import host_environment
from product_support import SCALE, ask, brief_request, running
from rpc_switch import RpcSwitch
from secrets_support import canary_key
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.artifacts import load_artifact
from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.devnet.demo import deploy_demo

PROMPT = "Count from one to one thousand in words, one number a line, and never stop."


class BlackHole(RpcSwitch):
    """Takes every call and, while `silent`, never answers."""

    silent = False

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        while self.silent:
            await asyncio.sleep(0.05)
            if request.transport is None or request.transport.is_closing():
                return web.Response()
        return await super()._answer(request)


def tokens_of(frame: dict[str, Any]) -> int:
    return int(frame["tokens"]) if frame["type"] == "stream_chunk" else 0


async def stream(socket: ClientConnection, job_id: int, tokens: int) -> int:
    """Ask until so many tokens have come, and leave an answer running."""
    request = json.dumps(brief_request(job_id, PROMPT, 800))
    await socket.send(request)
    received = 0
    while True:
        frame = json.loads(await socket.recv())
        received += tokens_of(frame)
        if frame["type"] == "stream_end":
            await socket.send(request)
        elif received >= tokens and tokens_of(frame):
            return received


@pytest.mark.parametrize("signs_before", [False, True], ids=["in the first claim", "after a first claim"])
async def test_a_stop_with_a_node_that_never_answers_takes_five_seconds_and_loses_nothing(
    tmp_path: Path, signs_before: bool
) -> None:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        world = await deploy_demo(chain, host_key=canary_key())
        async with BlackHole(world.rpc_url) as rpc:
            environment = host_environment(world, RPC_URL=rpc.url)
            data_dir = tmp_path / "data"
            async with running(data_dir, environment) as product:
                await product.wait_for(
                    lambda status: status["chain"]["submitting"] and status["chain"]["state"] == "ready"
                )
                served = 0
                if signs_before:
                    async with connect(product.url) as socket:
                        while served < 110:
                            served += (
                                await ask(socket, brief_request(world.job_id, PROMPT, 110 - served))
                            ).chunk_tokens
                    await product.job(world.job_id, lambda job: job["claimed"] >= 100)
                async with connect(product.url) as socket, asyncio.timeout(60 * SCALE):
                    fresh = await stream(socket, world.job_id, 30)
                    rpc.silent = True
                    stopping = asyncio.create_task(product.stop())
                    with contextlib.suppress(ConnectionClosed):
                        async for message in socket:
                            fresh += tokens_of(json.loads(message))
                    code, seconds = await stopping
                assert code == 0, product.output[-3000:]
                assert seconds < 5.0 * SCALE, f"it took {seconds:.1f} s"
            rpc.silent = False
            async with running(data_dir, environment, wait_for_model=False) as product:
                row = await product.job(world.job_id, lambda job: job["settled"] == job["generated"] > 0)
                assert row["generated"] >= served + fresh
            async with ChainClient(world.rpc_url) as client:
                paid = int((await client.read(load_artifact("ProofSystem"), world.contract, "jobs", world.job_id))[4])
            assert paid == row["generated"]
