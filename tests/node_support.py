"""A real node in the test's own process: real model, real socket, embedded chain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from chain_support import World
from engine_support import small_model_path
from limits import scaled
from pydantic import SecretStr

from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.node import HostNode
from fabstir_desktop.settings import Settings

READY_LIMIT_S = 90.0


async def until(condition: Callable[[], bool], limit_s: float = READY_LIMIT_S) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(scaled(limit_s)):
        while not condition():
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def real_node(world: World, data_dir: Path, **changes: Any) -> AsyncIterator[HostNode]:
    """A started node with the small model loaded and the world's chain and key."""
    demo = world.demo
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "rpc_url": (demo.rpc_url,),
        "chain_id": demo.chain_id,
        "contract_proof_system": demo.contract,
        "host_private_key": SecretStr(demo.host_key),
        "model_path": small_model_path(),
        "api_port": 0,
        "session_grace_seconds": 0.5,
        "settlement_poll_seconds": 0.2,
        **changes,
    }
    made = HostNode(Settings(**values))
    await made.start()
    try:
        await until(lambda: made.status.engine.state is EngineState.READY and made.status.chain.submitting)
        yield made
    finally:
        await made.stop()
