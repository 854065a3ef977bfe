"""kill -9 of the whole product at random moments: what clients saw is counted, and what is counted is paid once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from pathlib import Path

import pytest
from engine_support import small_model_path
from product_support import Product, brief_request, tokens_of
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.artifacts import load_artifact
from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.devnet.demo import DemoWorld, deploy_demo

PROMPT = "Write an endless list of animals with a sentence about each of them."
STREAMS = 3
STEPS_AHEAD = 2
"""Tokens of a stream that may be in the ledger and not yet with the client: one step being sent, one being counted."""


async def stream_until_killed(url: str, job_id: int, session_id: str, received: dict[int, int]) -> None:
    with contextlib.suppress(WebSocketException, OSError):
        async with connect(url) as socket:
            while True:
                await socket.send(json.dumps(brief_request(job_id, PROMPT, 300, session_id)))
                async for message in socket:
                    frame = json.loads(message)
                    received[job_id] += tokens_of(frame)
                    if frame["type"] in {"stream_end", "error"}:
                        break


async def hunt(rounds: int, world: DemoWorld, data_dir: Path, seed: int) -> None:
    chance = random.Random(seed)
    received = dict.fromkeys(world.job_ids, 0)
    settings = {
        "RPC_URL": world.rpc_url,
        "CHAIN_ID": str(world.chain_id),
        "CONTRACT_PROOF_SYSTEM": world.contract,
        "HOST_PRIVATE_KEY": world.host_key,
        "MODEL_PATH": str(small_model_path()),
        "CHECKPOINT_THRESHOLD": "20",
        "LOG_LEVEL": "INFO",
    }
    for number in range(rounds):
        product = await Product(data_dir, settings).start()
        try:
            streams = [
                asyncio.create_task(
                    stream_until_killed(product.url, world.job_ids[stream % 2], f"round-{number}-{stream}", received)
                )
                for stream in range(STREAMS)
            ]
            await asyncio.sleep(chance.uniform(0.1, 1.2))
        finally:
            product.kill()
        await asyncio.wait_for(asyncio.gather(*streams), 20)
    product = await Product(data_dir, settings).start()
    try:
        for job_id in world.job_ids:
            if not received[job_id]:
                continue
            row = await product.job(job_id, lambda job: job["settled"] == job["generated"], 60)
            slack = rounds * STREAMS * STEPS_AHEAD
            assert received[job_id] <= row["generated"] <= received[job_id] + slack, f"job {job_id}, seed {seed}"
            async with ChainClient(world.rpc_url) as client:
                paid = (await client.read(load_artifact("ProofSystem"), world.contract, "jobs", job_id))[4]
            assert paid == row["generated"], f"job {job_id}, seed {seed}"
    finally:
        await product.stop()
    assert sum(received.values()) > rounds * 5, "the hunt must have met the product at work"


def pick_seed() -> int:
    seed = int(os.environ.get("HUNT_SEED", random.SystemRandom().randrange(2**32)))
    print(f"HUNT_SEED={seed}")
    return seed


@pytest.mark.timeout(600)
async def test_no_token_is_lost_or_paid_twice_however_often_the_product_is_killed(tmp_path: Path) -> None:
    async with EmbeddedChain.start(block_time_s=0.2) as chain:
        await hunt(24, await deploy_demo(chain, jobs=2, tokens=10**6), tmp_path / "data", pick_seed())


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
async def test_the_same_some_thousand_times(tmp_path: Path) -> None:
    async with EmbeddedChain.start(block_time_s=0.2) as chain:
        await hunt(2000, await deploy_demo(chain, jobs=2, tokens=10**8), tmp_path / "data", pick_seed())
