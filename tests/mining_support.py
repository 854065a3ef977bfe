"""Anvils on which blocks are final soon, and blocks that go on coming."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from chain_support import Anvil, World, build_world

from fabstir_desktop.devnet.client import ChainClient

StartAnvil = Callable[..., Awaitable[Anvil]]


@contextlib.asynccontextmanager
async def soon_final_world(start_anvil: StartAnvil) -> AsyncIterator[World]:
    """A world on an anvil whose blocks are safe after one more block, and final after two."""
    anvil = await start_anvil(arguments=["--slots-in-an-epoch", "1"])
    async with ChainClient(anvil.rpc_url) as client:
        yield await build_world(anvil, client)


@contextlib.asynccontextmanager
async def mining(world: World) -> AsyncIterator[None]:
    """Blocks go on coming."""

    async def mine_on() -> None:
        while True:
            await world.mine()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(mine_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
