"""The product with its model elsewhere: a real llama-server behind a key, a real chain, everything counted and paid alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from engine_support import small_model_path
from host_environment import chain_environment
from llama_server_support import llama_server
from product_support import ask, brief_request, get_json, running, tokens_of
from secrets_support import canary_key
from websockets.asyncio.client import connect

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import DemoWorld, deploy_demo

KEY = "sk-kestrel-of-the-engine"
LONG = "Write a very long and detailed story about a lighthouse keeper, a storm and an old radio. Do not stop early."


@pytest.fixture
async def world() -> AsyncIterator[DemoWorld]:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        yield await deploy_demo(chain, host_key=canary_key(), jobs=2)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llama_server(small_model_path(), window=512, parallel=2, key=KEY) as url:
        yield url


def environment(world: DemoWorld, engine_url: str, **more: str) -> dict[str, str]:
    return {
        **chain_environment(world),
        "HOST_PRIVATE_KEY": world.host_key,
        "CHECKPOINT_THRESHOLD": "20",
        "ENGINE_URL": engine_url,
        **more,
    }


async def test_prompts_are_counted_and_paid_as_with_a_local_model(
    world: DemoWorld, server: str, tmp_path: Path
) -> None:
    address = server.replace("http://", "http://host:password-of-the-host@")
    async with running(tmp_path / "data", environment(world, address, ENGINE_API_KEY=KEY)) as product:
        async with connect(product.url, max_size=None) as socket:
            request = brief_request(world.job_ids[0], LONG, 30)
            answer = await ask(socket, request)
            assert answer.end is not None
            assert answer.end["finish_reason"] == "length"
            assert answer.chunk_tokens == answer.tokens_used == 30
            assert answer.end["usage"]["prompt_tokens"] > 20
            assert answer.end["usage"]["context_window_size"] == 512

            await socket.send(json.dumps(brief_request(world.job_ids[0], LONG, 400)))
            made, ended = 0, {}
            async with asyncio.timeout(90):
                async for message in socket:
                    frame = json.loads(message)
                    made += tokens_of(frame)
                    if made >= 3 and not ended:
                        ended = {"type": "stream_cancel", "session_id": "user-session-001"}
                        await socket.send(json.dumps(ended))
                    if frame["type"] == "stream_end":
                        break
            assert frame["reason"] == "cancelled"
            assert frame["tokens_used"] == made

            over = await ask(socket, brief_request(world.job_ids[0], "word " * 1000, 10))
            assert over.error is not None
            assert over.error["code"] == "TOKEN_LIMIT_EXCEEDED"
            assert over.error["context_window_size"] == 512
            assert over.error["prompt_tokens"] > 1000
        total = 30 + made
        row = await product.job(world.job_ids[0], lambda row: row["proven"] == total)
        assert row["generated"] == row["claimed"] == total
        assert (await product.jobs())[str(world.job_ids[0])]["generated"] == total
        _, status = await get_json(f"{product.http_url}/status")
        code, report = await product.command("doctor")
        assert "ok      model: SmolLM2" in report
        assert code == 0, report
        assert (await product.stop())[0] == 0
        for text in (json.dumps(status), report, product.log, product.output):
            assert KEY not in text
            assert "password-of-the-host" not in text
        assert server.removeprefix("http://") in product.log


async def test_a_wrong_key_and_a_server_that_is_gone_are_said_and_the_host_goes_on(
    world: DemoWorld, server: str, tmp_path: Path
) -> None:
    settings = environment(world, server, ENGINE_API_KEY="sk-kestrel-another")
    async with running(tmp_path / "data", settings, wait_for_model=False) as product:
        status = await product.wait_for(
            lambda answer: any("ENGINE_API_KEY" in problem["message"] for problem in answer["problems"])
        )
        assert status["engine"]["state"] == "restarting"
        assert "set ENGINE_API_KEY" in status["engine"]["detail"]
        assert "model process" not in json.dumps(status)
        async with connect(product.url, max_size=None) as socket:
            answer = await ask(socket, brief_request(world.job_ids[1], LONG, 5))
            assert answer.error is not None
            assert answer.error["code"] == "MODEL_UNAVAILABLE"
        code, report = await product.command("doctor")
        assert code == 1
        assert "FAILED  model: the server at" in report
        assert "set ENGINE_API_KEY" in report
        assert "sk-kestrel" not in report + product.log + product.output
