"""Attack 4, where open files run out: the port keeps its own apart from what ledger, chain and model need, and never spins."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import websockets
from attack_support import is_served
from host_environment import host_environment
from limits import scaled
from product_support import ask as ask_product
from product_support import brief_request, get_json, running
from secrets_support import canary_key
from server_process_support import ServerProcess, server_process
from server_support import ask, http_get, inference, until

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import deploy_demo
from fabstir_desktop.server.descriptors import KEPT_DESCRIPTORS

FEW_FILES = 256
PROMPT = "Count from one to one hundred in words, one number a line, and never stop."


@contextlib.asynccontextmanager
async def sockets(port: int, count: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Connections that say nothing. The system takes them whether or not anybody accepts them."""
    made = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(count)]
    try:
        yield made
    finally:
        for writer in made:
            writer.transport.abort()


def allow_open_files(pid: int, count: int) -> None:
    """From now on the process may have so many files open; those it has stay open."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))


async def hoard(server: ServerProcess) -> tuple[list[websockets.ClientConnection], int]:
    """As many clients as are let in, and the status that the first one too many gets."""
    inside: list[websockets.ClientConnection] = []
    while len(inside) < FEW_FILES:
        try:
            inside.append(await server.connect())
        except websockets.InvalidStatus as refused:
            return inside, refused.response.status_code
    return inside, 0


async def test_4_where_the_system_allows_few_files_some_are_kept_from_clients(tmp_path: Path) -> None:
    async with server_process(tmp_path, open_files=FEW_FILES) as server, server.connect() as honest:
        assert (await ask(honest, inference(job_id=1)))[-1]["reason"] == "complete"
        inside, status = await hoard(server)
        assert status == 503
        async with sockets(server.port, 600):
            for _ in range(10):
                assert (await ask(honest, inference(job_id=1)))[-1]["reason"] == "complete"
                assert server.descriptors <= FEW_FILES - KEPT_DESCRIPTORS // 2
                await asyncio.sleep(0.1)
        for connection in inside:
            await connection.close()
        await server.until_metric("fabstir_connections", 1)
        assert await is_served(server)
    log = (tmp_path / "server.log").read_text()
    assert "out of system resource" not in log
    told = re.search(r"so few open files that (\d+) clients can be connected, not 256", log)
    assert told is not None
    assert 16 <= int(told[1]) <= FEW_FILES - KEPT_DESCRIPTORS


async def test_4_out_of_files_the_server_neither_dies_nor_spins_and_goes_on_after(tmp_path: Path) -> None:
    async with server_process(tmp_path, runs_out=True) as server, server.connect() as honest:
        allow_open_files(server.process.pid, server.descriptors + 10)
        async with sockets(server.port, 200):
            await until(lambda: "out of system resource" in server.log.read_text())
            before_s, lines = server.cpu_s, server.log.read_text().count("out of system resource")
            await asyncio.sleep(3)
            assert (await ask(honest, inference(job_id=1)))[-1]["reason"] == "complete"
            assert server.cpu_s - before_s < 0.5, "it spins"
            assert server.log.read_text().count("out of system resource") - lines <= 8
            assert len(server.log.read_bytes()) < 300_000
        async with asyncio.timeout(scaled(30)):
            while not await answers(server.port):
                await asyncio.sleep(0.2)
        assert await is_served(server)


async def answers(port: int) -> bool:
    """Whether a new client gets a page."""
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(2):
            return (await http_get(port, "/health"))[0] == 200
    return False


async def test_4_out_of_files_the_products_ledger_is_still_written(tmp_path: Path) -> None:
    """A client that is inside is answered and counted while others hold every descriptor that is left."""
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        world = await deploy_demo(chain, host_key=canary_key())
        async with (
            running(tmp_path / "data", host_environment(world)) as product,
            websockets.connect(product.url) as honest,
        ):
            first = await ask_product(honest, brief_request(world.job_id, PROMPT, 5))
            assert product.process is not None
            allow_open_files(product.process.pid, psutil.Process(product.process.pid).num_fds() + 12)
            async with sockets(int(product.http_url.rsplit(":", 1)[1]), 100):
                await until(lambda: "out of system resource" in product.log, 20)
                second = await ask_product(honest, brief_request(world.job_id, PROMPT, 40))
                assert second.error is None
                assert second.tokens_used == second.chunk_tokens > 0
            allow_open_files(product.process.pid, 1024)
            async with asyncio.timeout(scaled(30)):
                while not await answers(int(product.http_url.rsplit(":", 1)[1])):
                    await asyncio.sleep(0.2)
            assert (await get_json(product.http_url + "/health"))[0] == 200
            counted = first.chunk_tokens + second.chunk_tokens
            await product.job(world.job_id, lambda job: job["generated"] == counted)
