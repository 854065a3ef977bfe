"""The same HostNode on plain asyncio, without Qt: runs until SIGINT or SIGTERM, or serves one sample prompt and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fabstir_desktop.control import serve_control
from fabstir_desktop.demo import SAMPLE_MAX_TOKENS, SAMPLE_PROMPT, SAMPLE_SEED, Demo, start_demo
from fabstir_desktop.errors import EnvironmentFault, FabstirError
from fabstir_desktop.habits import Habits
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.views import JobView
from fabstir_desktop.logs import start_logging
from fabstir_desktop.node import HostNode
from fabstir_desktop.server.client import chat
from fabstir_desktop.settings import Settings, load_settings
from fabstir_desktop.tasks import LeavingExecutor

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 4.5
_READY_LIMIT_S = 180.0
_CONFIRM_LIMIT_S = 90.0
_POLL_S = 0.2
_MOST_PROMPTS = 4
_ETHER_DIGITS = 18


def run_headless(overrides: Mapping[str, Any], *, demo: bool, once: bool) -> int:
    """Run the node until it is told to stop; returns the exit code. Raises FabstirError when it cannot start."""
    return asyncio.run(_run(overrides, demo=demo, once=once))


async def _run(overrides: Mapping[str, Any], *, demo: bool, once: bool) -> int:
    asyncio.get_running_loop().set_default_executor(LeavingExecutor(thread_name_prefix="aside"))
    world = await start_demo(overrides, pick_port=once) if demo else None
    try:
        settings = load_settings(world.overrides if world else overrides)
        writer = start_logging(settings.log_path, settings.log_level)
        try:
            return await _serve(settings, overrides, world, once=once)
        finally:
            writer.stop()
    finally:
        if world is not None:
            await world.stop()


async def _serve(settings: Settings, overrides: Mapping[str, Any], world: Demo | None, *, once: bool) -> int:
    if settings.host_private_key is not None and world is None:
        log.warning("HOST_PRIVATE_KEY is read from the environment; the OS keyring is safer: fabstir-desktop key set")
    stopping = asyncio.Event()
    async with _running_node(settings, overrides, world, stopping) as node:
        if once and world is not None:
            return await _serve_sample(node, world, stopping)
        if world is not None:
            print(_invitation(node, world), flush=True)  # noqa: T201 - the demo's words for the person who started it
        await stopping.wait()
    return 0


@contextlib.asynccontextmanager
async def _running_node(
    settings: Settings, overrides: Mapping[str, Any], world: Demo | None, stopping: asyncio.Event
) -> AsyncIterator[HostNode]:
    """A started node with its control socket; both end gracefully, also when the start fails half-way."""
    node = HostNode(settings, overrides=overrides, demo=world is not None)
    node.on_quit = stopping.set
    _stop_on_signals(stopping)
    control, habits = None, Habits(node)
    try:
        await node.start()
        habits.start()
        control = await serve_control(node)
        if node.status.server.url is None:
            raise EnvironmentFault(node.status.server.detail)
        yield node
    finally:
        await habits.stop()
        if control is not None:
            await control.stop()
        await node.stop(STOP_TIMEOUT_S)


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, stopping.set)
        except NotImplementedError:  # Windows' loops have no signal handlers
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(stopping.set))


def _invitation(node: HostNode, world: Demo) -> str:
    url = node.status.server.url
    return (
        f"Demo host on {url}, chain {world.world.chain_id} at {world.world.rpc_url}, contract {world.world.contract}\n"
        f"Try it: {sys.executable} -m fabstir_desktop --data-dir {node.settings.data_dir} chat --job {world.job_id} 'Hello'\n"
        "Stop with Ctrl+C."
    )


async def _serve_sample(node: HostNode, world: Demo, stopping: asyncio.Event) -> int:
    """Serve one prompt through the real socket, wait until all of it is paid, print what happened."""
    sample = asyncio.ensure_future(_sample(node, world))
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({sample, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not sample.done():
        sample.cancel()
        await asyncio.wait({sample}, timeout=STOP_TIMEOUT_S)
        _say("interrupted before the sample was paid")
        return 1
    try:
        return sample.result()
    except FabstirError as error:
        _say(f"failed: {error}")
        return 1


async def _sample(node: HostNode, world: Demo) -> int:
    await _wait_for(lambda: node.status.engine.state is EngineState.READY, _READY_LIMIT_S, "the model is loaded", node)
    await _wait_for(lambda: node.status.chain.submitting, _READY_LIMIT_S, "the chain is ready", node)
    model = node.status.engine.model
    _say(f"model {model.name if model else '?'}, job {world.job_id}, contract {world.world.contract}")
    _say(f"prompt: {SAMPLE_PROMPT}\nanswer:")
    tokens = await _ask_until_enough(node, world)
    job = await _wait_until_paid(node, world.job_id, tokens)
    return await _report(node, job, tokens)


async def _ask_until_enough(node: HostNode, world: Demo) -> int:
    """Stream the answer to the sample prompt, again if it was a short one: the sample shows at least two checkpoints."""
    tokens, asked = 0, 0
    while tokens <= 2 * node.settings.checkpoint_threshold and asked < _MOST_PROMPTS:
        started = time.monotonic()
        result = await chat(
            node.status.server.url or "",
            job_id=world.job_id,
            session_id="demo-session-001",
            prompt=SAMPLE_PROMPT,
            max_tokens=SAMPLE_MAX_TOKENS,
            seed=SAMPLE_SEED + asked,
            on_text=lambda text: print(text, end="", flush=True),  # noqa: T201 - the demo's output
        )
        asked += 1
        tokens += result.tokens_used
        _say(f"\n\n{result.tokens_used} tokens ({result.finish_reason}) in {time.monotonic() - started:.1f} s")
    return tokens


async def _wait_until_paid(node: HostNode, job_id: int, tokens: int) -> JobView:
    limit = time.monotonic() + _CONFIRM_LIMIT_S
    while time.monotonic() < limit:
        job = next((view for view in await node.jobs() if view.job_id == job_id), None)
        if job is not None and job.generated >= tokens and job.settled >= job.generated:
            return job
        await asyncio.sleep(_POLL_S)
    problems = "; ".join(problem.message for problem in node.problems) or node.status.sentence
    raise EnvironmentFault(f"the checkpoints were not confirmed within {_CONFIRM_LIMIT_S:.0f} s: {problems}")


async def _report(node: HostNode, job: JobView, tokens: int) -> int:
    found = [view for view in await node.transactions() if view.state in {"confirmed", "final"}]
    transactions = [view for view in found if any(item.job_id == job.job_id for item in view.claims)]
    _say("checkpoints confirmed on chain:")
    for view in reversed(transactions):
        claimed = ", ".join(f"job {item.job_id}: {item.end - item.start} tokens" for item in view.claims)
        _say(f"  tx_hash {view.tx_hash}  block {view.block}  {claimed}")
    _say(f"tokens: generated {job.generated}, claimed {job.claimed}, proven {job.proven}, settled {job.settled}")
    earnings = await node.earnings()
    for amount in earnings.earned:
        _say(f"earnings: {ether(amount.amount)} {amount.token} to the host (as the contract paid)")
    for amount in earnings.treasury:
        _say(f"treasury: {ether(amount.amount)} {amount.token}")
    _say(f"gas paid: {ether(earnings.gas_wei)} ETH")
    _say(f"data kept in {node.settings.data_dir}")
    complete = job.generated == job.settled == tokens and len(transactions) >= 2 and bool(earnings.earned)
    return 0 if complete else 1


async def _wait_for(condition: Callable[[], bool], limit_s: float, what: str, node: HostNode) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > limit or node.status.engine.state is EngineState.FAILED:
            problems = "; ".join(problem.message for problem in node.problems) or node.status.sentence
            raise EnvironmentFault(f"gave up waiting until {what}: {problems}")
        await asyncio.sleep(_POLL_S)


def ether(wei: int) -> str:
    """Exact decimal text of an amount with 18 digits after the point, without trailing zeros."""
    whole, part = divmod(wei, 10**_ETHER_DIGITS)
    digits = f"{part:0{_ETHER_DIGITS}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)  # noqa: T201 - the demo's output
