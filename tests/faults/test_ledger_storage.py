"""A disk that is full, broken, tearing or without power under the ledger: it says so, loses nothing, and goes on when healed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from ledger_disk import FaultyDisk
from ledger_rules import check_file
from ledger_support import HOST, VENUE, attempt, fact, payment, plan
from limits import scaled

from fabstir_desktop.errors import LedgerError, LedgerRefused
from fabstir_desktop.jobs.claims import SlotState
from fabstir_desktop.ledger import committer
from fabstir_desktop.ledger.ledger import Ledger

# The library tells a second time of an error raised by a file system layer in Python, when its cursor goes away.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")

KINDS = ("full", "error", "torn", "unsynced")
JOBS = (1, 2)


class Host:
    """Uses a ledger as the application does; remembers what it acknowledged."""

    def __init__(self, path: Path, disk: FaultyDisk) -> None:
        self.path = path
        self.disk = disk
        self.ledger: Ledger | None = None
        self.acknowledged = dict.fromkeys(JOBS, 0)
        self.safe = dict.fromkeys(JOBS, 0)
        """What was acknowledged before the last durable write."""
        self.tried = dict.fromkeys(JOBS, 0)
        self.bound: set[bytes] = set()
        self.failures = 0

    async def work(self, *, gives_up: bool) -> None:
        """Open, count, claim, confirm, close; every failed step is done again after the disk was healed."""
        await self.step(self.open, gives_up=gives_up)
        assert self.ledger is not None
        for turn in range(4):
            await self.step(self.count, gives_up=gives_up)
            if turn % 2:
                for job in JOBS:
                    await self.step(lambda job=job: self.claim(job), gives_up=gives_up)  # type: ignore[misc]
        await self.step(self.settle, gives_up=gives_up)

    async def step(self, action: object, *, gives_up: bool) -> None:
        for _attempt in range(3):
            try:
                await action()  # type: ignore[operator]
            except LedgerError:
                self.failures += 1
                if gives_up:
                    raise
                self.disk.heal()
                if self.ledger is not None:
                    await self.recover()
            else:
                return
        raise AssertionError("the ledger does not work on a healed disk")

    async def recover(self) -> None:
        """Nobody writes, yet the ledger finds out by itself that the disk is healed."""
        assert self.ledger is not None
        async with asyncio.timeout(scaled(10)):
            while self.ledger.failure is not None:
                await asyncio.sleep(0.002)

    async def open(self) -> None:
        self.ledger = await Ledger.open(self.path, VENUE, vfs=self.disk.name)

    async def count(self) -> None:
        assert self.ledger is not None
        tickets = {job: await self.ledger.open_ticket(job, "s") for job in JOBS}
        for size in (1, 3, 2):
            for job in JOBS:
                self.tried[job] += size
            totals = await asyncio.gather(
                *(self.ledger.add_tokens(ticket, range(size)) for ticket in tickets.values()), return_exceptions=True
            )
            for job, total in zip(JOBS, totals, strict=True):
                if isinstance(total, int):
                    assert total > self.acknowledged[job]
                    self.acknowledged[job] = total
            for total in totals:
                if isinstance(total, BaseException):
                    raise total
        for ticket in tickets.values():
            await self.ledger.close_ticket(ticket, "stop")

    async def claim(self, job: int) -> None:
        """Plan and bind what is unclaimed; what a failed try may have left is read back first."""
        assert self.ledger is not None
        before = dict(self.acknowledged)
        account = await self.ledger.account(job)
        assert account is not None
        if account.claimable and not account.open_claims:
            await plan(self.ledger, job, account.next_start, account.next_start + account.claimable)
        for claim in await self.ledger.claims(job_id=job):
            if claim.state != "planned":
                continue
            nonce = await self.ledger.next_nonce(HOST) or 0
            sent = attempt(job, nonce, self.failures)
            await self.ledger.bind([claim.claim_id], sender=HOST, nonce=nonce, attempt=sent)
            self.bound.add(sent.tx_hash)
            self.safe = before

    async def settle(self) -> None:
        assert self.ledger is not None
        for slot in await self.ledger.slots(HOST, [SlotState.OPEN]):
            await self.ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        for slot in await self.ledger.slots(HOST, [SlotState.INCLUDED]):
            await self.ledger.mark_confirmed(slot.slot_id)
        slots = await self.ledger.slots(HOST, [SlotState.CONFIRMED])
        paid = [payment((await self.ledger.claim(slot.claim_ids[0])).job_id, slot.attempts[0], 5) for slot in slots]
        await self.ledger.record_payments(paid, cursor_block=5, cursor_hash=b"")

    async def close(self) -> None:
        if self.ledger is not None:
            await self.ledger.close()


async def operations_of_a_run(folder: Path) -> int:
    disk = FaultyDisk()
    host = Host(folder / "ledger.db", disk)
    await host.work(gives_up=True)
    await host.close()
    return disk.operations


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small logs and short waits, so that each run meets checkpoints, syncs and retries."""
    monkeypatch.setattr(committer, "RETRY_S", 0.005)
    monkeypatch.setattr(committer, "SYNC_AFTER_S", 0.002)
    monkeypatch.setattr(committer, "CHECKPOINT_PAGES", 15)


async def meet_fault(folder: Path, kind: str, at: int, *, lasting: bool) -> int:
    """One run with one fault; returns how often it was met."""
    folder.mkdir()
    disk = FaultyDisk()
    host = Host(folder / "ledger.db", disk)
    disk.arm(kind, at, lasting=lasting)
    await host.work(gives_up=False)
    disk.heal()
    accounts = {account.job_id: account.generated for account in [await host.ledger.account(job) for job in JOBS]}  # type: ignore[union-attr]
    await host.close()
    generated = check_file(host.path)
    assert generated == accounts
    for job in JOBS:
        assert host.acknowledged[job] <= generated[job] <= host.tried[job]
    shutil.rmtree(folder)
    return disk.hits


async def sweep(tmp_path: Path, points: int, seed: int) -> Counter[str]:
    (tmp_path / "count").mkdir()
    operations = await operations_of_a_run(tmp_path / "count")
    chance = random.Random(seed)
    hits: Counter[str] = Counter()
    for number in range(points):
        kind = KINDS[number % len(KINDS)]
        at = (
            1 + (number // len(KINDS)) % operations
            if points >= operations * len(KINDS)
            else chance.randint(1, operations)
        )
        met = await meet_fault(tmp_path / str(number), kind, at, lasting=chance.random() < 0.5)
        hits[kind] += bool(met)
    return hits


@pytest.mark.timeout(150)
async def test_a_faulty_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    hits = await sweep(tmp_path, 500, seed)
    assert all(hits[kind] > 50 for kind in KINDS), hits


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_a_faulty_disk_loses_nothing_at_ten_thousand_points(tmp_path: Path) -> None:
    hits = await sweep(tmp_path, 10_000, random.randrange(2**32))
    assert all(hits[kind] > 1_000 for kind in KINDS), hits


async def lose_power(folder: Path, at: int, chance: random.Random) -> bool:
    """Stop the machine at an operation; what the medium then holds must open and hold all that was durable."""
    (folder / "image").mkdir(parents=True)
    disk = FaultyDisk()
    host = Host(folder / "ledger.db", disk)
    disk.arm("crash", at, lasting=True)
    with contextlib.suppress(LedgerError):
        await host.work(gives_up=True)
    disk.image_after_power_loss(folder / "image", chance)
    await host.close()
    path = folder / "image" / "ledger.db"
    if path.exists():
        async with asyncio.timeout(scaled(20)):
            await (await Ledger.open(path, VENUE)).close()
        generated = check_file(path)
        for job in JOBS:
            assert host.safe[job] <= generated.get(job, 0) <= host.tried[job], (
                "tokens below a durable claim are durable"
            )
        async with asyncio.timeout(scaled(20)):
            ledger = await Ledger.open(path, VENUE)
            hashes = {sent.tx_hash for slot in await ledger.slots(HOST) for sent in slot.attempts}
            await ledger.close()
        assert host.bound <= hashes, "a signed transaction may have been sent: it must not be lost"
    shutil.rmtree(folder)
    return disk.hits > 0 and bool(host.bound)


@pytest.mark.timeout(150)
async def test_a_loss_of_power_keeps_every_durable_claim_and_the_tokens_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    (tmp_path / "count").mkdir()
    operations = await operations_of_a_run(tmp_path / "count")
    hits = 0
    for number in range(100):
        monkeypatch.setattr(committer, "CHECKPOINT_PAGES", chance.choice((15, 60, 1000)))
        hits += await lose_power(tmp_path / str(number), chance.randint(1, operations), chance)
    assert hits > 20


async def test_the_negative_control_a_ledger_that_never_syncs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hunt above must notice a ledger whose claims are not durable."""
    chance = random.Random(7)
    (tmp_path / "count").mkdir()
    operations = await operations_of_a_run(tmp_path / "count")
    monkeypatch.setattr(committer, "CHECKPOINT_PAGES", 1000)
    monkeypatch.setattr(committer.Committer, "_is_full", lambda *_args: False)
    caught = 0
    for number in range(50):
        try:
            await lose_power(tmp_path / str(number), chance.randint(1, operations), chance)
        except AssertionError as error:
            caught += "must not be lost" in str(error) or "are durable" in str(error)
    assert caught > 5


async def test_a_refusal_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path / "ledger.db", VENUE)
    with pytest.raises(LedgerRefused):
        await ledger.claim(1)
    with pytest.raises(LedgerRefused):
        await plan(ledger, 1, 0, 5)
    assert ledger.failure is None
    await ledger.close()
