"""An engine elsewhere: any server that speaks OpenAI's chat completions (llama-server, vLLM, SGLang), behind the same interface.

Counting is exact or there is no serving: see `remote_tally` for what is billed. A server that gives no counts while it streams
is refused before anything is billed. A prompt is Accepted with the first part of the answer, which brings the prompt's length;
until then nothing was made. A key, and a user and password in the address, go to the server and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import aiohttp

from fabstir_desktop.errors import ContextOverflow, GenerationError, ModelFileError, ModelUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.openai_api import OpenAiApi, ServerAddress
from fabstir_desktop.inference.openai_dialects import OpenAiError, ServerFacts, shown_name, wire_seed
from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.inference.remote_tally import Tally
from fabstir_desktop.inference.remote_turns import Call, Turns
from fabstir_desktop.inference.streams import check_request
from fabstir_desktop.jobs.events import EngineChanged
from fabstir_desktop.jobs.generation import (
    Accepted,
    EngineState,
    EngineStatus,
    Finished,
    GenerationEvent,
    GenerationRequest,
    ModelInfo,
)

log = logging.getLogger(__name__)

PROBE_S = 10.0
_PROBE_AFTER_FAILURE_S = 2.0
_LET_GO_S = 1.0
_ASSUMED_WINDOW = 4096
"""Tokens of history that are kept for a server that tells no window, and whose host does not either."""


class _Ended(Exception):
    """The request was cancelled, or the engine stops."""


class RemoteEngine:
    """The Engine protocol over HTTP. `parallel` requests run at once, further ones wait in the same line as for a local model.

    `model` is the server's name of the model to use, None its first; `context_window` its window in tokens where it does not
    tell that itself.
    """

    def __init__(
        self,
        address: ServerAddress,
        feed: Feed,
        *,
        parallel: int = 8,
        model: str | None = None,
        context_window: int | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        self._limits = limits or EngineLimits()
        self._feed = feed
        self._address = address
        self._place = address.place
        self._wanted_model = model
        self._untold_window = context_window or _ASSUMED_WINDOW
        self._api = self._make_api()
        self._turns = Turns(self._limits, parallel)
        self._state = EngineState.STOPPED
        self._detail = ""
        self._facts: ServerFacts | None = None
        self._prober: asyncio.Task[None] | None = None
        self._made = 0
        self._rate = 0.0

    @property
    def status(self) -> EngineStatus:
        """The state just now."""
        return EngineStatus(
            state=self._state,
            detail=self._detail,
            model=self._model,
            active_streams=self._turns.active,
            queued_requests=self._turns.waiting,
            parallel_streams=self._turns.parallel,
            tokens_per_second=self._rate,
            load_progress=1.0 if self._state is EngineState.READY else 0.0,
            restarts=0,
            worker_pid=None,
            is_remote=True,
        )

    async def start(self) -> None:
        """Begin to look for the server; it is asked again and again while it does not answer."""
        if self._prober is None:
            self._set(EngineState.LOADING, f"Looking for the server at {self._place}.")
            self._prober = asyncio.get_running_loop().create_task(self._probe(), name="remote-engine-probe")

    async def look(self) -> None:
        """Ask the server once, without `start`. Raises ModelUnavailable if it cannot be used."""
        await self._ask_server()
        if self._state is not EngineState.READY:
            raise ModelUnavailable(self._detail)

    async def stop(self, timeout_s: float = 3.0) -> None:
        """End all requests with ModelUnavailable and close the connections. Safe to call twice."""
        prober, self._prober = self._prober, None
        self._set(EngineState.STOPPED)
        self._turns.refuse_waiting(ModelUnavailable("the engine stops"))
        for call in self._turns.calls():
            call.end()
        if prober is not None:
            prober.cancel()
            await asyncio.wait({prober}, timeout=timeout_s)
        await self._api.close()
        self._api = self._make_api()

    async def load(self, model_path: str) -> None:  # noqa: ARG002 - the protocol's
        """A remote server chooses its model itself. Raises ModelFileError."""
        raise ModelFileError("the model is chosen on the other server, not here")

    def cancel(self, request_id: str) -> None:
        """End the request: its connection is closed, at which the server stops."""
        if self._turns.cancel(request_id):
            self._publish()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Accepted, Pieces and Finished; see the Engine protocol."""
        check_request(request)
        if self._state is not EngineState.READY or self._facts is None:
            raise ModelUnavailable(f"no model is served: {self._detail or self._state.value}")
        call = self._turns.enter(request, time.monotonic())
        self._publish()
        try:
            await call.turn
            async with contextlib.aclosing(self._run(call, self._facts)) as events:
                async for event in events:
                    yield event
        finally:
            self._turns.leave(call)
            self._publish()

    # --- one request -------------------------------------------------------------------------------------------------

    async def _run(self, call: Call, facts: ServerFacts) -> AsyncGenerator[GenerationEvent, None]:
        try:
            async with contextlib.aclosing(self._answer(call, facts)) as events:
                async for event in events:
                    yield event
                    if isinstance(event, Finished):
                        return
        except (_Ended, OpenAiError, aiohttp.ClientError, TimeoutError) as error:
            if not call.is_ended:
                # without its cause: a library's error may hold the header with the key
                raise self._translate(error) from None
        if self._state is EngineState.STOPPED:
            raise ModelUnavailable("the engine stops")
        yield Finished("cancelled")

    async def _answer(self, call: Call, facts: ServerFacts) -> AsyncGenerator[GenerationEvent, None]:
        """The answer's events but a cancelled one's end; raises what the server and the network do."""
        if call.ending.done():  # while it waited: it has no stream to send anything on
            return
        request = call.request
        seed = wire_seed(secrets.randbits(31) if request.sampling.seed is None else request.sampling.seed)
        prompt_ids = await _unless_ended(call, self._api.prompt_ids(request.messages, facts))
        await _unless_ended(call, self._begin(call, seed, facts, len(prompt_ids)))
        tally = Tally(request.max_tokens, prompt_ids)
        accepted = False
        async for piece in self._pieces(call, tally):
            if not accepted and (piece is not None or tally.is_prompt_counted):
                accepted = True
                yield Accepted(tally.prompt_ids, facts.context_window or self._untold_window, seed)
            if piece is not None:
                self._made += len(piece.token_ids)
                yield piece
        if call.ending.done():
            return
        if not accepted:
            yield Accepted(tally.prompt_ids, facts.context_window or self._untold_window, seed)
        last = tally.settle()
        if last is not None:
            self._made += len(last.token_ids)
            yield last
        yield Finished("stop" if tally.finish_reason == "stop" else "length")

    async def _pieces(self, call: Call, tally: Tally) -> AsyncGenerator[Any, None]:
        """For each streamed part the Piece it gives, or None, until the answer's end was told."""
        if call.response is None:
            raise _Ended
        try:
            async with contextlib.aclosing(self._api.chunks(call.response)) as chunks:
                async for chunk in chunks:
                    if call.is_ended:
                        return
                    yield tally.take(chunk)
        except (aiohttp.ClientError, TimeoutError):
            if tally.finish_reason is None:
                raise
            # The answer had ended; only the server's last account is missing, and what it would have added is not certain.
        if tally.finish_reason not in ("stop", "length") and not call.is_ended:
            raise OpenAiError("it broke off")

    async def _begin(self, call: Call, seed: int, facts: ServerFacts, prompt_tokens: int) -> None:
        """Send the request with room for the answer; a server that counts the prompt otherwise is asked once more."""
        request, window = call.request, facts.context_window
        if prompt_tokens and window and prompt_tokens >= window:
            raise ContextOverflow(prompt_tokens, window)
        fitting = min(request.max_tokens, window - prompt_tokens) if prompt_tokens and window else request.max_tokens
        try:
            call.response = await self._api.begin(request, seed, facts, fitting)
        except OpenAiError as refusal:
            if not refusal.window:
                raise
            self._untold_window = refusal.window
            refusal.prompt_tokens = refusal.prompt_tokens or prompt_tokens
            if not refusal.is_only_the_answer_too_long:
                raise
            room = None if refusal.is_lower_bound else refusal.window - refusal.prompt_tokens
            call.response = await self._api.begin(request, seed, facts, room)

    def _translate(self, error: Exception) -> GenerationError:
        if isinstance(error, OpenAiError):
            return error.as_generation_error(self._place)
        return ModelUnavailable(f"the server at {self._place} does not answer: {type(error).__name__}")

    # --- the server's health -------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        asked_at = 0.0
        counted_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - asked_at >= (PROBE_S if self._state is EngineState.READY else _PROBE_AFTER_FAILURE_S):
                await self._ask_server()
                asked_at = now
            self._turns.refuse_overdue(now)
            rate = self._made / max(now - counted_at, 1e-3)
            self._made, counted_at = 0, now
            if rate != self._rate:
                self._rate = rate
                self._publish()
            await asyncio.sleep(self._limits.tick_s)

    async def _ask_server(self) -> None:
        try:
            facts = await self._api.facts()
        except Exception as error:  # noqa: BLE001 - whatever a server answers, it is asked again, and the host is told
            said = f"cannot be used: {error}" if isinstance(error, OpenAiError) else f"fails: {type(error).__name__}"
            if isinstance(error, aiohttp.ClientError | TimeoutError):
                said = f"does not answer: {type(error).__name__}"
            self._lose(f"the server at {self._place} {said}")
            return
        self._facts = facts
        if self._state is not EngineState.READY:
            window = f"{facts.context_window or self._untold_window}{'' if facts.context_window else ' (assumed)'}"
            log.info("the server at %s serves %s, window %s tokens", self._place, shown_name(facts.model), window)
            self._set(EngineState.READY, f"served by {self._place}")

    def _lose(self, detail: str) -> None:
        if self._prober is not None and (self._state, self._detail) != (EngineState.RESTARTING, detail):
            log.warning("%s", detail)
        self._set(EngineState.RESTARTING, detail)
        self._turns.refuse_waiting(ModelUnavailable(detail))

    @property
    def _model(self) -> ModelInfo | None:
        if self._facts is None or self._state is not EngineState.READY:
            return None
        return ModelInfo(
            name=shown_name(self._facts.model),
            path=self._place,
            sha256="0" * 64,  # not known: the file is on another machine
            size_bytes=0,
            architecture="",
            parameter_count=0,
            quantisation="",
            context_window=self._facts.context_window or self._untold_window,
            gpu_layers=0,
            layer_count=0,
        )

    def _make_api(self) -> OpenAiApi:
        return OpenAiApi(self._address, stall_s=self._limits.prefill_stall_s, model=self._wanted_model)

    def _set(self, state: EngineState, detail: str = "") -> None:
        if (state, detail) != (self._state, self._detail):
            self._state, self._detail = state, detail
            self._publish()

    def _publish(self) -> None:
        self._feed.publish(EngineChanged(self.status))


async def _unless_ended(call: Call, work: Coroutine[Any, Any, Any]) -> Any:
    """The work's result; it is cancelled and _Ended raised when the request is cancelled first."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait({task, call.ending}, return_when=asyncio.FIRST_COMPLETED)
        if not call.is_ended:
            return task.result()
        raise _Ended
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_LET_GO_S)
        elif not task.cancelled():
            task.exception()  # looked at: nobody else will
