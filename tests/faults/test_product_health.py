"""/health of the running product tells the truth: 503 while it cannot earn, 200 once it can; and what the host listens on."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from host_environment import host_environment
from limits import scaled
from product_support import Product, ask, brief_request, get_json, running
from rpc_switch import RpcSwitch
from secrets_support import canary_key
from websockets.asyncio.client import connect

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import DemoWorld, deploy_demo
from fabstir_desktop.server.access import is_loopback

PROMPT = "Tell a story of a lighthouse keeper and an old radio, and never stop."


@pytest.fixture
async def world() -> AsyncIterator[DemoWorld]:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        yield await deploy_demo(chain, host_key=canary_key())


async def health(product: Product, status: int, *issues: str) -> dict[str, Any]:
    """The page once it has this status and these issues; it must never say otherwise than its status."""
    answer: dict[str, Any] = {}
    try:
        async with asyncio.timeout(scaled(40)):
            while True:
                found, answer = await get_json(product.http_url + "/health")
                assert answer["healthy"] == (found == 200)
                assert (found == 503) == (answer["status"] == "unhealthy")
                if found == status and set(issues) <= set(answer["issues"]):
                    return answer
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not {status} with {issues}: {answer}") from None


def listening(product: Product) -> list[str]:
    """Addresses on which the product or a child of it waits for connections."""
    assert product.process is not None
    own = psutil.Process(product.process.pid)
    found = [entry for one in (own, *own.children(recursive=True)) for entry in one.net_connections("inet")]
    return [entry.laddr.ip for entry in found if entry.status == psutil.CONN_LISTEN]


async def test_health_follows_chain_and_model_of_the_running_product(world: DemoWorld, tmp_path: Path) -> None:
    async with (
        RpcSwitch(world.rpc_url) as rpc,
        running(tmp_path / "data", host_environment(world, RPC_URL=rpc.url)) as product,
    ):
        assert (await health(product, 200))["model_loaded"] is True
        addresses = listening(product)
        assert addresses, "the port itself is found"
        assert all(is_loopback(address) for address in addresses), addresses
        rpc.chain_id = 1
        await health(product, 503, "the host is on the wrong chain")
        rpc.chain_id = None
        await health(product, 200)


async def test_a_host_without_a_model_is_not_healthy(world: DemoWorld, tmp_path: Path) -> None:
    absent = host_environment(world, MODEL_PATH=str(tmp_path / "absent.gguf"))
    async with running(tmp_path / "data", absent, wait_for_model=False) as product:
        answer = await health(product, 503)
        assert answer["model_loaded"] is False
        assert any("model" in issue for issue in answer["issues"]), answer


async def test_a_host_whose_ledger_cannot_be_written_says_so(world: DemoWorld, tmp_path: Path) -> None:
    """Its files may not grow any more, as on a full disk. What was served and counted before stays counted."""
    async with running(tmp_path / "data", host_environment(world)) as product:
        await health(product, 200)
        assert product.process is not None
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(product.process.pid, resource.RLIMIT_FSIZE, (4096, hard))
        async with connect(product.url) as socket:
            answer = await ask(socket, brief_request(world.job_id, PROMPT, 200))
            assert answer.error is not None, "a token that cannot be counted is not served"
        await health(product, 503, "the ledger cannot be written")
