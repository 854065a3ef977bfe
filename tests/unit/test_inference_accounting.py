"""Twenty thousand answers through decode loop, wire and client, with cancels, closed readers, failures and deaths anywhere.

What a reader was given is always a beginning of what its prompt gives on a model of its own, never longer than allowed; it
ends once, and for the reason that is true.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from limits import scaled
from scripted_worker import END, WINDOW, ScriptedModel, ScriptedProcess, next_token, piece_of

from fabstir_desktop.errors import ContextOverflow, GenerationError, ModelUnavailable, WorkerCrashed
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference import client as client_module
from fabstir_desktop.inference import supervisor as supervisor_module
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.model_files import ModelFile
from fabstir_desktop.inference.options import EngineLimits, EngineOptions
from fabstir_desktop.jobs.generation import (
    Accepted,
    EngineState,
    Finished,
    GenerationRequest,
    Message,
    Piece,
    SamplingParameters,
)

ANSWERS = 20_000
AT_ONCE = 8
LIMITS = EngineLimits(
    queue_per_job=100, restart_delays_s=(0.0,), deaths_until_failed=10**9, queue_timeout_s=1e9, unread_tokens=4
)
STOPS = ("ab", "STOP", "é", "€a", "😀")


@dataclass
class Case:
    """A request, what its reader does, and what became of it."""

    request: GenerationRequest
    cancel_after: int | None = None
    close_after: int | None = None
    pauses: bool = False
    ids: list[int] = field(default_factory=list)
    text: str = ""
    prompt_ids: tuple[int, ...] | None = None
    endings: list[Finished | GenerationError] = field(default_factory=list)
    was_cancelled: bool = False
    deaths_before: int = 0

    @property
    def ending(self) -> str:
        if not self.endings:
            return "closed"
        ending = self.endings[0]
        return ending.finish_reason if isinstance(ending, Finished) else type(ending).__name__


def expected(case: Case) -> tuple[list[int], str, str]:
    """Ids, text and finish reason of the answer on a model of its own, by the plainest means."""
    assert case.prompt_ids is not None
    cells = bytearray(case.prompt_ids)
    seed = case.request.sampling.seed
    assert seed is not None
    ids: list[int] = []
    raw = b""
    while True:
        token = next_token(bytes(cells), seed)
        if token == END:
            return ids, raw.decode(errors="replace"), "stop"
        ids.append(token)
        cells.append(token)
        raw += piece_of(token)
        seen = codecs.getincrementaldecoder("utf-8")("replace").decode(raw)
        found = [seen.index(stop) for stop in case.request.stop if stop in seen]
        if found:
            return ids, seen[: min(found)], "stop"
        if len(ids) == min(case.request.max_tokens, WINDOW - len(case.prompt_ids)):
            return ids, raw.decode(errors="replace"), "length"


def make_case(dice: random.Random, number: int) -> Case:
    session = dice.choice([None, None, "one", "two", "three", "four"])
    length = dice.choice([1, 5, 20, 20, 40, 70, WINDOW - 3, WINDOW + 10])
    text = (f"{session} talks on and on " * 8)[:length] if session else "x" * dice.randint(0, length)
    return Case(
        GenerationRequest(
            f"r{number}",
            (Message("user", f"{text}{number}"),),  # none twice: at a death some would be quarantined
            dice.choice([1, 2, 3, 5, 9, 17, 500]),
            SamplingParameters(seed=dice.randrange(2**32 - 1)),
            stop=tuple(dice.sample(STOPS, dice.choice([0, 0, 1, 2]))),
            job_key=dice.choice(["1", "2", "3"]),
            cache_key=session,
        ),
        cancel_after=dice.choice([None, None, None, 0, 1, 2, 6]),
        close_after=dice.choice([None, None, None, None, 0, 1, 4]),
        pauses=dice.random() < 0.1,
    )


class World:
    """An EngineClient whose worker is scripted; `process` is the one that lives."""

    def __init__(self, engine: EngineClient, model: ScriptedModel) -> None:
        self.engine = engine
        self.model = model
        self.process: ScriptedProcess | None = None
        self.deaths = 0

    def make_process(self, _loop: Any, on_message: Any, on_death: Any) -> ScriptedProcess:
        self.process = ScriptedProcess(self.model, on_message, on_death)
        return self.process

    def advance(self) -> None:
        if self.process is not None and not self.process.is_over:
            self.process.advance()

    def die(self) -> None:
        if self.process is not None and not self.process.is_over:
            self.deaths += 1
            self.process.die(-11)

    async def read(self, case: Case) -> None:
        """Be the case's reader."""
        case.deaths_before = self.deaths
        pieces = 0
        try:
            async with contextlib.aclosing(self.engine.generate(case.request)) as stream:  # type: ignore[type-var]
                async for event in stream:
                    if isinstance(event, Accepted):
                        case.prompt_ids = event.prompt_ids
                    elif isinstance(event, Piece):
                        pieces += 1
                        case.ids += event.token_ids
                        case.text += event.text
                    else:
                        case.text += event.text
                        case.endings.append(event)
                        continue
                    if case.cancel_after is not None and pieces >= case.cancel_after and not case.was_cancelled:
                        case.was_cancelled = True
                        self.engine.cancel(case.request.request_id)
                    if case.close_after is not None and pieces >= case.close_after:
                        return
                    for _ in range(30 if case.pauses else 0):
                        await asyncio.sleep(0)
        except GenerationError as error:
            case.endings.append(error)


@pytest.fixture
async def make_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Any]:
    file = tmp_path / "scripted.gguf"
    file.write_bytes(b"not looked at")
    described = ModelFile(file, "scripted", "llama", 1, "F32", WINDOW, 1, False, 13, 1, (file,))
    monkeypatch.setattr(supervisor_module, "inspect_model", lambda _: described)
    worlds: list[World] = []

    async def make(dice: random.Random, **chances: float) -> World:
        engine = EngineClient(EngineOptions(file, context_window=WINDOW, parallel=4, limits=LIMITS), Feed())
        world = World(engine, ScriptedModel(dice, **chances))
        monkeypatch.setattr(supervisor_module, "WorkerProcess", world.make_process)
        worlds.append(world)
        await engine.start()
        return world

    yield make
    for world in worlds:
        await world.engine.stop()


async def play(world: World, cases: list[Case], dice: random.Random, *, death: float = 0.0) -> None:
    """All cases, some at once, to their ends."""
    rest = list(reversed(cases))
    tasks: set[asyncio.Task[None]] = set()
    async with asyncio.timeout(scaled(240)):
        while rest or tasks:
            while rest and len(tasks) < AT_ONCE and dice.random() < 0.6:
                case = rest.pop()
                task = asyncio.create_task(world.read(case))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            world.advance()
            if dice.random() < death:
                world.die()
            await asyncio.sleep(0)


def check(case: Case, world: World, *, may_break: bool) -> None:
    """What is true of every answer, however it ended."""
    if case.prompt_ids is None:
        assert not case.ids
        assert not case.text
        if isinstance(case.endings[0], ContextOverflow):
            text = case.request.messages[0].content
            assert len(text) >= WINDOW
            assert (case.endings[0].prompt_tokens, case.endings[0].context_window) == (len(text), WINDOW)
            return
    else:
        ids, text, reason = expected(case)
        assert case.ids == ids[: len(case.ids)], "a beginning of the true answer, and no end-of-generation token"
        assert END not in case.ids
        assert len(case.ids) <= case.request.max_tokens
        if case.ending in ("stop", "length"):
            assert (case.ids, case.text, case.ending) == (ids, text, reason)
        else:  # what was held back for a stop string or half a character comes out at a cancel, and is lost at a death
            made = b"".join(map(piece_of, case.ids)).decode(errors="replace")
            assert made.startswith(case.text)
    assert len(case.endings) == (0 if case.ending == "closed" else 1)
    if case.ending == "closed":
        assert case.close_after is not None
    elif case.ending == "cancelled":
        assert case.was_cancelled
    elif case.ending in ("WorkerCrashed", "ModelUnavailable"):
        assert may_break
    else:
        assert case.ending in ("stop", "length")


async def test_accounts_are_exact_in_20000_answers_through_loop_wire_and_client(make_world: Any) -> None:
    dice = random.Random(7)
    world = await make_world(dice, decode_failures=0.0005, cache_failures=0.2)
    cases = [make_case(dice, number) for number in range(ANSWERS)]
    await play(world, cases, dice, death=0.0005)
    for case in cases:
        check(case, world, may_break=True)
    endings = Counter(case.ending for case in cases)
    assert {"stop", "length", "cancelled", "closed", "WorkerCrashed", "ContextOverflow"} <= set(endings), endings
    assert world.deaths > 10
    await settle(world)
    assert world.engine.status.active_streams == world.engine.status.queued_requests == 0
    assert world.process is not None
    assert not world.process.core.busy


async def settle(world: World) -> None:
    """Until the worker has heard of every reader that left."""
    async with asyncio.timeout(scaled(30)):
        while world.engine.status.state is not EngineState.READY or world.engine.status.active_streams:
            world.advance()
            await asyncio.sleep(0)


async def test_without_failures_only_those_end_early_who_asked_for_it(make_world: Any) -> None:
    dice = random.Random(8)
    world = await make_world(dice)
    cases = [make_case(dice, number) for number in range(1000)]
    await play(world, cases, dice)
    for case in cases:
        check(case, world, may_break=False)
    await settle(world)
    assert all(sampler.is_closed for sampler in world.model.samplers)


async def test_cells_that_cannot_be_cut_or_put_back_cost_work_and_no_token(make_world: Any) -> None:
    """Models with a state that has no parts refuse to cut; a full cache refuses to restore."""
    dice = random.Random(9)
    world = await make_world(dice, cache_failures=1.0)
    cases = [make_case(dice, number) for number in range(1000)]
    await play(world, cases, dice)
    for case in cases:
        check(case, world, may_break=False)


async def test_after_a_failed_step_all_end_as_crashed_and_the_next_answer_is_a_fresh_one(make_world: Any) -> None:
    dice = random.Random(10)
    world = await make_world(dice)
    cases = [Case(replaced(make_case(dice, number).request, number, max_tokens=500, stop=())) for number in range(4)]
    tasks = [asyncio.create_task(world.read(case)) for case in cases]
    async with asyncio.timeout(scaled(30)):
        while not all(case.ids for case in cases):
            world.advance()
            await asyncio.sleep(0)
            assert not all(task.done() for task in tasks)
        broken_before = [case for case in cases if not case.endings]
        world.model.decode_failures = 1.0
        world.process.advance()
        world.model.decode_failures = 0.0
        while not all(task.done() for task in tasks):
            world.advance()
            await asyncio.sleep(0)
    assert broken_before
    assert all(isinstance(case.endings[0], WorkerCrashed) for case in broken_before if case.ending != "stop")
    assert any(case.ending == "WorkerCrashed" for case in broken_before)
    assert world.deaths == 0, "the worker lives on"
    after = [make_case(dice, number) for number in range(100, 200)]
    await play(world, after, dice)
    for case in [*cases, *after]:
        check(case, world, may_break=case in cases)


def replaced(request: GenerationRequest, number: int, **changes: Any) -> GenerationRequest:
    fields = {name: getattr(request, name) for name in request.__dataclass_fields__}
    return GenerationRequest(**{**fields, "messages": (Message("user", f"prompt {number}"),), **changes})


async def test_an_engine_that_is_stopped_ends_every_reader(make_world: Any) -> None:
    dice = random.Random(11)
    world = await make_world(dice)
    cases = [Case(replaced(make_case(dice, number).request, number, max_tokens=500)) for number in range(12)]
    tasks = [asyncio.create_task(world.read(case)) for case in cases]
    for _ in range(50):
        world.advance()
        await asyncio.sleep(0)
    await world.engine.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), scaled(30))
    assert all(case.ending in ("stop", "length", "ModelUnavailable") for case in cases)
    assert any(isinstance(case.endings[0], ModelUnavailable) for case in cases)


def test_the_seed_that_llama_cpp_takes_for_none_is_never_used() -> None:
    for seed in (0, 5, 2**32 - 2):
        assert client_module.usable_seed(seed) == seed
    assert client_module.usable_seed(2**32 - 1) == 2**32 - 2
    drawn = {client_module.usable_seed(None) for _ in range(100)}
    assert len(drawn) > 90
    assert all(0 <= seed < 2**32 - 1 for seed in drawn)


# --- a cancel's place -----------------------------------------------------------------------------------------------------


def small_case(name: str) -> Case:
    return Case(GenerationRequest(name, (Message("user", name),), 500, SamplingParameters(seed=1), job_key=name))


async def test_a_cancel_ends_at_once_and_its_place_is_free_while_the_worker_still_computes(make_world: Any) -> None:
    world = await make_world(random.Random(1))
    await ready(world)
    cases = [small_case(f"c{number}") for number in range(5)]
    tasks = [asyncio.create_task(world.read(case)) for case in cases]
    await until(lambda: world.engine.status.queued_requests == 1)
    assert world.engine.status.active_streams == 4

    world.engine.cancel("c0")  # from here on the worker has not had a turn
    await tasks[0]
    assert cases[0].ending == "cancelled"
    assert (world.engine.status.active_streams, world.engine.status.queued_requests) == (4, 0), (
        "the fifth has its place"
    )

    while not all(task.done() for task in tasks):
        world.advance()
        await asyncio.sleep(0)
    assert cases[0].ids == []
    for case in cases[1:]:
        assert (case.ids, case.text, case.ending) == expected(case)


async def test_a_cancelled_prompt_is_still_to_blame_for_a_worker_that_dies_of_it(make_world: Any) -> None:
    world = await make_world(random.Random(1))
    await ready(world)
    poison, neighbour = small_case("poison"), small_case("neighbour")
    tasks = [asyncio.create_task(world.read(case)) for case in (poison, neighbour)]
    await until(lambda: world.engine.status.active_streams == 2)
    world.engine.cancel("poison")
    world.die()
    await asyncio.gather(*tasks)
    assert (poison.ending, neighbour.ending) == ("cancelled", "WorkerCrashed")
    again = [small_case("poison"), small_case("neighbour")]
    tasks = [asyncio.create_task(world.read(case)) for case in again]
    while not all(task.done() for task in tasks):
        world.advance()
        await asyncio.sleep(0)
    assert again[0].ending == "InvalidGenerationRequest", "it is not tried again"
    assert again[1].ending in {"stop", "length"}, "it was not looked at yet when the worker died"


async def ready(world: World) -> None:
    async with asyncio.timeout(scaled(10)):
        while world.engine.status.state is not EngineState.READY:
            world.advance()
            await asyncio.sleep(0.001)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(scaled(10)):
        while not condition():
            await asyncio.sleep(0.001)
