"""The streams of an engine elsewhere: never more than its limit, whatever is started, cancelled, closed or late, in any order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from engine_support import Answer, ask, collect, wait_until

from fabstir_desktop.errors import EngineBusy, GenerationError, ModelUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.openai_api import ServerAddress
from fabstir_desktop.inference.openai_dialects import Chunk, ServerFacts
from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.inference.remote import RemoteEngine
from fabstir_desktop.jobs.generation import EngineState, GenerationRequest


class Response:
    """A connection."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def close(self) -> None:
        self.closed.set()


class FakeApi:
    """Answers of as many tokens as asked for, one a turn of the loop. Knows how many run at once."""

    def __init__(self) -> None:
        self.running = 0
        self.peak = 0
        self.hold: asyncio.Event | None = None
        self.facts_to_give: Any = ServerFacts("played", 1000)

    async def facts(self) -> ServerFacts:
        if isinstance(self.facts_to_give, Exception):
            raise self.facts_to_give
        return self.facts_to_give

    async def prompt_ids(self, *_: object) -> tuple[int, ...]:
        await asyncio.sleep(0)
        return (1, 2)

    async def begin(self, request: GenerationRequest, *_: object) -> Response:
        await asyncio.sleep(0)
        response = Response()
        response.tokens = request.max_tokens
        return response

    async def chunks(self, response: Any) -> AsyncGenerator[Chunk, None]:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            for made in range(1, response.tokens + 1):
                await asyncio.sleep(0)
                while self.hold is not None and not self.hold.is_set() and not response.closed.is_set():
                    await asyncio.sleep(0)
                if response.closed.is_set():
                    return
                yield Chunk("x", (made,), True, made)
            yield Chunk(finish_reason="length")
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


async def engine_on(api: FakeApi, *, parallel: int = 2, **limits: Any) -> RemoteEngine:
    engine = RemoteEngine(
        ServerAddress.of("http://played"), Feed(), parallel=parallel, limits=EngineLimits(tick_s=0.001, **limits)
    )
    engine._api = api
    engine._make_api = lambda: api
    await engine.start()
    await wait_until(lambda: engine.status.state is EngineState.READY)
    return engine


async def test_cancelling_those_who_wait_lets_nobody_run_beyond_the_limit() -> None:
    api = FakeApi()
    api.hold = asyncio.Event()
    engine = await engine_on(api)
    requests = [ask("x", 20, job_key=f"job {n}") for n in range(20)]
    tasks = [asyncio.create_task(collect(engine, request)) for request in requests]
    await wait_until(lambda: engine.status.queued_requests == 18 and api.running == 2)
    for request in requests[2:8]:
        engine.cancel(request.request_id)
    await wait_until(lambda: sum(task.done() for task in tasks) == 6)
    assert (engine.status.active_streams, engine.status.queued_requests, api.running) == (2, 12, 2)
    api.hold.set()
    answers = await asyncio.gather(*tasks)
    assert [answer.finish_reason for answer in answers] == ["length"] * 2 + ["cancelled"] * 6 + ["length"] * 12
    assert all(len(answer.token_ids) == (0 if answer.finish_reason == "cancelled" else 20) for answer in answers)
    assert (engine.status.active_streams, api.running, api.peak) == (0, 0, 2)
    await engine.stop()


@pytest.mark.parametrize("seed", range(40))
async def test_any_order_of_starts_cancels_closes_and_delays_keeps_the_limit_and_ends_at_nothing(seed: int) -> None:
    numbers, api = random.Random(seed), FakeApi()
    parallel = numbers.randint(1, 3)
    engine = await engine_on(api, parallel=parallel, queue_length=8, queue_timeout_s=0.02)
    tasks: dict[asyncio.Task[Answer], str] = {}
    for _ in range(150):
        match numbers.randrange(6):
            case 0 | 1 | 2:
                request = ask("x", numbers.randint(1, 12), job_key=f"job {numbers.randrange(4)}")
                tasks[asyncio.create_task(collect(engine, request))] = request.request_id
            case 3:
                for name in numbers.sample(list(tasks.values()), min(len(tasks), 3)):
                    engine.cancel(name)
            case 4:
                for task in numbers.sample(list(tasks), min(len(tasks), 2)):
                    task.cancel()
            case 5:
                await asyncio.sleep(numbers.choice([0, 0, 0.001]))
        await asyncio.sleep(0)
        assert engine.status.active_streams <= parallel
        assert api.running <= parallel
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    for outcome in ended:
        assert isinstance(outcome, Answer | EngineBusy | asyncio.CancelledError), outcome
    assert engine.status.active_streams == engine.status.queued_requests == api.running == 0
    assert len((await collect(engine, ask("x", 3))).token_ids) == 3
    await engine.stop()


async def test_a_stop_ends_those_who_run_and_those_who_wait_alike() -> None:
    api = FakeApi()
    api.hold = asyncio.Event()
    engine = await engine_on(api)
    tasks = [asyncio.create_task(collect(engine, ask("x", 20, job_key=f"job {n}"))) for n in range(5)]
    await wait_until(lambda: api.running == 2)
    await engine.stop()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, ModelUnavailable)
        assert str(outcome) == "the engine stops"
    assert engine.status.active_streams == api.running == 0


async def test_whatever_asking_the_server_brings_it_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    engine = await engine_on(api)
    for trouble in (RuntimeError("odd"), KeyError("id"), RecursionError(), OSError()):
        api.facts_to_give = trouble
        await engine._ask_server()
        assert engine.status.state is EngineState.RESTARTING
        assert type(trouble).__name__ in engine.status.detail
        with pytest.raises(GenerationError):
            await collect(engine, ask("x", 1))
    api.facts_to_give = ServerFacts("played", 1000)
    await wait_until(lambda: engine.status.state is EngineState.READY)
    await engine.stop()
    assert all(record.levelname in {"WARNING", "INFO"} for record in caplog.records)
