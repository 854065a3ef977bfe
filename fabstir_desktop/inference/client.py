"""The engine as the rest of the app knows it: requests in, tokens out, while the model lives in a process of its own.

This side never imports llama.cpp. It is called from one loop (asyncio or qasync), and does little for each token: the worker
sends one message a decode step for all streams, and one tick a second watches all waits, instead of a timer for each.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator

from fabstir_desktop.errors import (
    ContextOverflow,
    GenerationError,
    InvalidGenerationRequest,
    ModelUnavailable,
    WorkerCrashed,
)
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference import wire
from fabstir_desktop.inference.line import WaitingLine
from fabstir_desktop.inference.model_files import inspect_model
from fabstir_desktop.inference.options import EngineOptions
from fabstir_desktop.inference.restarts import Quarantine, prompt_hash
from fabstir_desktop.inference.streams import RequestStream, check_request
from fabstir_desktop.inference.supervisor import Supervisor
from fabstir_desktop.inference.watchdog import Watchdog, running
from fabstir_desktop.jobs.events import EngineChanged
from fabstir_desktop.jobs.generation import (
    EngineState,
    EngineStatus,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
)

log = logging.getLogger(__name__)

_QUARANTINED = "this prompt was running when the model process died; it is not tried again"
_NO_SEED = 2**32 - 1
_SERVABLE = (EngineState.READY, EngineState.LOADING, EngineState.RESTARTING)


class EngineClient:
    """The Engine of one local model. Publishes EngineChanged on `feed` when the state, the model or a stream count changes,
    and at most once a second for the rate of tokens."""

    def __init__(self, options: EngineOptions, feed: Feed) -> None:
        self._options = options
        self._limits = options.limits
        self._feed = feed
        self._line = WaitingLine(options.limits)
        self._quarantine = Quarantine(options.quarantine_store, str(options.model_path))
        self._saving: asyncio.Task[None] | None = None
        self._watchdog = Watchdog(options.limits)
        self._suspects: tuple[RequestStream, ...] = ()
        """Whom the watchdog ended the worker for."""
        self._supervisor = Supervisor(options, self)
        self._by_id: dict[str, RequestStream] = {}
        self._active: dict[int, RequestStream] = {}
        self._next_number = 1
        self._draining = False
        self._is_stopped = False
        self._drained = asyncio.Event()
        self._switching = asyncio.Lock()
        self._tokens_since_tick = 0
        self._rate = 0.0
        self._prefilling = False
        self._tick_handle: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    # --- Engine ------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> EngineStatus:
        """The state just now."""
        supervisor = self._supervisor
        return EngineStatus(
            state=supervisor.state,
            detail=supervisor.detail,
            model=supervisor.model,
            active_streams=len(self._served()),
            queued_requests=len(self._line),
            parallel_streams=self._options.parallel,
            tokens_per_second=self._rate,
            load_progress=supervisor.load_progress,
            restarts=supervisor.restarts,
            worker_pid=supervisor.pid,
            warning=supervisor.warning,
            failure=supervisor.failure,
            gpu_free_bytes=supervisor.gpu_free_bytes,
            is_hung=supervisor.is_hung,
            queue_limit=self._options.limits.queue_length,
        )

    async def start(self) -> None:
        """Begin loading; after giving up, try again."""
        self._is_stopped = False
        self._supervisor.start()
        if self._tick_handle is None:
            self._ticked_at = time.monotonic()
            self._schedule_tick()

    async def stop(self, timeout_s: float = 3.0) -> None:
        """End the worker; whatever runs or waits ends with ModelUnavailable."""
        self._is_stopped = True
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None
        self._fail_all(ModelUnavailable("the engine stops"))
        await self._supervisor.stop(timeout_s)
        if self._saving is not None:
            await asyncio.wait({self._saving})

    async def load(self, model_path: str) -> None:
        """Switch to another file once what runs has ended; requests that come meanwhile wait for the new model.

        Raises ModelFileError before anything changes if the file cannot be used, or when llama.cpp then refuses it: the
        model before it is then loaded again. Raises ModelUnavailable if the engine is stopped meanwhile.
        """
        path = (await asyncio.to_thread(inspect_model, model_path)).path
        async with self._switching:
            self._draining = True
            try:
                while self._active:
                    self._drained.clear()
                    await self._drained.wait()
                if self._is_stopped:
                    raise ModelUnavailable("the engine stops")
                self._supervisor.start()
                await self._supervisor.switch(path)
                self._quarantine.forget(str(path))
                await asyncio.to_thread(self._quarantine.save)
            finally:
                self._draining = False
                self._dispatch()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Accepted, Pieces and Finished; see the Engine protocol."""
        stream = self._admit(request)
        try:
            while True:
                event = await stream.next()
                if stream.held and stream.number:
                    stream.held = False
                    self._supervisor.send(wire.Hold(stream.number, False))
                yield event
                if type(event) is Finished:
                    return
        finally:
            self._abandon(stream)

    def forget(self, cache_key: str) -> None:
        """Give back the cells of a conversation that is over."""
        self._supervisor.send(wire.Forget(cache_key))

    def cancel(self, request_id: str) -> None:
        """End the request now. What the worker makes of it in the step that runs is neither delivered nor counted."""
        stream = self._by_id.get(request_id)
        if stream is None or stream.over:
            return
        if stream.waiting is not None:
            self._line.leave(stream.waiting)
        stream.finish("cancelled")
        if stream.number:
            self._let_go(stream)
        else:
            self.worker_changed()

    # --- requests ----------------------------------------------------------------------------------------------------

    def _admit(self, request: GenerationRequest) -> RequestStream:
        """Check the request and give it a stream, or a place in the line. Raises GenerationError."""
        check_request(request)
        if self._supervisor.state not in _SERVABLE:
            raise ModelUnavailable(f"no model is served: {self._supervisor.detail or self._supervisor.state.value}")
        if request.request_id in self._by_id:
            raise InvalidGenerationRequest("a request of this id is running")
        digest = prompt_hash(request.messages)
        if self._quarantine.holds(digest):
            raise InvalidGenerationRequest(_QUARANTINED)
        stream = RequestStream(request, digest, usable_seed(request.sampling.seed))
        if self._has_free_stream and len(self._line) == 0:
            self._by_id[request.request_id] = stream
            self._begin(stream)
        else:
            stream.waiting = self._line.enter(request, time.monotonic())
            self._by_id[request.request_id] = stream
        self.worker_changed()
        return stream

    @property
    def _has_free_stream(self) -> bool:
        ready = self._supervisor.state is EngineState.READY and not self._draining
        parallel = self._options.parallel
        return ready and len(self._served()) < parallel and len(self._active) < 2 * parallel

    def _served(self) -> list[RequestStream]:
        """Those that take a place of the worker's."""
        return [stream for stream in self._active.values() if not stream.is_leaving]

    def _let_go(self, stream: RequestStream) -> None:
        """Have the worker end a stream. It does so before it looks at anything that is sent later, so the place is free at once;
        but until it says so, a hang or a crash may be this one's doing."""
        stream.is_leaving = True
        self._supervisor.send(wire.Cancel(stream.number))
        self.worker_changed()

    def _begin(self, stream: RequestStream) -> None:
        stream.waiting = None
        begin = stream.begin(self._next_number)
        self._next_number += 1
        self._active[stream.number] = stream
        self._supervisor.send(begin)

    def _dispatch(self) -> None:
        """Give free streams to those in the line."""
        while self._has_free_stream:
            entry = self._line.next(stream.request.job_key for stream in self._served())
            if entry is None:
                return
            stream = self._by_id[entry.request.request_id]
            if self._quarantine.holds(stream.prompt_hash):
                stream.waiting = None
                stream.fail(InvalidGenerationRequest(_QUARANTINED))  # its like was running while it waited
            else:
                self._begin(stream)

    def _abandon(self, stream: RequestStream) -> None:
        """The reader is gone or done."""
        self._by_id.pop(stream.request.request_id, None)
        if stream.waiting is not None and self._line.leave(stream.waiting):
            self.worker_changed()
        elif stream.number in self._active and not stream.over:
            self._let_go(stream)

    def _turn_away(self) -> None:
        """No model will come: nobody needs to wait for it."""
        for entry in self._line.clear():
            reason = self._supervisor.detail or self._supervisor.state.value
            self._by_id[entry.request.request_id].fail(ModelUnavailable(f"no model is served: {reason}"))

    def _fail_all(self, error: GenerationError) -> None:
        for entry in self._line.clear():
            self._by_id[entry.request.request_id].fail(error)
        for stream in self._active.values():
            stream.fail(error)
        self._active.clear()
        self._drained.set()
        self.worker_changed()

    # --- news from the worker ------------------------------------------------------------------------------------------

    def worker_stepped(self, step: wire.Step) -> None:
        """Hand out what a decode step gave."""
        active = self._active
        self._prefilling = step.prefilling
        for accepted in step.accepted:
            if accepted.stream in active:
                active[accepted.stream].accept(tuple(accepted.prompt_ids), self._window)
        for number, token_id, text in step.pieces:
            stream = active.get(number)
            if stream is not None:
                stream.add(token_id, text)
                if stream.unread_tokens > self._limits.unread_tokens and not stream.held and not stream.is_leaving:
                    stream.held = True
                    self._supervisor.send(wire.Hold(number, True))
        self._tokens_since_tick += len(step.pieces)
        if step.ended or step.refused:
            self._take_ends(step)

    def worker_changed(self) -> None:
        """Start what can be started now, and tell the feed."""
        if self._supervisor.state is EngineState.READY:
            self._dispatch()
        elif self._supervisor.state not in _SERVABLE:
            self._turn_away()
        self._feed.publish(EngineChanged(self.status))

    def worker_died(self, *, expected: bool) -> None:
        """Every request that ran is over; one that waited waits on."""
        self._suspects = () if expected else self._suspects
        if expected:
            error: GenerationError = ModelUnavailable("the engine stops")
        else:
            self._blame()
            error = WorkerCrashed("the model process died while it answered; it is being started again")
        for stream in self._active.values():
            stream.fail(error)
        self._active.clear()
        self._drained.set()
        self.worker_changed()

    def _take_ends(self, step: wire.Step) -> None:
        for ended in step.ended:
            stream = self._active.pop(ended.stream, None)
            if stream is not None:
                stream.finish(_reason(ended.reason), ended.text)
        for refused in step.refused:
            stream = self._active.pop(refused.stream, None)
            if stream is not None:
                stream.fail(self._refusal(refused))
        if not self._active:
            self._drained.set()
        self.worker_changed()

    def _refusal(self, refused: wire.Refused) -> GenerationError:
        if refused.kind == wire.OVERFLOW:
            return ContextOverflow(refused.prompt_tokens, self._window)
        if refused.kind == wire.INVALID:
            return InvalidGenerationRequest(refused.reason)
        return WorkerCrashed(f"the model failed while it answered: {refused.reason}")

    def _blame(self) -> None:
        """What ran is not tried again: whatever the signal says, a prompt may have been the cause."""
        suspects, self._suspects = self._suspects or running(self._active.values()), ()
        self._quarantine.blame(stream.prompt_hash for stream in suspects)
        loop = asyncio.get_running_loop()
        self._saving = loop.create_task(asyncio.to_thread(self._quarantine.save), name="prompt quarantine")

    @property
    def _window(self) -> int:
        model = self._supervisor.model
        return model.context_window if model is not None else 0

    # --- once a second -------------------------------------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        self._tick_handle = asyncio.get_running_loop().call_later(self._limits.tick_s, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        elapsed = max(now - self._ticked_at, 1e-3)
        self._ticked_at = now
        self._schedule_tick()
        for entry, error in self._line.overdue(now):
            self._by_id[entry.request.request_id].fail(self._overdue(error))
        self._watch()
        rate = self._tokens_since_tick / elapsed
        changed = rate != self._rate
        self._rate = rate
        self._tokens_since_tick = 0
        if changed:
            self.worker_changed()

    def _overdue(self, busy: GenerationError) -> GenerationError:
        if self._supervisor.state is EngineState.READY:
            return busy
        return ModelUnavailable("the model is still being loaded")

    def _watch(self) -> None:
        """End a worker that hangs."""
        supervisor = self._supervisor
        limits = self._limits
        working = any(not stream.held for stream in self._active.values())
        loading = supervisor.is_loading
        if not working and not loading:
            supervisor.silent_s = 0.0
            return
        supervisor.silent_s += limits.tick_s
        if loading:
            if supervisor.silent_s >= supervisor.load_limit_s:
                supervisor.kill(f"no progress in loading for {supervisor.load_limit_s:.0f} s")
            return
        verdict = self._watchdog.tick(self._active.values(), supervisor.silent_s, is_reading=self._prefilling)
        if verdict is not None:
            self._suspects = self._suspects or verdict.culprits
            supervisor.kill(verdict.why)


def usable_seed(wanted: int | None) -> int:
    """The seed to use and to tell: llama.cpp takes the largest one for "draw one", and would then not repeat an answer."""
    return secrets.randbelow(_NO_SEED) if wanted is None else min(wanted, _NO_SEED - 1)


def _reason(word: str) -> FinishReason:
    if word == "stop":
        return "stop"
    if word == "length":
        return "length"
    return "cancelled"
