"""kill -9 at every named step, with every mishap: nothing lost, nothing claimed twice, every rule of the outbox kept.

The room runs in a child process that sends itself SIGKILL at the step (`settlement_child`), in front of an anvil of its own;
all combinations of `kill_matrix` are played in both forms, `--long` plays each twenty times. What is drawn (pieces of
tokens, blocks that come while it is dead) follows from the seed that is printed. After each drain ledger, bytes and chain
are compared (`outbox_rules`). That a mishap struck is checked where it is made; that the kill struck, by how the child ended.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import apsw
import pytest
import settlement_child
from chain_support import Anvil, World, build_world
from forking import forking_context
from hunting import hunt_seed
from kill_matrix import LEFT_OUT, MISHAPS, POINTS, Combination, Losing, Mishap, combinations, host_count
from limits import scaled
from mining_support import mining
from outbox_rules import check_against_chain, check_outbox_file, check_settled_file
from settlement_child import FIRST_CLAIM, KillPoint, Place
from settlement_support import room_in

from fabstir_desktop.devnet.client import ChainClient

LANES = 4
LONG = 20
AFTERWARDS = 50
"""So many tokens each job makes after the last start."""
PIECES = (10, 25, 50)
"""How many tokens are counted at a time."""


@dataclass
class Life:
    """One combination, played in a world of its own."""

    world: World
    rpc: Losing
    data_dir: Path
    combination: Combination
    chance: random.Random
    delivered: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.step_tokens = self.chance.choice(PIECES)

    @property
    def path(self) -> Path:
        return self.data_dir / "ledger.db"

    async def play(self) -> None:
        await self.world.set_automine(False)
        self.rpc.is_losing = self.combination.mishap.loses_replies
        await self.die_at(self.combination.point)
        counted = self.compare_with_delivered()
        assert (await host_count(self.world) > 0) == bool(self.combination.point.blocks)
        await self.combination.mishap.befall(self.world)
        if self.combination.at_boot is not None:
            await self.die_at(self.combination.at_boot)
            assert check_outbox_file(self.path) == counted
        await self.world.mine(self.chance.randint(0, 2))
        assert bool(self.rpc.hits["lose_reply"]) == self.rpc.is_losing, "no reply was lost"
        self.rpc.is_losing = False
        await self.drain(counted)
        if self.combination.at_boot is not None:
            await self.start_once_more()

    async def die_at(self, point: KillPoint) -> None:
        """Live in a child until it is killed there."""
        context = forking_context()
        heard, told = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(
            target=settlement_child.run, args=(self.place(), point, told), daemon=True
        )
        process.start()
        told.close()
        try:
            await asyncio.to_thread(process.join, scaled(2 * settlement_child.LIFE_LIMIT_S))
            assert process.exitcode == -signal.SIGKILL, (
                f"{point.name} was not reached: {process.exitcode}\n{self.log()}"
            )
        finally:
            process.kill()
            process.join()
        self.listen(heard)

    def place(self) -> Place:
        world = self.world
        room = (self.data_dir, self.rpc.url, world.rpc_url, world.chain_id, world.contract, world.host_key)
        return Place(*room, world.demo.job_ids, self.step_tokens)

    def listen(self, heard: Connection) -> None:
        with heard:
            while True:
                try:
                    job_id, total = heard.recv()
                except (EOFError, OSError):
                    return
                self.delivered[job_id] = total

    def log(self) -> str:
        log = self.data_dir / "child.log"
        return log.read_text(encoding="utf-8")[-3000:] if log.exists() else "no log"

    def compare_with_delivered(self) -> dict[int, int]:
        """What was delivered is counted, and at most one piece more."""
        counted = check_outbox_file(self.path)
        for job_id in self.world.demo.job_ids:
            delivered = self.delivered.get(job_id, 0)
            assert delivered <= counted.get(job_id, 0) <= delivered + self.step_tokens
        is_uncounted = self.combination.point.method == "add_tokens"
        assert counted[self.world.demo.job_ids[1]] == (self.step_tokens if is_uncounted else FIRST_CLAIM)
        return counted

    async def drain(self, counted: dict[int, int]) -> None:
        """Start again, end everything, and compare chain, ledger, and what was generated."""
        world, jobs = self.world, self.world.demo.job_ids
        totals = {job_id: counted.get(job_id, 0) + AFTERWARDS for job_id in jobs}
        async with room_in(world, self.data_dir, rpc_url=self.rpc.url) as room:
            await world.set_automine(True)
            for job_id in jobs:
                await room.generate(job_id, AFTERWARDS, session_id=f"last-{job_id}", step=7)
                await room.end(f"last-{job_id}")
            async with mining(world):
                views = [await room.settled(job_id) for job_id in jobs]
        assert check_settled_file(self.path) == totals
        claims = await world.events("CheckpointSubmitted")
        for job_id, view in zip(jobs, views, strict=True):
            claimed = sum(int(event["tokensGenerated"]) for event in claims if event["jobId"] == job_id)
            assert claimed == await world.tokens_paid(job_id) == view.generated == totals[job_id]
            assert view.earned[0].amount == totals[job_id] * world.price_wei * 9 // 10
        await check_against_chain(world, self.path, self.rpc.raw_seen)

    async def start_once_more(self) -> None:
        """A start that finds nothing new changes nothing."""
        before = self.settled_rows()
        async with room_in(self.world, self.data_dir, rpc_url=self.rpc.url) as room:
            await room.ready()
            manager = room.settlement._manager
            assert manager is not None
            await asyncio.wait_for(manager.wait_recovered(), scaled(20))
        assert self.settled_rows() == before

    def settled_rows(self) -> list[list[tuple[Any, ...]]]:
        """What a start may not change; only that blocks become final goes on."""
        connection = apsw.Connection(str(self.path))
        try:
            return [connection.execute(query).fetchall() for query in SETTLED]
        finally:
            connection.close()


SETTLED = (
    "SELECT job, range_start, range_end, iif(state = 'final', 'confirmed', state), paid FROM claim",
    "SELECT nonce, iif(state = 'final', 'confirmed', state), hex(mined_hash), block_number FROM slot",
    "SELECT claim, slot, released FROM binding",
    "SELECT slot, number, hex(tx_hash) FROM attempt",
    "SELECT job_id, block_number, log_index, host_amount FROM payment",
    "SELECT job, start, count FROM token",
)


@pytest.fixture
async def anvils(start_anvil: Callable[..., Awaitable[Anvil]]) -> list[Anvil]:
    """Anvils whose blocks are safe after one more block, and final after two."""
    arguments = ["--slots-in-an-epoch", "1", "--balance", "10000000"]
    return [await start_anvil(arguments=arguments) for _ in range(LANES)]


async def hunt(anvils: list[Anvil], folder: Path, seed: int, played: Iterable[Combination]) -> int:
    """Play them, as many at a time as there are anvils; returns how many."""
    waiting = list(enumerate(played))
    count = len(waiting)

    async def lane(anvil: Anvil) -> None:
        while waiting:
            number, combination = waiting.pop(0)
            try:
                await play(anvil, folder / str(number), combination, random.Random(seed + number))
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"--seed {seed}: number {number}, {combination.name}: {error}") from error

    async with asyncio.TaskGroup() as group:
        for anvil in anvils:
            group.create_task(lane(anvil))
    return count


async def play(anvil: Anvil, data_dir: Path, combination: Combination, chance: random.Random) -> None:
    async with ChainClient(anvil.rpc_url) as client, Losing(anvil.rpc_url) as rpc:
        await client.request("evm_setAutomine", True)
        world = await build_world(anvil, client, jobs=2)
        await Life(world, rpc, data_dir, combination, chance).play()


@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda mishap: mishap.name)
async def test_no_kill_and_no_mishap_loses_or_doubles_a_token(
    anvils: list[Anvil], tmp_path: Path, mishap: Mishap, request: pytest.FixtureRequest
) -> None:
    await hunt(anvils, tmp_path, hunt_seed(request), combinations(mishap))


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda mishap: mishap.name)
async def test_the_same_twenty_times(
    anvils: list[Anvil], tmp_path: Path, mishap: Mishap, request: pytest.FixtureRequest
) -> None:
    played = await hunt(anvils, tmp_path, hunt_seed(request), combinations(mishap) * LONG)
    assert played == len(combinations(mishap)) * LONG


def test_every_step_meets_every_mishap_unless_it_is_said_why_not() -> None:
    steps = {f"K{number}" for number in range(1, 14)}
    assert {point.name.split(" ", 1)[0] for point in POINTS} == steps
    for mishap in MISHAPS:
        played = combinations(mishap)
        met = {one.point.name.split(" ", 1)[0] for one in played if one.at_boot is None}
        assert met == {step for step in steps if (step, mishap.name) not in LEFT_OUT}
        assert any(one.at_boot is not None for one in played), "K14 meets them all"
