"""An old backup is restored, or a second machine has the key: what the chain paid before is never claimed again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain_support import World
from settlement_support import Room, make_signer, room_in

from fabstir_desktop.settlement.recovery import Recovery

SOON_S = 15.0


def slow_recovery(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Recovery begins only when the returned function is called: as with a thousand jobs and a slow RPC."""
    may_begin = asyncio.Event()
    original = Recovery.run

    async def run(self: Recovery, *more: Any) -> None:
        await may_begin.wait()
        await original(self, *more)

    monkeypatch.setattr(Recovery, "run", run)
    return may_begin.set


async def backup_of(world: World, folder: Path, job_id: int, *, before: int, after: int) -> Path:
    """A copy of the data folder with `before` tokens of the job; `after` more were made and all were claimed since."""
    live, backup = folder / "live", folder / "backup"
    async with room_in(world, live, with_key=False) as room:
        await room.generate(job_id, before, step=10)
    shutil.copytree(live, backup)
    async with room_in(world, live, with_key=False) as room:
        await room.generate(job_id, after, step=10)
    async with room_in(world, live) as room:
        await room.settled(job_id)
    return backup


async def quiet(room: Room, job_id: int) -> None:
    """Nothing of the job is unclaimed, or on its way."""
    await room.reach(lambda view: view.unclaimed == 0 and view.claimed == view.settled, job_id, SOON_S)


async def test_claim_now_waits_until_the_ledger_was_compared_with_the_chain(
    embedded_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = embedded_world
    backup = await backup_of(world, tmp_path, world.job_id, before=80, after=70)
    begin = slow_recovery(monkeypatch)
    async with room_in(world, backup) as room:
        await room.ready()
        forced = asyncio.create_task(room.settlement.checkpoint(world.job_id))
        done, _ = await asyncio.wait({forced}, timeout=1.0)
        assert not done
        assert (await room.view(world.job_id)).claimed == 0
        begin()
        (outcome,) = await forced
        assert not outcome.submitted
        await quiet(room, world.job_id)
        view = await room.view(world.job_id)
        assert (view.generated, view.settled) == (150, 150), "what was found on chain counts once"
    assert await world.tokens_paid() == 150


async def test_claim_now_says_that_the_comparison_is_not_over(
    embedded_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = embedded_world
    slow_recovery(monkeypatch)
    monkeypatch.setattr("fabstir_desktop.settlement.checkpoint_manager.FORCE_LIMIT_S", 0.2)
    async with room_in(world, tmp_path, with_key=False) as room:
        await room.ready()
        await room.generate(world.job_id, 50, step=50)
        await room.settlement.set_signer(make_signer(world.host_key, world.chain_id, world.contract))
        (outcome,) = await room.settlement.checkpoint(world.job_id)
        assert not outcome.submitted
        assert "compared with the chain" in outcome.why
        await room.die()
