"""What is kept of conversations is bounded and given back; steps stay short on slow machines; a broken context is rebuilt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_worker import END, WINDOW, ScriptedContext, ScriptedModel, next_token, scripted_core

from fabstir_desktop.inference import wire
from fabstir_desktop.inference.core import EngineCore, SessionCache, StepReport
from fabstir_desktop.inference.llama import Batch, ContextOptions
from fabstir_desktop.inference.preparation import Prepared

_numbers = iter(range(1, 10**9))


def begin(
    core: EngineCore, prompt: bytes, *, cache_key: str | None = None, max_tokens: int = 5, job: str = "1"
) -> tuple[int, StepReport]:
    number = next(_numbers)
    sampling = wire.Sampling(0.0, 1.0, 0, 0.0, 1.0, 0.0, 0.0, number)
    report = StepReport()
    core.begin(Prepared(wire.Begin(number, [], max_tokens, sampling, [], job, cache_key), tuple(prompt)), report)
    return number, report


def finish(core: EngineCore) -> dict[int, list[int]]:
    """Steps until nothing runs; the ids of each stream."""
    ids: dict[int, list[int]] = {}
    while core.busy:
        report = StepReport()
        core.step(report)
        for number, token, _ in report.pieces:
            ids.setdefault(number, []).append(token)
    return ids


def alone(prompt: bytes, seed: int, count: int) -> list[int]:
    cells, ids = bytearray(prompt), []
    while len(ids) < count and (token := next_token(bytes(cells), seed)) != END:
        ids.append(token)
        cells.append(token)
    return ids


# --- what is kept -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=60))
def test_kept_states_never_pass_the_limit_and_the_least_recently_used_go_first(
    limit: int, puts: list[tuple[int, int]]
) -> None:
    cache = SessionCache(limit)
    order: list[tuple[str, str]] = []
    sizes: dict[tuple[str, str], int] = {}
    for owner_number, size in puts:
        owner = ("job", str(owner_number))
        if owner in order:
            order.remove(owner)
        order.append(owner)
        sizes[owner] = size
        dropped = cache.put(owner, bytes(size))
        assert dropped == order[: len(dropped)]
        order = order[len(dropped) :]
        assert sum(sizes[kept] for kept in order) <= limit
        assert all(cache.get(kept) == bytes(sizes[kept]) for kept in order)


def test_the_next_prompt_of_a_conversation_computes_only_what_is_new_also_when_its_slot_was_taken() -> None:
    model = ScriptedModel(random.Random(1))
    core = scripted_core(model, sequences=1)
    talk = b"a conversation that goes on and on"
    begin(core, talk, cache_key="one", max_tokens=1)
    finish(core)
    begin(core, b"somebody else who needs the only slot", cache_key="two", max_tokens=1)
    finish(core)
    before = model.tokens_read
    number, _ = begin(core, talk + b" further", cache_key="one", max_tokens=3)
    assert finish(core).get(number, []) == alone(talk + b" further", number, 3)
    assert model.tokens_read - before <= len(b" further") + 3


def test_what_is_too_large_to_be_kept_is_not_even_copied() -> None:
    model = ScriptedModel(random.Random(1))
    core = scripted_core(model, sequences=1, cache_bytes=100)
    begin(core, b"a conversation of some length", cache_key="one", max_tokens=1)
    finish(core)
    saved = count_calls(core, "save")
    begin(core, b"somebody else", cache_key="two", max_tokens=1)
    finish(core)
    assert saved() == 0
    assert core._scheduler.kept == {}


def count_calls(core: EngineCore, name: str) -> Callable[[], int]:
    calls = 0
    true = getattr(core._context, name)

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return true(*arguments)

    setattr(core._context, name, counted)
    return lambda: calls


def test_a_conversation_that_is_over_leaves_nothing_behind() -> None:
    model = ScriptedModel(random.Random(1))
    core = scripted_core(model, sequences=2)
    for number in range(200):
        key = f"session {number}"
        begin(core, f"words of session {number}, and some more of them".encode(), cache_key=key, max_tokens=2)
        finish(core)
        core.forget(key)
    context = core._context
    assert isinstance(context, ScriptedContext)
    assert all(context.state_bytes(slot) == 0 for slot in range(2))
    assert core._scheduler.kept == {}
    assert core._cache._size == 0


def test_a_conversation_kept_outside_the_slots_is_forgotten_too_and_a_running_one_when_it_ends() -> None:
    core = scripted_core(ScriptedModel(random.Random(1)), sequences=1)
    begin(core, b"the first conversation of the two", cache_key="one", max_tokens=1)
    finish(core)
    begin(core, b"the second conversation of the two", cache_key="two", max_tokens=50)
    assert core._cache._size > 0
    core.forget("one")
    assert core._cache._size == 0
    core.forget("two")
    finish(core)
    begin(core, b"another who takes the slot", max_tokens=1)
    assert core._cache._size == 0


def test_forgetting_what_was_never_known_does_nothing() -> None:
    core = scripted_core(ScriptedModel(random.Random(1)))
    core.forget("nobody")
    assert not core.busy


# --- pace ----------------------------------------------------------------------------------------------------------------


class SlowContext(ScriptedContext):
    """Reads ten tokens a second, on a clock that only it moves."""

    rate = 10
    steps: list[int]

    def decode(self, batch: Batch) -> None:
        super().decode(batch)
        type(self).steps.append(batch.size)
        Clock.now_s += batch.size / self.rate


class BriskContext(SlowContext):
    rate = 107


class Clock:
    now_s = 0.0


class SlowModel(ScriptedModel):
    def new_context(self, options: ContextOptions) -> SlowContext:
        return SlowContext(self, options)


class BriskModel(ScriptedModel):
    def new_context(self, options: ContextOptions) -> BriskContext:
        return BriskContext(self, options)


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now_s)
    SlowContext.steps = BriskContext.steps = []


@pytest.mark.usefixtures("slow_clock")
def test_on_a_slow_machine_no_step_takes_longer_than_a_few_seconds_even_if_nobody_waits() -> None:
    core = scripted_core(SlowModel(random.Random(1)), sequences=2)
    for _ in range(3):
        begin(core, bytes(random.Random(2).choices(range(30, 200), k=WINDOW - 5)), max_tokens=1)
        finish(core)
    later = SlowContext.steps[1:]
    assert max(later) <= 32, "after the first step the rate is known"


@pytest.mark.usefixtures("slow_clock")
@pytest.mark.parametrize(("newcomers", "longest_s"), [(1, 0.15), (2, 0.3), (4, 0.6), (7, 0.6)])
def test_running_streams_wait_longer_when_more_newcomers_wait_for_their_first_token(
    newcomers: int, longest_s: float
) -> None:
    chance = random.Random(3)
    core = scripted_core(BriskModel(chance), sequences=8)
    begin(core, prompt_of(chance, 40), max_tokens=1)
    finish(core)  # now the rate is known
    while not core.busy:  # an answer may end with its first token
        _, report = begin(core, prompt_of(chance, 40), max_tokens=WINDOW)
        while core.busy and not report.pieces:
            core.step(report)
    for _ in range(newcomers):
        begin(core, prompt_of(chance, WINDOW - 5), max_tokens=1)
    BriskContext.steps.clear()
    core.step(StepReport())
    assert BriskContext.steps == [1 + int(BriskContext.rate * longest_s)]


def prompt_of(chance: random.Random, length: int) -> bytes:
    return bytes(chance.choices(range(30, 200), k=length))


# --- a broken context ------------------------------------------------------------------------------------------------------


def test_after_a_failed_step_every_stream_ends_as_broken_and_the_next_answers_are_fresh_ones() -> None:
    model = ScriptedModel(random.Random(1))
    core = scripted_core(model)
    broken = [begin(core, f"prompt number {n}".encode(), cache_key=f"s{n}", max_tokens=50)[0] for n in range(3)]
    core.step(StepReport())
    model.decode_failures = 1.0
    report = StepReport()
    core.step(report)
    assert sorted(refused.stream for refused in report.refused) == broken
    assert {refused.kind for refused in report.refused} == {wire.BROKEN}
    assert not core.busy
    assert all(sampler.is_closed for sampler in model.samplers)
    model.decode_failures = 0.0
    again = {begin(core, f"prompt number {n}".encode(), cache_key=f"s{n}", max_tokens=9)[0]: n for n in range(3)}
    made = finish(core)
    for number, n in again.items():
        assert made.get(number, []) == alone(f"prompt number {n}".encode(), number, 9)


def test_a_failure_while_a_stream_is_moved_for_a_newcomer_breaks_the_requests_and_not_the_worker() -> None:
    """Cells that cannot be put back are computed again; if that fails too, all is rebuilt as after any failed step."""
    for seed in range(300):
        dice = random.Random(seed)
        model = ScriptedModel(dice, cache_failures=0.5, decode_failures=0.1)
        core = scripted_core(model)
        for n in range(20):
            _, report = begin(core, f"talk {n % 3} goes on and on and on {n}".encode(), cache_key=f"s{n % 3}")
            assert len(report.accepted) == 1
            for _ in range(dice.randint(0, 3)):
                core.step(StepReport())
            if len(core._running) == 4:
                finish(core)
        finish(core)
        assert not core.busy
