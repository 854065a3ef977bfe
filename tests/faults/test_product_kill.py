"""kill -9 of the whole product at random moments, also while it starts: what clients saw is counted, and what is counted is
paid once.

The model is a scripted server, the chain is anvil; several profiles are killed side by side. After each kill the ledger's file
is checked by itself; every tenth time the product is left alone until all is settled. `--long` kills 5,000 times.

Every tenth life begins with the command; the others are forked behind its imports, which take longer than all that can go
wrong in a life, and in which nothing of ours runs that a kill could harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest
from chain_support import Anvil, World, build_world
from forked_product import ForkedProduct
from hunting import hunt_seed
from ledger_rules import check_file
from played_server import PlayedServer, Step, played, vllm
from product_support import Product, brief_request, tokens_of
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from fabstir_desktop.devnet.client import ChainClient

PROMPT = "Write an endless list of animals with a sentence about each of them."
LANES, JOBS = 4, 3
SHORT, LONG = 200, 5_000
DRAIN_EVERY = 10
FRESH_EVERY = 10
AT_START = 0.35
"""So many of the kills come before the product listens."""
STEPS_AHEAD = 2
"""Tokens of a stream that may be in the ledger and not yet with the client: one step being sent, one being counted."""
WORK_LIMIT_S = 8.0
START_LIMITS_S = (0.2, 1.5)
"""Within one of these a start is killed: in its first steps, or somewhere until it serves."""
MUST_MEET = ("fresh", "forked", "starting", "streaming", "planned", "open", "included", "confirmed")


@dataclass
class Lane:
    """One profile with its host, its jobs and what their clients received."""

    world: World
    data_dir: Path
    engine_url: str
    chance: random.Random
    met: Counter[str]
    received: Counter[int] = field(default_factory=Counter)
    counted: dict[int, int] = field(default_factory=dict)

    @property
    def jobs(self) -> list[int]:
        return list(self.world.demo.job_ids)

    def product(self, *, fresh: bool = False) -> Product:
        self.met["fresh" if fresh else "forked"] += 1
        return (Product if fresh else ForkedProduct)(
            self.data_dir,
            {
                "RPC_URL": self.world.rpc_url,
                "CHAIN_ID": str(self.world.chain_id),
                "CONTRACT_PROOF_SYSTEM": self.world.contract,
                "HOST_PRIVATE_KEY": self.world.host_key,
                "ENGINE_URL": self.engine_url,
                "CHECKPOINT_THRESHOLD": "10",
                "LOG_LEVEL": "INFO",
            },
        )

    async def round(self, number: int) -> None:
        """Start, work, die; then compare the file with what clients have."""
        before = Counter(self.received)
        product = self.product(fresh=number % FRESH_EVERY == 0)
        if self.chance.random() < AT_START:
            await self.die_at_start(product)
        else:
            await self.die_at_work(product, number)
        self.compare(before)

    async def die_at_start(self, product: Product) -> None:
        product.spawn()
        try:
            await asyncio.sleep(self.chance.uniform(0.0, self.chance.choice(START_LIMITS_S)))
            self.met["starting"] += 1
        finally:
            product.kill()

    async def die_at_work(self, product: Product, number: int) -> None:
        try:
            await product.start()
            clients = [asyncio.create_task(self.client(product.url, job, f"round-{number}-{job}")) for job in self.jobs]
            await self.work()
        finally:
            product.kill()
        await asyncio.wait_for(asyncio.gather(*clients), 30)

    async def work(self) -> None:
        """Until clients have so many tokens more, and a moment longer: claims are at any place of their way then."""
        enough = self.received.total() + self.chance.randint(1, 150)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORK_LIMIT_S):
                while self.received.total() < enough:
                    await asyncio.sleep(0.005)
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))

    async def client(self, url: str, job_id: int, session_id: str) -> None:
        with contextlib.suppress(WebSocketException, OSError):
            async with connect(url) as socket:
                while True:
                    await socket.send(json.dumps(brief_request(job_id, PROMPT, 60, session_id)))
                    async for message in socket:
                        frame = json.loads(message)
                        self.received[job_id] += tokens_of(frame)
                        self.met["streaming"] += tokens_of(frame) > 0
                        if frame["type"] in {"stream_end", "error"}:
                            break

    def compare(self, before: Counter[int]) -> None:
        """Nothing a client has is missing, at most a step more is counted, and the file keeps its rules."""
        path = self.data_dir / "ledger.db"
        if not path.exists():
            return
        connection = apsw.Connection(str(path))
        try:
            if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'claim'").get == 0:
                return  # it died before it had made its tables
            for table in ("claim", "slot"):
                self.met.update(state for (state,) in connection.execute(f"SELECT state FROM {table}"))
        finally:
            connection.close()
        counted = check_file(path)
        for job_id in self.jobs:
            made = counted.get(job_id, 0) - self.counted.get(job_id, 0)
            had = self.received[job_id] - before[job_id]
            assert had <= made <= had + STEPS_AHEAD, f"job {job_id}: {had} received, {made} counted"
        self.counted = counted

    async def drain(self) -> None:
        """Left alone, it settles everything: chain and ledger agree with what was counted."""
        product = self.product()
        try:
            await product.start()
            for job_id in self.jobs:
                if self.counted.get(job_id):
                    row = await product.job(job_id, lambda job: job["settled"] == job["generated"], 60)
                    assert row["generated"] == self.counted[job_id] == await self.world.tokens_paid(job_id)
            self.met["drained"] += 1
        finally:
            product.kill()


async def hunt(rounds: int, seed: int, anvil: Anvil, folder: Path) -> Counter[str]:
    met: Counter[str] = Counter()

    async def live(lane: Lane) -> None:
        for number in range(rounds // LANES):
            await lane.round(number)
            if number % DRAIN_EVERY == DRAIN_EVERY - 1 or number == rounds // LANES - 1:
                await lane.drain()

    async with ChainClient(anvil.rpc_url) as client, engine() as url:
        lanes = []
        for number in range(LANES):
            world = await build_world(anvil, client, jobs=JOBS, tokens=10**8, price_per_token_wei=10**6)
            lanes.append(Lane(world, folder / f"lane-{number}", url, random.Random(seed + number), met))
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(live(lane))
        except* AssertionError as errors:
            raise AssertionError(f"--seed {seed}: {errors.exceptions}") from errors
    print(f"{rounds} kills met {dict(met)}")
    return met


@contextlib.asynccontextmanager
async def engine() -> AsyncIterator[str]:
    """A model server that writes sixty words, one every few milliseconds."""

    async def slowly() -> None:
        await asyncio.sleep(0.008)

    steps = [Step(f"word {number} ", (100 + number,)) for number in range(60)]
    models = {"data": [{"id": "org/played", "max_model_len": 4096}]}
    async with played(PlayedServer(lambda _: vllm(steps, "length"), models, before_each=slowly)) as server:
        yield server.url


@pytest.fixture
async def anvil(start_anvil: Callable[..., Awaitable[Anvil]]) -> Anvil:
    return await start_anvil(block_time_s=0.3, arguments=["--slots-in-an-epoch", "1", "--balance", "10000000"])


@pytest.mark.timeout(1200)
async def test_no_token_is_lost_or_paid_twice_however_often_the_product_is_killed(
    anvil: Anvil, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    met = await hunt(SHORT, hunt_seed(request), anvil, tmp_path)
    assert [state for state in MUST_MEET if not met[state]] == [], met


@pytest.mark.long
@pytest.mark.timeout(12 * 3600)
async def test_the_same_some_thousand_times(anvil: Anvil, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    met = await hunt(LONG, hunt_seed(request), anvil, tmp_path)
    assert [state for state in MUST_MEET if not met[state]] == [], met
