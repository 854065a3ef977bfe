"""An embedded chain with the contracts deployed, for --demo and tests.

    async with EmbeddedChain.start(block_time_s=1.0) as chain:
        world = await deploy_demo(chain)        # from fabstir_desktop.devnet.demo

The chain runs in a child process of its own and speaks JSON-RPC over HTTP, as any node does. This package imports
nothing heavy by itself: py-evm is loaded by the child, the rest where it is used.
"""

from __future__ import annotations

from fabstir_desktop.devnet.chain import EmbeddedChain, EmbeddedChainError

__all__ = ["EmbeddedChain", "EmbeddedChainError"]
