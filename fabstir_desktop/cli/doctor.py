"""`doctor`: a line for each thing that payment depends on, with what to do about what is wrong."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabstir_desktop.errors import GenerationError, LedgerError, ModelFileError, ModelUnavailable
from fabstir_desktop.inference.factory import describe_server
from fabstir_desktop.inference.machine import machine_has_gpu
from fabstir_desktop.inference.model_files import inspect_model
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.problems import Severity
from fabstir_desktop.jobs.status import WalletState
from fabstir_desktop.ledger.ledger import read_views
from fabstir_desktop.server.control import call_running
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.chain import RpcEndpoint
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts import make_contract
from fabstir_desktop.settlement.diagnosis import check_chain, check_claim
from fabstir_desktop.settlement.rpc_pool import RpcPool
from fabstir_desktop.wallet.signer import Signer
from fabstir_desktop.wallet.wallet import Wallet

_ASK_LIMIT_S = 5.0
_ANSWER_LIMIT_S = 60.0
_JOBS_TRIED = 5
_STOP_PAYMENT = frozenset({"C02", "C05", "T02"})
"""Warnings of the running app with which claims are not paid: no contact, contract paused, claims refused."""
_GPU_ACTION = "install a llama-cpp-python built for your GPU and look at its driver, or lower GPU_LAYERS"
_LOW_DISK_BYTES = 200 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. `passed` False means that it would stop payment; a note costs speed, not money."""

    name: str
    passed: bool
    detail: str
    action: str = ""
    is_note: bool = False

    def __str__(self) -> str:
        advice = f" -> {self.action}" if self.action and (self.is_note or not self.passed) else ""
        mark = "FAILED" if not self.passed else "note  " if self.is_note else "ok    "
        return f"{mark}  {self.name}: {self.detail}{advice}"


async def run_doctor(settings: Settings) -> int:
    """Print the findings; returns 1 if anything would stop payment, else 0."""
    running = await call_running(settings.data_dir, "status", {}, timeout_s=_ASK_LIMIT_S)
    wallet = Wallet(settings.data_dir, environment_key=settings.host_private_key)
    try:
        key, signer = await _check_key(wallet, settings, running)
        lines = [key, await _check_engine(settings), *_check_gpu(settings, running)]
        lines += await _check_payment(settings, signer, key)
        lines += [
            _check_port(settings, running["server"]["url"] if running else None),
            await asyncio.to_thread(_check_disk, settings.data_dir),
        ]
    finally:
        wallet.close()
    for line in lines:
        print(line)
    found = [problem for problem in running["problems"] if running["state"] != "stopped"] if running else []
    for problem in found:
        told = f"{problem['code']}: {problem['message']} -> {problem['action']}"
        print(f"{'FAILED' if _stops_payment(problem) else 'note  '}  running app: {told}")
    failed = any(not line.passed for line in lines) or any(_stops_payment(problem) for problem in found)
    return 1 if failed else 0


def _stops_payment(problem: Mapping[str, Any]) -> bool:
    return problem["severity"] == Severity.ERROR or problem["code"] in _STOP_PAYMENT


async def _check_key(
    wallet: Wallet, settings: Settings, running: Mapping[str, Any] | None
) -> tuple[Line, Signer | None]:
    """The key as this command finds it; the running app may have been given another place to look (its environment)."""
    status = await wallet.load()
    if status.state is WalletState.READY:
        signer = wallet.signer(settings.chain_id, frozenset({settings.contract_address}))
        return Line("key", True, f"{status.address} ({status.location})"), signer
    theirs = running["wallet"] if running else None
    if theirs is not None and theirs["state"] == WalletState.READY:
        return Line("key", True, f"{theirs['address']}, in the running app ({theirs['location']})"), None
    return Line("key", False, status.detail, status.action), None


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


def _check_gpu(settings: Settings, running: Mapping[str, Any] | None) -> list[Line]:
    """Where layers were asked for on the GPU: whether they are there. What is automatic is told by the running app alone."""
    wanted, name = settings.gpu_layers, "GPU"
    if settings.engine_url or wanted == 0:
        return []
    engine = running["engine"] if running else {}
    model = engine.get("model")
    if model:
        there = f"{model['gpu_layers']} of {model['layer_count']} layers are on it"
        is_short = wanted is not None and model["gpu_layers"] < min(wanted, model["layer_count"])
        if is_short:
            return [Line(name, True, f"{wanted} layers are wanted, {there}", _GPU_ACTION, is_note=True)]
        return [Line(name, True, there)] if model["gpu_layers"] else []
    if wanted is None:
        return []
    if not machine_has_gpu():
        told = f"{wanted} layers are wanted, but no GPU is found on this machine: all would run on the CPU"
        return [Line(name, True, told, _GPU_ACTION, is_note=True)]
    return [Line(name, True, f"one is there; whether {wanted} layers fit is seen when the model is loaded")]


async def _check_payment(settings: Settings, signer: Signer | None, key: Line) -> list[Line]:
    """Chain, contract, gas money, and whether the contract would take a claim of each job that has something to claim."""
    venue = Venue(settings.chain_id, settings.contract_address, settings.settlement_contract)
    pool = RpcPool([RpcEndpoint(url) for url in settings.rpc_url], settings.chain_id)
    try:
        client = ChainClient(pool)
        contract = make_contract(venue, client)
        checks = await check_chain(client, contract, venue, signer)
        if signer is not None and all(check.passed for check in checks):
            for job_id in await _jobs_to_claim(settings, venue):
                checks.append(await check_claim(contract, signer, job_id))
    finally:
        await pool.close()
    lines = [Line(check.name, check.passed, check.detail, check.action) for check in checks]
    if signer is None:
        told = "the running app looks after it" if key.passed else "it is not known without a key"
        lines.append(Line("gas money", key.passed, told, key.action))
    return lines


async def _jobs_to_claim(settings: Settings, venue: Venue) -> list[int]:
    """Jobs with unclaimed tokens, most recently changed first, a few of them."""
    if not settings.ledger_path.exists():
        return []
    try:
        ledger = await read_views(settings.ledger_path, venue)
    except LedgerError:
        return []  # it knows no job of this contract yet
    try:
        return [view.job_id for view in await ledger.job_views() if view.unclaimed > 0][:_JOBS_TRIED]
    finally:
        await ledger.close()


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
