"""A worker that hangs costs the prompt it hangs on; what runs beside goes on until it is ended, and is not blamed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from engine_support import Answer, ask, collect, model_with_template, ready_engine, wait_until
from limits import scaled

from fabstir_desktop.errors import InvalidGenerationRequest, WorkerCrashed
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference import wire
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.options import EngineLimits, EngineOptions
from fabstir_desktop.inference.streams import RequestStream
from fabstir_desktop.inference.watchdog import Watchdog, running
from fabstir_desktop.jobs.events import EngineChanged
from fabstir_desktop.jobs.generation import EngineState

HANGS = (
    "{% if 'HANG' in messages[0].content %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
    "{% endfor %}{% endif %}{{ messages[0].content }}"
)
LIMITS = EngineLimits(prefill_stall_s=3.0, decode_stall_s=30.0, tick_s=0.1, restart_delays_s=(0.0,))


async def hanging_engine(folder: Path) -> EngineClient:
    """An engine whose template never ends for a prompt with HANG in it."""
    path = model_with_template(folder, HANGS)
    engine = EngineClient(EngineOptions(path, context_window=2048, threads=2, parallel=4, limits=LIMITS), Feed())
    await engine.start()
    await wait_until(lambda: engine.status.state is EngineState.READY, 60, "the model")
    return engine


async def test_a_prompt_that_hangs_the_tokeniser_beside_a_running_stream_is_found_and_alone_to_blame(
    tmp_path: Path,
) -> None:
    engine = await hanging_engine(tmp_path)
    details: list[str] = []
    engine._feed.subscribe(EngineChanged, lambda event: details.append(event.status.detail))
    try:
        running_answer = Answer()
        beside = asyncio.create_task(collect(engine, ask("Count to a million.", 1900), running_answer))
        await wait_until(lambda: len(running_answer.token_ids) >= 3)
        hanging = asyncio.create_task(collect(engine, ask("HANG", 3)))
        behind = asyncio.create_task(collect(engine, ask("Say hello.", 3)))
        made = len(running_answer.token_ids)
        results = await asyncio.wait_for(asyncio.gather(hanging, behind, beside, return_exceptions=True), scaled(60))
        assert [type(result) for result in results[:2]] == [WorkerCrashed] * 2
        assert len(running_answer.token_ids) > made, "the tokens beside went on"
        assert any("was not tokenised" in detail for detail in details)
        with pytest.raises(InvalidGenerationRequest, match="not tried again"):
            await collect(engine, ask("HANG", 3))
        for innocent in ("Say hello.", "Count to a million."):
            assert len((await collect(engine, ask(innocent, 3))).token_ids) == 3
    finally:
        await engine.stop()


async def test_a_short_prompt_does_not_wait_for_a_long_one_that_hangs(tmp_path: Path) -> None:
    engine = await hanging_engine(tmp_path)
    try:
        hanging = asyncio.create_task(collect(engine, ask("HANG" + " long" * wire.LONG_PROMPT_CHARACTERS, 3)))
        await asyncio.sleep(0)
        assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
    finally:
        await engine.stop()


async def test_a_prompt_cancelled_while_it_waits_behind_a_hanging_one_ends_at_once(tmp_path: Path) -> None:
    engine = await hanging_engine(tmp_path)
    try:
        hanging = asyncio.create_task(collect(engine, ask("HANG", 3)))
        await asyncio.sleep(0)
        request = ask("Say hello.", 3)
        behind = asyncio.create_task(collect(engine, request))
        await asyncio.sleep(0)
        engine.cancel(request.request_id)
        assert (await asyncio.wait_for(behind, scaled(2.5))).finish_reason == "cancelled"
        assert not hanging.done()
        await asyncio.gather(hanging, return_exceptions=True)
    finally:
        await engine.stop()


async def test_a_worker_that_stops_while_it_reads_a_prompt_is_ended_and_the_prompt_is_quarantined() -> None:
    limits = EngineLimits(prefill_stall_s=1.0, decode_stall_s=1000.0, tick_s=0.1, restart_delays_s=(0.0,))
    engine = await ready_engine(parallel=2, limits=limits, context_window=8192)
    try:
        prompt = "some words " * 3500
        accepted = asyncio.Event()

        async def read() -> None:
            async for _ in engine.generate(ask(prompt, 3)):
                accepted.set()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(accepted.wait(), scaled(30))
        pid = engine.status.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(WorkerCrashed):
            await asyncio.wait_for(reading, scaled(30))
        with pytest.raises(InvalidGenerationRequest, match="not tried again"):
            await collect(engine, ask(prompt, 3))
        assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3
    finally:
        await engine.stop()


# --- the watchdog's judgement ------------------------------------------------------------------------------------------


def stream(number: int, *, is_prepared: bool = True, has_token: bool = True, is_long: bool = False) -> RequestStream:
    made = RequestStream(ask(f"prompt {number}"), bytes([number]) * 32, 1)
    made.number, made.is_prepared, made.is_long = number, is_prepared, is_long
    made.first_token_made = has_token and is_prepared
    return made


def test_running_is_what_is_in_the_batch_and_the_first_of_each_lane() -> None:
    streams = [
        stream(1),
        stream(2, is_prepared=False),
        stream(3, is_prepared=False, is_long=True),
        stream(4, is_prepared=False),
        stream(5, is_prepared=False, is_long=True),
    ]
    assert [found.number for found in running(streams)] == [1, 2, 3]


def test_a_stream_that_gets_no_token_beside_others_that_do_is_found() -> None:
    watchdog = Watchdog(EngineLimits())
    busy, starved = stream(1), stream(2)
    for _ in range(29):
        busy.add(1, "x")
        assert watchdog.tick([busy, starved], 0.0, is_reading=False) is None
    busy.add(1, "x")
    verdict = watchdog.tick([busy, starved], 0.0, is_reading=False)
    assert verdict is not None
    assert verdict.culprits == (starved,)
    assert "30 s" in verdict.why


def test_a_stream_whose_reader_is_behind_or_whose_prompt_is_read_is_owed_nothing() -> None:
    watchdog = Watchdog(EngineLimits())
    held, reading = stream(1), stream(2, has_token=False)
    held.held = True
    assert all(watchdog.tick([held, reading], 0.0, is_reading=True) is None for _ in range(1000))


def test_silence_of_all_is_blamed_on_all_that_ran_and_on_none_that_waited() -> None:
    watchdog = Watchdog(EngineLimits())
    streams = [stream(1), stream(2, is_prepared=False), stream(3, is_prepared=False)]
    assert watchdog.tick(streams, 119.0, is_reading=False) is None
    verdict = watchdog.tick(streams, 120.0, is_reading=False)
    assert verdict is not None
    assert [culprit.number for culprit in verdict.culprits] == [1, 2]
