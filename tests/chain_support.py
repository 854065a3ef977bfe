"""Real chains for tests: the product's embedded chain and anvil, with the same handles on both.

Fixtures (import them into a folder's conftest.py):

    embedded_chain      one embedded chain for the whole session, mining at each transaction
    anvil               a fresh anvil, chain id 84532, Prague rules, mining at each transaction
    start_anvil         `await start_anvil(block_time_s=2, arguments=["--base-fee", "7"])`, stopped with the test
    start_embedded      `await start_embedded(block_time_s=0.2, chain_id=84532)`, stopped with the test
    chain               the test runs twice: on embedded_chain and on anvil
    world               ProofSystem deployed on `chain`, a funded host, a client with a job
    embedded_world, anvil_world     the same on one of them

A world has its own contract, host and job; nothing of one test is seen by another, though they may share a chain.
"""

from __future__ import annotations

import asyncio
import ctypes
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.crypto import keccak
from limits import scaled
from node_tools import anvil_program
from secrets_support import canary_key

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.artifacts import Artifact, DecodedEvent, load_artifact
from fabstir_desktop.devnet.client import ChainClient, Sender
from fabstir_desktop.devnet.demo import DEMO_TOKENS, DemoWorld, create_job, deploy_demo

ANVIL_CHAIN_ID = 84532
ANVIL_BANK_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
START_LIMIT_S = scaled(30.0)
_LISTENING = re.compile(r"Listening on 127\.0\.0\.1:(\d+)")
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Anvil:
    """A running anvil; ends with `stop`, or with the process that started it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, chain_id: int, log: Path) -> None:
        self._process = process
        self.port = port
        self.chain_id = chain_id
        self.bank_key = ANVIL_BANK_KEY
        self.log = log

    @property
    def rpc_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(
        cls,
        *,
        block_time_s: float = 0.0,
        chain_id: int = ANVIL_CHAIN_ID,
        port: int = 0,
        hardfork: str = "prague",
        arguments: Sequence[str] = (),
    ) -> Anvil:
        program = await asyncio.to_thread(anvil_program)
        command = [str(program), "--chain-id", str(chain_id), "--hardfork", hardfork, "--port", str(port)]
        if block_time_s > 0:
            command += ["--block-time", f"{block_time_s:g}"]
        log = Path(tempfile.mkdtemp(prefix="anvil-")) / "anvil.log"
        process = _spawn([*command, *arguments], log)
        try:
            return cls(process, await _announced_port(process, log), chain_id, log)
        except BaseException:
            process.kill()
            process.wait()
            raise

    async def stop(self) -> None:
        await asyncio.to_thread(self.stop_now)

    def stop_now(self) -> None:
        """End it at once. May be called twice."""
        self._process.kill()
        self._process.wait()
        self.log.unlink(missing_ok=True)
        if self.log.parent.is_dir():
            self.log.parent.rmdir()


Chain = EmbeddedChain | Anvil


@dataclass(frozen=True, slots=True)
class JobOnChain:
    """What `jobs(uint256)` of ProofSystem returns."""

    client: str
    host: str
    price_per_token_wei: int
    deposit_wei: int
    tokens_paid: int
    is_open: bool


@dataclass(slots=True)
class World:
    """A deployed ProofSystem with its people, and hands on the chain below it."""

    chain: Chain
    demo: DemoWorld
    client: ChainClient
    artifact: Artifact = field(default_factory=lambda: load_artifact("ProofSystem"))

    @property
    def rpc_url(self) -> str:
        return self.demo.rpc_url

    @property
    def chain_id(self) -> int:
        return self.demo.chain_id

    @property
    def contract(self) -> str:
        return self.demo.contract

    @property
    def host_key(self) -> str:
        return self.demo.host_key

    @property
    def host_address(self) -> str:
        return self.demo.host_address

    @property
    def job_id(self) -> int:
        return self.demo.job_id

    @property
    def price_wei(self) -> int:
        return self.demo.price_per_token_wei

    # --- accounts -------------------------------------------------------------------------------------------------

    def sender(self, key: str) -> Sender:
        return Sender(self.client, key)

    @property
    def bank(self) -> Sender:
        return self.sender(self.chain.bank_key)

    @property
    def host(self) -> Sender:
        return self.sender(self.demo.host_key)

    @property
    def payer(self) -> Sender:
        """The client of the jobs."""
        return self.sender(self.demo.client_key)

    async def funded_key(self, wei: int = 10**18) -> str:
        """A fresh key with money."""
        key = canary_key()
        await self.bank.transact(Account.from_key(key).address, value_wei=wei)
        return key

    async def balance_wei(self, address: str) -> int:
        return await self.client.balance_wei(address)

    # --- jobs -----------------------------------------------------------------------------------------------------

    async def create_job(
        self, *, tokens: int = DEMO_TOKENS, host: str | None = None, price_per_token_wei: int | None = None
    ) -> int:
        return await create_job(self.demo, tokens=tokens, host=host, price_per_token_wei=price_per_token_wei)

    async def end_job(self, job_id: int) -> dict[str, Any]:
        return await self.payer.transact(self.contract, self.artifact.encode_call("endJob", job_id))

    async def job(self, job_id: int | None = None) -> JobOnChain:
        return JobOnChain(*await self.read("jobs", self.job_id if job_id is None else job_id))

    async def tokens_paid(self, job_id: int | None = None) -> int:
        return (await self.job(job_id)).tokens_paid

    async def read(self, function: str, *arguments: Any) -> tuple[Any, ...]:
        return await self.client.read(self.artifact, self.contract, function, *arguments)

    async def checkpoint(self, job_id: int, tokens: int, proof: bytes | None = None) -> dict[str, Any]:
        """Claim as the host would, without any of the product's code; return the receipt."""
        return await self.host.transact(self.contract, self.checkpoint_data(job_id, tokens, proof))

    def checkpoint_data(self, job_id: int, tokens: int, proof: bytes | None = None) -> str:
        signed = make_proof(self.host_key, tokens) if proof is None else proof
        return self.artifact.encode_call("submitCheckpoint", job_id, tokens, signed)

    async def logs(self, from_block: int = 0) -> list[dict[str, Any]]:
        query = {"address": self.contract, "fromBlock": hex(from_block), "toBlock": "latest"}
        return list(await self.client.request("eth_getLogs", query))

    async def events(self, name: str | None = None, from_block: int = 0) -> list[DecodedEvent]:
        return self.artifact.decode_events(await self.logs(from_block), name)

    async def deploy(self, name: str, *arguments: Any, value_wei: int = 0) -> tuple[Artifact, str]:
        """Deploy another contract of resources/contracts; return its artifact and address."""
        artifact = load_artifact(name)
        return artifact, await self.bank.deploy(artifact, *arguments, value_wei=value_wei)

    # --- the chain below --------------------------------------------------------------------------------------------

    async def block_number(self) -> int:
        return await self.client.number("eth_blockNumber")

    async def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            await self.client.request("evm_mine")

    async def set_automine(self, on: bool) -> None:
        await self.client.request("evm_setAutomine", on)

    async def increase_time(self, seconds: int) -> None:
        """Let the next block be that much later, and mine it."""
        await self.client.request("evm_increaseTime", seconds)
        await self.mine()

    async def drop(self, tx_hash: str) -> None:
        """Let the node forget a transaction that waits."""
        await self.client.request("anvil_dropTransaction", tx_hash)

    async def reorg(self, depth: int) -> None:
        """anvil only: replace the newest blocks by as many empty ones; their transactions are gone."""
        await self.client.request("anvil_reorg", depth, [])

    async def set_balance(self, address: str, wei: int) -> None:
        """anvil only."""
        await self.client.request("anvil_setBalance", address, hex(wei))

    async def set_next_base_fee(self, wei: int) -> None:
        """anvil only."""
        await self.client.request("anvil_setNextBlockBaseFeePerGas", hex(wei))


def make_proof(key: str, tokens: int, proof_hash: bytes | None = None, *, host: str | None = None) -> bytes:
    """The 97 bytes that the contract wants, made independently of the product's own code."""
    account = Account.from_key(key)
    digest = proof_hash or secrets.token_bytes(32)
    signer = bytes.fromhex((host or account.address)[2:])
    message = keccak(digest + signer + tokens.to_bytes(32, "big"))
    signed = account.sign_message(encode_defunct(message))
    return digest + signed.r.to_bytes(32, "big") + signed.s.to_bytes(32, "big") + bytes([signed.v])


async def build_world(
    chain: Chain, client: ChainClient, *, jobs: int = 1, tokens: int = DEMO_TOKENS, price_per_token_wei: int = 10**10
) -> World:
    """Deploy a ProofSystem of its own on a chain."""
    demo = await deploy_demo(
        chain.rpc_url,
        bank_key=chain.bank_key,
        host_key=canary_key(),
        jobs=jobs,
        tokens=tokens,
        price_per_token_wei=price_per_token_wei,
    )
    return World(chain, demo, client)


async def wait_until(condition: Callable[[], Awaitable[Any]], limit_s: float = 20.0, poll_s: float = 0.02) -> Any:
    """Wait until the condition answers something true, and return it. Raises AssertionError past the limit."""
    deadline = time.monotonic() + scaled(limit_s)
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"{condition} stayed false for {limit_s:g} s"
        await asyncio.sleep(poll_s)
    return value


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start in the caller's thread: the kernel's signal follows the end of the thread that forked."""
    is_main = threading.current_thread() is threading.main_thread()
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent if _LIBC and is_main else None,  # noqa: PLW1509  one system call, no locks
        )


async def _announced_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_LIMIT_S
    while not (found := _LISTENING.search(log.read_text(errors="replace"))):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"anvil did not start: {log.read_text(errors='replace')[-2000:]}")
        await asyncio.sleep(0.01)
    return int(found.group(1))


def _die_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(1, signal.SIGKILL)


# --- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def embedded_chain_process() -> Iterator[EmbeddedChain]:
    """The session's embedded chain. Started in a thread of its own: no event loop of a test is touched."""

    async def start() -> EmbeddedChain:
        return await EmbeddedChain.start()

    with ThreadPoolExecutor(1) as executor:
        chain = executor.submit(asyncio.run, start()).result(START_LIMIT_S)
        yield chain
        executor.submit(asyncio.run, chain.stop()).result(START_LIMIT_S)


@pytest_asyncio.fixture
async def embedded_chain(embedded_chain_process: EmbeddedChain) -> AsyncIterator[EmbeddedChain]:
    yield embedded_chain_process
    async with ChainClient(embedded_chain_process.rpc_url) as client:
        await client.request("evm_setAutomine", True)


@pytest_asyncio.fixture
async def start_anvil() -> AsyncIterator[Callable[..., Awaitable[Anvil]]]:
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Anvil:
            anvil = await Anvil.start(**options)
            stack.push_async_callback(anvil.stop)
            return anvil

        yield start


@pytest_asyncio.fixture
async def start_embedded() -> AsyncIterator[Callable[..., Awaitable[EmbeddedChain]]]:
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> EmbeddedChain:
            return await stack.enter_async_context(EmbeddedChain.start(**options))

        yield start


@pytest_asyncio.fixture
async def anvil(start_anvil: Callable[..., Awaitable[Anvil]]) -> Anvil:
    return await start_anvil()


@pytest.fixture(params=["embedded", "anvil"])
def chain(request: pytest.FixtureRequest) -> Chain:
    """The same test on both chains."""
    return request.getfixturevalue("embedded_chain" if request.param == "embedded" else "anvil")


@pytest_asyncio.fixture
async def world(chain: Chain) -> AsyncIterator[World]:
    async with ChainClient(chain.rpc_url) as client:
        yield await build_world(chain, client)


@pytest_asyncio.fixture
async def embedded_world(embedded_chain: EmbeddedChain) -> AsyncIterator[World]:
    async with ChainClient(embedded_chain.rpc_url) as client:
        yield await build_world(embedded_chain, client)


@pytest_asyncio.fixture
async def anvil_world(anvil: Anvil) -> AsyncIterator[World]:
    async with ChainClient(anvil.rpc_url) as client:
        yield await build_world(anvil, client)
