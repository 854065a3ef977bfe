"""An engine elsewhere: any server that speaks OpenAI's chat completions (llama-server, vLLM, SGLang), behind the same interface.

Counting is exact or there is no serving: each piece of text must come with the server's own count of tokens made so far
(llama-server's `timings_per_token`, vLLM's `continuous_usage_stats`) or with its token ids. A server that gives neither is
refused before anything is billed. Tokens made after the last text (the end-of-generation token) are not billed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

from fabstir_desktop.errors import GenerationError, InvalidGenerationRequest, ModelFileError, ModelUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.line import WaitingLine
from fabstir_desktop.inference.openai_api import (
    Chunk,
    OpenAiApi,
    OpenAiError,
    ServerFacts,
)
from fabstir_desktop.inference.options import EngineLimits
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
    Piece,
)

log = logging.getLogger(__name__)

UNKNOWN_TOKEN_ID = 2**31 - 1
"""Stands for a token that was counted by the server but whose id it did not tell."""
PROBE_S = 10.0
_PROBE_AFTER_FAILURE_S = 2.0


@dataclass(slots=True, eq=False)
class _Call:
    request: GenerationRequest
    turn: asyncio.Future[None]
    response: aiohttp.ClientResponse | None = None
    cancelled: bool = False
    ids: list[int] = field(default_factory=list)


class RemoteEngine:
    """The Engine protocol over HTTP. `parallel` requests run at once, further ones wait in the same line as for a local model."""

    def __init__(self, url: str, feed: Feed, *, parallel: int = 8, limits: EngineLimits | None = None) -> None:
        self._limits = limits or EngineLimits()
        self._feed = feed
        self._parallel = parallel
        self._place = urlsplit(url).netloc
        self._api = OpenAiApi(url, stall_s=self._limits.prefill_stall_s)
        self._line = WaitingLine(self._limits)
        self._calls: dict[str, _Call] = {}
        self._active = 0
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
            active_streams=self._active,
            queued_requests=len(self._line),
            parallel_streams=self._parallel,
            tokens_per_second=self._rate,
            load_progress=1.0 if self._state is EngineState.READY else 0.0,
            restarts=0,
            worker_pid=None,
        )

    async def start(self) -> None:
        """Begin to look for the server; it is asked again and again while it does not answer."""
        if self._prober is None:
            self._set(EngineState.LOADING)
            self._prober = asyncio.get_running_loop().create_task(self._probe(), name="remote-engine-probe")

    async def stop(self, timeout_s: float = 3.0) -> None:
        """End all requests with ModelUnavailable and close the connections."""
        prober, self._prober = self._prober, None
        self._set(EngineState.STOPPED)
        self._turn_away("the engine stops")
        for call in self._calls.values():
            if call.response is not None:
                call.response.close()
        if prober is not None:
            prober.cancel()
            await asyncio.wait({prober}, timeout=timeout_s)
        await self._api.close()

    async def load(self, model_path: str) -> None:  # noqa: ARG002 - the protocol's
        """A remote server chooses its model itself. Raises ModelFileError."""
        raise ModelFileError("the model is chosen on the other server, not here")

    def cancel(self, request_id: str) -> None:
        """End the request: its connection is closed, at which the server stops."""
        call = self._calls.get(request_id)
        if call is None:
            return
        call.cancelled = True
        if not call.turn.done():
            call.turn.set_result(None)
        if call.response is not None:
            call.response.close()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Accepted, Pieces and Finished; see the Engine protocol."""
        check_request(request)
        if self._state is not EngineState.READY or self._facts is None:
            raise ModelUnavailable(f"no model is served: {self._detail or self._state.value}")
        if request.request_id in self._calls:
            raise InvalidGenerationRequest("a request of this id is running")
        call = _Call(request, asyncio.get_running_loop().create_future())
        await self._wait_for_turn(call)
        try:
            if call.cancelled:
                yield Finished("cancelled")
                return
            async for event in self._run(call, self._facts):
                yield event
        finally:
            self._leave(call)

    # --- one request -------------------------------------------------------------------------------------------------

    async def _run(self, call: _Call, facts: ServerFacts) -> AsyncIterator[GenerationEvent]:
        request = call.request
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbits(31)
        try:
            prompt_ids = await self._api.prompt_ids(request.messages, facts)
            call.response = await self._api.begin(request, seed, facts)
            yield Accepted(tuple(prompt_ids), facts.context_window, seed)
            billed, reason = 0, None
            async with contextlib.aclosing(self._api.chunks(call.response)) as chunks:
                async for chunk in chunks:
                    reason = chunk.finish_reason or reason
                    if call.cancelled or billed >= request.max_tokens:
                        break
                    piece = self._piece(chunk, billed, request.max_tokens)
                    if piece is not None:
                        billed += len(piece.token_ids)
                        self._made += len(piece.token_ids)
                        yield piece
        except (OpenAiError, aiohttp.ClientError, TimeoutError) as error:
            if not call.cancelled:
                raise self._translate(error) from error
        if call.cancelled:
            yield Finished("cancelled")
        elif reason in ("stop", "length"):
            yield Finished("stop" if reason == "stop" else "length")
        else:
            raise ModelUnavailable(f"the server at {self._place} broke off")

    def _piece(self, chunk: Chunk, billed: int, max_tokens: int) -> Piece | None:
        """The chunk's text with as many tokens as the server counted for it. Raises OpenAiError if it did not count."""
        if not chunk.text and not chunk.token_ids:
            return None
        if chunk.made_tokens is None and not chunk.is_ids_complete:
            raise OpenAiError("the server gives no token counts while it streams: nothing it makes could be billed")
        count = len(chunk.token_ids) if chunk.made_tokens is None else chunk.made_tokens - billed
        count = max(0, min(count, max_tokens - billed))
        known = chunk.token_ids[-count:] if count else []
        return Piece((*([UNKNOWN_TOKEN_ID] * (count - len(known))), *known), chunk.text)

    def _translate(self, error: Exception) -> GenerationError:
        if isinstance(error, OpenAiError):
            return error.as_generation_error(self._place)
        return ModelUnavailable(f"the server at {self._place} does not answer: {type(error).__name__}")

    # --- turns -------------------------------------------------------------------------------------------------------

    async def _wait_for_turn(self, call: _Call) -> None:
        if self._active < self._parallel and len(self._line) == 0:
            self._active += 1
            call.turn.set_result(None)
            self._calls[call.request.request_id] = call
            self._publish()
            return
        entry = self._line.enter(call.request, time.monotonic())
        self._calls[call.request.request_id] = call
        self._publish()
        try:
            await call.turn
        except BaseException:
            self._line.leave(entry)
            self._calls.pop(call.request.request_id, None)
            raise
        if self._line.leave(entry):  # cancelled while waiting: it has no stream to give back
            self._active += 1

    def _leave(self, call: _Call) -> None:
        if call.response is not None:
            call.response.close()
        self._calls.pop(call.request.request_id, None)
        self._active -= 1
        entry = self._line.next(other.request.job_key for other in self._calls.values() if other.response is not None)
        if entry is not None:
            self._active += 1
            self._calls[entry.request.request_id].turn.set_result(None)
        self._publish()

    def _turn_away(self, why: str) -> None:
        for entry in self._line.clear():
            self._calls[entry.request.request_id].turn.set_exception(ModelUnavailable(why))

    # --- the server's health -------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        asked_at = 0.0
        counted_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - asked_at >= (PROBE_S if self._state is EngineState.READY else _PROBE_AFTER_FAILURE_S):
                await self._ask_server()
                asked_at = now
            for entry, error in self._line.overdue(now):
                self._calls[entry.request.request_id].turn.set_exception(error)
            rate = self._made / max(now - counted_at, 1e-3)
            self._made, counted_at = 0, now
            if rate != self._rate:
                self._rate = rate
                self._publish()
            await asyncio.sleep(self._limits.tick_s)

    async def _ask_server(self) -> None:
        try:
            self._facts = await self._api.facts()
        except (OpenAiError, aiohttp.ClientError, TimeoutError) as error:
            detail = f"the server at {self._place} does not answer: {type(error).__name__}"
            if self._state is not EngineState.RESTARTING:
                log.warning("%s", detail)
            self._set(EngineState.RESTARTING, detail)
            self._turn_away(detail)
            return
        if self._state is not EngineState.READY:
            self._set(EngineState.READY, f"served by {self._place}")

    @property
    def _model(self) -> ModelInfo | None:
        if self._facts is None or self._state is not EngineState.READY:
            return None
        name = self._facts.model.rsplit("/", 1)[-1]
        return ModelInfo(
            name=name,
            path=self._place,
            sha256="0" * 64,  # not known: the file is on another machine
            size_bytes=0,
            architecture="",
            parameter_count=0,
            quantisation="",
            context_window=self._facts.context_window,
            gpu_layers=0,
            layer_count=0,
        )

    def _set(self, state: EngineState, detail: str = "") -> None:
        if (state, detail) != (self._state, self._detail):
            self._state, self._detail = state, detail
            self._publish()

    def _publish(self) -> None:
        self._feed.publish(EngineChanged(self.status))
