"""Looking closely at parts of the node: model files, a job on chain, the self-test's prompt, the diagnostic bundle."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fabstir_desktop.errors import ChainError, FabstirError, GenerationError, ModelFileError
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.model_files import ModelFile, automatic_window, estimate_fit, inspect_model, list_models
from fabstir_desktop.inference.options import EngineOptions
from fabstir_desktop.jobs.checks import Check
from fabstir_desktop.jobs.generation import EngineState, GenerationRequest, Message, SamplingParameters
from fabstir_desktop.jobs.inspections import BundleText, ChainJob, ModelOnDisk
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.server.api_server import ApiServer
from fabstir_desktop.settings import SECRETS, Settings
from fabstir_desktop.settlement.service import Settlement

_TEST_PROMPT = "Say in a few sentences what a lighthouse is for."
_TEST_TOKENS = 120
_URL = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s\"'<>,;)\]]+)", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\d.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
_CHAIN_LIMIT_S = 10.0
_TRIAL_POLL_S = 0.05
_SAMPLE = GenerationRequest("trial", (Message("user", "Say hello."),), 1, SamplingParameters())


async def find_models(folders: Sequence[Path], settings: Settings) -> list[ModelOnDisk]:
    """Read the headers of the model files in these folders, and in that of MODEL_PATH, and estimate whether each fits.

    Never raises for a file.
    """
    return await asyncio.to_thread(_find_models, folders, settings)


def _find_models(folders: Sequence[Path], settings: Settings) -> list[ModelOnDisk]:
    found: list[ModelOnDisk] = []
    if settings.model_path is not None:  # a folder of models, or the one that the file lies in
        folders = [*folders, settings.model_path if settings.model_path.is_dir() else settings.model_path.parent]
    for folder in dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()):
        try:
            listed = list_models(folder)
        except ModelFileError as error:
            listed = [error]
        found.extend(_described(file, settings) for file in listed)
    return found


def _described(model: ModelFile | ModelFileError, settings: Settings) -> ModelOnDisk:
    if isinstance(model, ModelFileError):
        return ModelOnDisk(model.file_name or str(model).partition(" ")[0], str(model))
    streams = settings.max_parallel
    window = settings.context_window or automatic_window(model, streams)
    fit = estimate_fit(model, window, streams)
    detail = " ".join(part for part in (model.architecture, model.quantisation) if part)
    return ModelOnDisk(
        model.path.name,
        detail,
        model.path,
        model.size_bytes,
        fit.needed_bytes,
        fit.free_bytes,
        model.parameter_count,
        model.context_length or None,
        model.has_template,
    )


async def try_model(path: Path, settings: Settings) -> str:
    """Load the file in a process of its own, beside what is served, and make one token; a sentence about it.

    Raises ModelFileError if it cannot be used, or does not fit beside what runs: a machine without memory serves nobody.
    """
    model = await asyncio.to_thread(inspect_model, str(path))
    fit = await asyncio.to_thread(estimate_fit, model, settings.context_window or automatic_window(model, 1), 1)
    if fit.needed_bytes > fit.free_bytes:
        raise ModelFileError(
            f"{path.name} needs about {fit.needed_bytes / 1e9:.1f} GB, {fit.free_bytes / 1e9:.1f} GB are free beside what is "
            "served now"
        )
    # It hashes and blames nothing that is kept: only the model that is served does.
    options = replace(EngineOptions.from_settings(settings), model_path=path, parallel=1)
    engine = EngineClient(replace(options, hash_store=None, quarantine_store=None), Feed())
    began = time.monotonic()
    try:
        await engine.start()
        await _wait_until_loaded(engine, path)
        loaded_s = time.monotonic() - began
        async for _ in engine.generate(_SAMPLE):
            pass
    except GenerationError as error:
        raise ModelFileError(f"{path.name} loads, but does not answer: {error}") from error
    finally:
        await engine.stop()
    return f"{path.stem} loads in {loaded_s:.1f} s and answers; it is not served"


async def _wait_until_loaded(engine: EngineClient, path: Path) -> None:
    """Raises ModelFileError at the first failure: a trial is not repeated."""
    while (status := engine.status).state is not EngineState.READY:
        if status.state in {EngineState.FAILED, EngineState.RESTARTING} or status.restarts:
            raise ModelFileError(f"{path.name} does not load: {status.detail or 'its process ended'}")
        await asyncio.sleep(_TRIAL_POLL_S)


async def read_chain_job(settlement: Settlement, job_id: int) -> ChainJob:
    """Ask the contract how many tokens of the job it has paid for. Never raises: what is unknown says why."""
    tokens: int | None = None
    why = ""
    try:
        async with asyncio.timeout(_CHAIN_LIMIT_S):
            facts = await settlement.read_job(job_id)
    except (ChainError, TimeoutError) as error:
        why = str(error) or "the chain does not answer"
    else:
        if facts is None:
            why = "the contract does not tell"
        elif not facts.exists:
            why = "the contract does not know this job"
        else:
            tokens = facts.paid_tokens
    return ChainJob(job_id, tokens, why, time.time())


async def try_prompt(url: str | None, on_text: Callable[[str], None]) -> Check:
    """Stream one free prompt through the socket at `url` and count it."""
    from fabstir_desktop.server.client import chat  # noqa: PLC0415 - only for this

    name = "answer"
    if url is None:
        return Check(name, False, "the server does not listen", "see the problem about the port")
    session = f"self-test-{time.time_ns()}"
    try:
        result = await chat(
            url, job_id=None, session_id=session, prompt=_TEST_PROMPT, max_tokens=_TEST_TOKENS, on_text=on_text
        )
    except FabstirError as error:
        return Check(name, False, str(error), "choose a model, and allow prompts without a job on this machine")
    counted = f"{result.tokens_used} tokens streamed, {result.chunk_token_sum} counted by the client"
    return Check(name, 0 < result.tokens_used == result.chunk_token_sum, counted, "look at the log")


async def check_reach(public_url: str | None, server: ApiServer) -> Check:
    """Connect to the public address and see whether this very host answers there. Never raises."""
    name = "public address"
    if public_url is None:
        return Check(name, False, "no public address is set: customers have no way in", "set PUBLIC_URL in Settings")
    problem = await server.try_public_url(public_url)
    if problem is not None:
        return Check(name, False, problem.message, "check port forwarding, firewall, proxy and PUBLIC_URL")
    return Check(name, True, f"this host answers at {public_url}")


# --- the diagnostic bundle ------------------------------------------------------------------------------------------


async def collect_bundle(
    status: NodeStatus,
    problems: Sequence[Problem],
    settings: Settings,
    settlement: Settlement,
    log_lines: Sequence[str],
) -> list[BundleText]:
    """The texts of a diagnostic bundle. No ledger, proof, key, prompt or answer; URLs are cut to their host names."""
    try:
        async with asyncio.timeout(_CHAIN_LIMIT_S):
            checks = await settlement.diagnose()
    except TimeoutError:
        checks = []
    lines = [f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}" for check in checks]
    texts = {
        "version.txt": f"fabstir-desktop {status.version}\nPython {platform.python_version()}\n{platform.platform()}\n",
        "settings.json": _as_json(_plain_settings(settings)),
        "status.json": _as_json(msgspec.to_builtins(status)),
        "problems.json": _as_json([msgspec.to_builtins(problem) for problem in problems]),
        "checks.txt": "\n".join(lines or ["the chain did not answer in time"]) + "\n",
        "log.txt": "\n".join(log_lines) + "\n",
    }
    return await asyncio.to_thread(lambda: [_redacted(name, text) for name, text in texts.items()])


def redact(text: str, home: str | None = None) -> tuple[str, int]:
    """Cut URLs to scheme and host, and blank other machines' addresses and the home folder; returns how many places."""
    home = str(Path.home()) if home is None else home
    count = 0

    def host_only(match: re.Match[str]) -> str:
        nonlocal count
        cut = f"{match['scheme']}://{_host(match[0])}"
        count += cut != match[0]
        return cut

    text = _URL.sub(host_only, text)
    text, addresses = _IPV4.subn("[address]", text)
    homes = text.count(home) if len(home) > 1 else 0
    return (text.replace(home, "~") if homes else text), count + addresses + homes


def _redacted(name: str, text: str) -> BundleText:
    return BundleText(name, *redact(text))


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "[address]"
    return f"{parts.hostname or '[address]'}{port}"


def _plain_settings(settings: Settings) -> dict[str, Any]:
    """All settings but the keys; of the files only their names."""
    values = settings.model_dump(mode="json", exclude=set(SECRETS))
    for name, value in values.items():
        if isinstance(getattr(settings, name), Path) and name != "data_dir":
            values[name] = Path(value).name
    return values


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
