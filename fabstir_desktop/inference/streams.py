"""A request on its way, as its reader sees it: events gather here between the worker and whoever iterates."""

from __future__ import annotations

import asyncio
import math

from fabstir_desktop.errors import GenerationError, InvalidGenerationRequest
from fabstir_desktop.inference import wire
from fabstir_desktop.inference.line import Waiting
from fabstir_desktop.jobs.generation import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Piece,
    SamplingParameters,
)

ROLES = frozenset({"system", "user", "assistant", "tool", "developer"})
MAX_TOKENS = 2**31 - 1
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_MESSAGES = 1000
MAX_PROMPT_BYTES = 8 * 1024 * 1024
_MAX_SEED = 2**32 - 1


class RequestStream:
    """One request's events. Tokens that gathered while the reader was busy come as one Piece."""

    __slots__ = (
        "_accepted", "_error", "_finished", "_ids", "_texts", "_waiter",
        "first_token_made", "held", "is_leaving", "is_long", "is_prepared", "number", "over", "prompt_hash", "quiet_s",
        "request", "seed", "waiting",
    )  # fmt: skip

    def __init__(self, request: GenerationRequest, prompt_hash: bytes, seed: int) -> None:
        self.request = request
        self.prompt_hash = prompt_hash
        self.seed = seed
        self.number = 0
        """The stream's number in the worker; 0 while it waits."""
        self.waiting: Waiting | None = None
        self.held = False
        self.is_leaving = False
        """Whether the worker was told to end it and has not said yet that it did."""
        self.over = False
        """Whether the last event (or an error) is there; nothing is taken after it."""
        self.first_token_made = False
        self.is_long = False
        """In which of the worker's lanes it is prepared."""
        self.is_prepared = False
        """Whether the worker has tokenised its prompt, so that it is in the batch."""
        self.quiet_s = 0.0
        """How long the worker owes it a sign, as the watchdog counts."""
        self._accepted: Accepted | None = None
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._finished: Finished | None = None
        self._error: GenerationError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, number: int) -> wire.Begin:
        """What the worker is told of it, under this number."""
        request, sampling = self.request, self.request.sampling
        self.number = number
        begin = wire.Begin(
            stream=number,
            messages=[(message.role, message.content) for message in request.messages],
            max_tokens=request.max_tokens,
            sampling=wire.Sampling(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
                repeat_penalty=sampling.repeat_penalty,
                frequency_penalty=sampling.frequency_penalty,
                presence_penalty=sampling.presence_penalty,
                seed=self.seed,
            ),
            stop=list(request.stop),
            job_key=request.job_key,
            cache_key=request.cache_key,
        )
        self.is_long = wire.is_long(begin)
        return begin

    @property
    def unread_tokens(self) -> int:
        """Tokens that the reader has not taken."""
        return len(self._ids)

    def accept(self, prompt_ids: tuple[int, ...], context_window: int) -> None:
        """The prompt fits."""
        self.is_prepared = True
        self.quiet_s = 0.0
        self._accepted = Accepted(prompt_ids, context_window, self.seed)
        self._wake()

    def add(self, token_id: int, text: str) -> None:
        """A token was sampled. One that comes after the end is nobody's: it is neither delivered nor counted."""
        if self.over:
            return
        self.first_token_made = True
        self.quiet_s = 0.0
        self._ids.append(token_id)
        self._texts.append(text)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def finish(self, reason: FinishReason, text: str = "") -> None:
        """The request ended well."""
        if not self.over:
            self.over = True
            self._finished = Finished(reason, text)
            self._wake()

    def fail(self, error: GenerationError) -> None:
        """The request ended badly; what was made before is still delivered first."""
        if not self.over:
            self.over = True
            self._error = error
            self._wake()

    async def next(self) -> GenerationEvent:
        """The next event; raises the request's error after the events before it."""
        while True:
            if self._accepted is not None:
                accepted, self._accepted = self._accepted, None
                return accepted
            if self._ids:
                piece = Piece(tuple(self._ids), "".join(self._texts))
                self._ids.clear()
                self._texts.clear()
                return piece
            if self._finished is not None:
                return self._finished
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def check_request(request: GenerationRequest) -> None:
    """Raises InvalidGenerationRequest for what no engine should be asked."""
    if isinstance(request.max_tokens, bool) or not 1 <= request.max_tokens <= MAX_TOKENS:
        raise InvalidGenerationRequest("max_tokens must be at least 1")
    if not 1 <= len(request.messages) <= MAX_MESSAGES:
        raise InvalidGenerationRequest(f"a conversation has 1 to {MAX_MESSAGES} messages")
    if any(message.role not in ROLES for message in request.messages):
        raise InvalidGenerationRequest(f"a role must be one of {', '.join(sorted(ROLES))}")
    try:
        size = sum(len(message.content.encode()) for message in request.messages)
        "".join((*request.stop, request.job_key, request.cache_key or "")).encode()
    except UnicodeEncodeError:
        raise InvalidGenerationRequest("a text holds half a character (a lone surrogate)") from None
    if size > MAX_PROMPT_BYTES:
        raise InvalidGenerationRequest("the conversation is too long")
    if len(request.stop) > MAX_STOPS or any(not 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in request.stop):
        raise InvalidGenerationRequest(f"stop may hold {MAX_STOPS} texts of 1 to {MAX_STOP_CHARACTERS} characters")
    check_sampling(request.sampling)


def check_sampling(sampling: SamplingParameters) -> None:
    """Raises InvalidGenerationRequest for values out of range or not finite."""
    bounds: tuple[tuple[str, float, float], ...] = (
        ("temperature", 0.0, 5.0),
        ("top_p", 0.0, 1.0),
        ("min_p", 0.0, 1.0),
        ("repeat_penalty", 0.01, 10.0),
        ("frequency_penalty", -2.0, 2.0),
        ("presence_penalty", -2.0, 2.0),
        ("top_k", 0, 1_000_000),
    )
    for name, low, high in bounds:
        value = getattr(sampling, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidGenerationRequest(f"{name} must be a number")
        if not math.isfinite(value) or not low <= value <= high:
            raise InvalidGenerationRequest(f"{name} must lie between {low:g} and {high:g}")
    if not isinstance(sampling.top_k, int):
        raise InvalidGenerationRequest("top_k must be a whole number")
    seed = sampling.seed
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MAX_SEED):
        raise InvalidGenerationRequest("seed must be a whole number from 0 to 4294967295")
