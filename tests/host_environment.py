"""The settings of a product that serves the jobs of a demo world, as environment variables."""

from __future__ import annotations

from engine_support import small_model_path

from fabstir_desktop.devnet.demo import DemoWorld


def chain_environment(world: DemoWorld) -> dict[str, str]:
    """Where the world's claims go."""
    return {"RPC_URL": world.rpc_url, "CHAIN_ID": str(world.chain_id), "CONTRACT_PROOF_SYSTEM": world.contract}


def host_environment(world: DemoWorld, **more: str) -> dict[str, str]:
    """The same with the host's key and the small model; `more` goes on top."""
    return {
        **chain_environment(world),
        "HOST_PRIVATE_KEY": world.host_key,
        "MODEL_PATH": str(small_model_path()),
        **more,
    }
