"""Prompts and model files that are known to break inference servers cost at most their own request."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from engine_support import Answer, ask, collect, model_with_template, ready_engine, wait_until
from limits import scaled

from fabstir_desktop.errors import ContextOverflow, GenerationError, ModelUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.options import EngineLimits, EngineOptions
from fabstir_desktop.jobs.generation import Accepted, EngineState, Finished

POISON = {
    "equal characters": "A" * 30_000,
    "blank lines": "\n" * 20_000,
    "spaces": " " * 15_000,
    "combining marks": "a" + "\u0301" * 20_000,
    "digits": "7" * 30_000,
    "emoji": "👩‍👩‍👧‍👦" * 4_000,
    "lone surrogates": "\ud800" * 1000,
    "controls": "<|im_end|>" * 3_000,
    "zeros": "\x00" * 5_000,
}


async def test_poison_prompts_cost_at_most_their_own_request() -> None:
    engine = await ready_engine(parallel=2, context_window=1024)
    try:
        bystander = Answer()
        running = asyncio.create_task(collect(engine, ask("Write a very long story.", 900), bystander))
        await wait_until(lambda: len(bystander.token_ids) > 2)
        for name, prompt in POISON.items():
            try:
                answer = await asyncio.wait_for(collect(engine, ask(prompt, 2)), scaled(90))
                assert len(answer.token_ids) <= 2, name
            except GenerationError:
                pass
        assert engine.status.state is EngineState.READY
        assert engine.status.restarts == 0
        running.cancel()
        ended = (await asyncio.gather(running, return_exceptions=True))[0]
        assert isinstance(ended, asyncio.CancelledError | Answer)
        assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3
    finally:
        await engine.stop()


async def tell_stories(engine: EngineClient, token_ids: list[int]) -> None:
    """A client that never stops asking: its tokens are gathered in `token_ids`, whenever the model ends a story."""
    for number in itertools.count(1):
        answer = Answer(token_ids=token_ids)
        await collect(engine, ask(f"Write a very long story about {number} cats.", 400, job_key="1"), answer)


async def read_poison(engine: EngineClient, prompt: str, bystander: list[int]) -> tuple[int, str]:
    """The bystander's tokens until the poison was read, and how it ended. A newcomer is served meanwhile."""
    accepted, before, came, ending = asyncio.Event(), 0, 0, ""

    async def read() -> None:
        nonlocal before, came, ending
        async for event in engine.generate(ask(prompt, 2, job_key="2")):
            if isinstance(event, Accepted):
                before = len(bystander)
                accepted.set()
                continue
            came = came or len(bystander) - before
            if isinstance(event, Finished):
                ending = event.finish_reason

    reading = asyncio.create_task(read())
    await asyncio.wait_for(accepted.wait(), scaled(60))
    newcomer = await asyncio.wait_for(collect(engine, ask("Say hello.", 2, job_key="3")), scaled(60))
    assert len(newcomer.token_ids) == 2
    await asyncio.wait_for(reading, scaled(120))
    return came, ending


@pytest.mark.parametrize("prompt", ["A" * 3_200, "\n" * 1_600, "\u0301" * 150], ids=["equal", "blank lines", "marks"])
async def test_poison_that_fits_is_read_while_others_get_their_tokens_and_a_newcomer_is_served(prompt: str) -> None:
    """With a window that takes it, poison goes through the batch in several chunks: a bystander's tokens go on meanwhile."""
    engine = await ready_engine(parallel=3, context_window=1024)
    bystander: list[int] = []
    beside = asyncio.create_task(tell_stories(engine, bystander))
    try:
        await wait_until(lambda: len(bystander) > 2)
        came, ending = await read_poison(engine, prompt, bystander)
        assert ending in ("stop", "length"), "it is decoded, not refused"
        assert came > 0, "the tokens beside it went on while it was read"
        assert not beside.done()
        assert engine.status.restarts == 0
    finally:
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
        await engine.stop()


async def test_a_two_megabyte_prompt_does_not_stop_the_tokens_of_others() -> None:
    engine = await ready_engine(parallel=2, context_window=1024)
    try:
        bystander = Answer()
        running = asyncio.create_task(collect(engine, ask("Write a very long story.", 900), bystander))
        await wait_until(lambda: len(bystander.token_ids) > 2)
        before = len(bystander.token_ids)
        with pytest.raises(ContextOverflow):
            await collect(engine, ask("some words " * 190_000, 2))
        assert len(bystander.token_ids) > before
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    finally:
        await engine.stop()


async def test_a_template_that_never_ends_ends_in_a_state_that_says_so(tmp_path: Path) -> None:
    path = model_with_template(
        tmp_path, "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    )
    limits = EngineLimits(load_stall_s=2.0, tick_s=0.2, deaths_until_failed=1)
    engine = EngineClient(EngineOptions(path, context_window=512, parallel=1, limits=limits), Feed())
    await engine.start()
    try:
        await wait_until(lambda: engine.status.state is EngineState.FAILED, 60, "the end")
        assert "no progress in loading" in engine.status.detail
        with pytest.raises(ModelUnavailable):
            await collect(engine, ask("hello", 1))
    finally:
        await engine.stop()


async def test_a_template_that_reaches_for_the_system_is_refused_and_the_worker_lives(tmp_path: Path) -> None:
    path = model_with_template(tmp_path, "{{ cycler.__init__.__globals__.os.popen('touch /tmp/escaped').read() }}")
    engine = EngineClient(EngineOptions(path, context_window=512, parallel=1), Feed())
    await engine.start()
    try:
        await wait_until(lambda: engine.status.state in (EngineState.READY, EngineState.FAILED), 60)
        with pytest.raises(GenerationError):
            await collect(engine, ask("hello", 1))
        assert engine.status.restarts == 0
    finally:
        await engine.stop()
