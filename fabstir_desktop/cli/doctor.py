"""`doctor`: a line for each thing that payment depends on, with what to do about what is wrong."""

from __future__ import annotations

import asyncio
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from fabstir_desktop.errors import GenerationError, ModelFileError, ModelUnavailable
from fabstir_desktop.inference.factory import describe_server
from fabstir_desktop.inference.model_files import inspect_model
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.status import WalletState
from fabstir_desktop.server.control import call_running
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.chain import RpcEndpoint
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts import make_contract
from fabstir_desktop.settlement.diagnosis import check_chain
from fabstir_desktop.settlement.rpc_pool import RpcPool
from fabstir_desktop.wallet.signer import Signer
from fabstir_desktop.wallet.wallet import Wallet

_ASK_LIMIT_S = 5.0
_ANSWER_LIMIT_S = 60.0
_LOW_DISK_BYTES = 200 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. `passed` False means that it would stop payment."""

    name: str
    passed: bool
    detail: str
    action: str = ""


async def run_doctor(settings: Settings) -> int:
    """Print the findings; returns 1 if anything would stop payment, else 0."""
    running = await call_running(settings.data_dir, "status", {}, timeout_s=_ASK_LIMIT_S)
    wallet = Wallet(settings.data_dir, environment_key=settings.host_private_key)
    try:
        key, signer = await _check_key(wallet, settings)
        lines = [key, await _check_engine(settings)]
        lines += await _check_chain(settings, signer)
        lines += [
            _check_port(settings, running["server"]["url"] if running else None),
            await asyncio.to_thread(_check_disk, settings.data_dir),
        ]
    finally:
        wallet.close()
    for line in lines:
        advice = f" -> {line.action}" if line.action and not line.passed else ""
        print(f"{'ok    ' if line.passed else 'FAILED'}  {line.name}: {line.detail}{advice}")
    for problem in running["problems"] if running else ():
        print(f"note    the running app says {problem['code']}: {problem['message']} -> {problem['action']}")
    return 0 if all(line.passed for line in lines) else 1


async def _check_key(wallet: Wallet, settings: Settings) -> tuple[Line, Signer | None]:
    status = await wallet.load()
    if status.state is not WalletState.READY:
        return Line("key", False, status.detail, status.action), None
    signer = wallet.signer(settings.chain_id, frozenset({settings.contract_address}))
    return Line("key", True, f"{status.address} ({status.location})"), signer


async def _check_engine(settings: Settings) -> Line:
    """The server elsewhere where one is set, else the model file."""
    if not settings.engine_url:
        return await asyncio.to_thread(_check_model, settings.model_path)
    try:
        served = await describe_server(settings, limit_s=_ANSWER_LIMIT_S)
    except ModelUnavailable as error:
        return Line(
            "model", False, str(error), "start that server, or correct ENGINE_URL, ENGINE_MODEL, ENGINE_API_KEY"
        )
    except GenerationError as error:
        return Line("model", False, str(error), "serve a chat model there that counts its tokens while it streams")
    return Line("model", True, served)


def _check_model(path: Path | None) -> Line:
    if path is None:
        return Line("model", False, "no model is chosen", "choose a GGUF file on the Models page, or set MODEL_PATH")
    try:
        model = inspect_model(path)
    except ModelFileError as error:
        return Line("model", False, str(error), "choose another file on the Models page, or correct MODEL_PATH")
    return Line("model", True, f"{model.name}, {model.quantisation}, {model.size_bytes / 1e6:.0f} MB")


async def _check_chain(settings: Settings, signer: Signer | None) -> list[Line]:
    venue = Venue(settings.chain_id, settings.contract_address, settings.settlement_contract)
    pool = RpcPool([RpcEndpoint(url) for url in settings.rpc_url], settings.chain_id)
    try:
        client = ChainClient(pool)
        checks = await check_chain(client, make_contract(venue, client), venue, signer)
    finally:
        await pool.close()
    return [Line(check.name, check.passed, check.detail, check.action) for check in checks]


def _check_port(settings: Settings, running_url: str | None) -> Line:
    where = f"{settings.api_host}:{settings.api_port}"
    if running_url is not None:
        return Line("port", True, f"the running app listens on {running_url}")
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.api_host, settings.api_port))
        except OSError as error:
            return Line(
                "port", False, f"{where} cannot be used: {error.strerror}", "free it, or choose another API_PORT"
            )
    return Line("port", True, f"{where} is free" if settings.api_port else "a free one is picked at start")


def _check_disk(data_dir: Path) -> Line:
    folder = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        probe = data_dir / ".doctor"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Line("disk", False, f"{data_dir} cannot be written: {error.strerror}", "choose another --data-dir")
    enough = free >= _LOW_DISK_BYTES
    return Line("disk", enough, f"{data_dir}, {free / 1e9:.1f} GB free", "" if enough else "free some space")
