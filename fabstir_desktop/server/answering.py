"""One request from admission to `stream_end`: the way of every token that is sold.

A token is in the ledger before its frame is written. Whatever ends the request, its ticket is closed, its client (if it is
still there) is told once, and nothing follows. Refused before anything was begun: one `error`. Begun and broken: `error`,
then `stream_end`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeVar, cast

from fabstir_desktop.errors import (
    AdmissionRefused,
    ContextOverflow,
    DepositExhausted,
    EngineBusy,
    FabstirError,
    GenerationError,
    JobNotValid,
    JobTaken,
    JobUnchecked,
    LedgerError,
    RateLimited,
    WorkerCrashed,
)
from fabstir_desktop.jobs.accounting import Accountant, Ticket
from fabstir_desktop.jobs.generation import (
    Accepted,
    Engine,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Message,
    Piece,
)
from fabstir_desktop.server.blame import Blame
from fabstir_desktop.server.frames import ReplyWriter, Usage
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.server.metrics import ServerMetrics
from fabstir_desktop.server.prompt_size import check_prompt_size
from fabstir_desktop.server.session import CancelReason, PromptRequest

log = logging.getLogger(__name__)

Send = Callable[[bytes], Awaitable[bool]]
"""Writes a text frame, waits while the peer is slow; False once the peer is gone."""

T = TypeVar("T")

_BROKEN_CODES: Final = frozenset({"WORKER_CRASHED", "INTERNAL"})
"""Errors of work that was begun, also where they come before the prompt was accepted."""
_LET_GO_S = 2.0
_BURST = 32
"""Pieces that may be passed on without giving the loop to others."""


class Interrupted(Exception):
    """The request was cancelled while something was waited for; `request.cancelled` says why."""


class Run:
    """A request being answered. `cancel` may be called from outside, everything else belongs to `Answering`."""

    def __init__(self, request: PromptRequest, send: Send) -> None:
        self.request = request
        self.send = send
        self.writer = ReplyWriter(request.prompt.request_id, request.reply_session_id)
        self.ticket: Ticket | None = None
        self.accepted: Accepted | None = None
        self.model = ""
        self.tokens = 0
        self.texts: list[str] = []
        self.has_sent = False
        self.last_event_s = asyncio.get_running_loop().time()
        self.cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def cancel(self) -> None:
        """Let go of whatever is waited for before the first token."""
        if not self.cancelled.done():
            self.cancelled.set_result(None)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        accepted = self.accepted
        if accepted is None:
            return Usage(0, self.tokens, 0)
        return Usage(accepted.prompt_tokens, self.tokens, accepted.context_window)

    @property
    def allowed_tokens(self) -> int | None:
        """The ticket's cap where it is what limits the answer."""
        allowed = self.ticket.allowed_tokens if self.ticket is not None else None
        return allowed if allowed is not None and allowed < self.request.prompt.max_tokens else None


class Answering:
    """Answers requests with an engine's tokens, counted by an accountant."""

    def __init__(
        self,
        engine: Engine,
        accountant: Accountant,
        metrics: ServerMetrics,
        limits: Limits,
        free_use: str,
        admitted: Callable[[PromptRequest], bool],
        contested: Callable[[int], None],
    ) -> None:
        """`admitted` is told of each request whose job was found good; False if the job is another client's.

        `contested` hears of every job that was asked for by a client who is not its own.
        """
        self._engine = engine
        self._accountant = accountant
        self._metrics = metrics
        self._limits = limits
        self._free_use = free_use
        self._admitted = admitted
        self._contested = contested
        self._blame = Blame()

    async def answer(self, run: Run) -> str | None:
        """Serve the request to its end; returns the answer if the exchange is worth remembering. Raises nothing of its own."""
        finish_reason: FinishReason = "error"
        error: Exception | None = None
        try:
            await self._admit(run)
            finish_reason = await self._generate(run)
        except Interrupted:
            finish_reason = "cancelled"
        except Exception as broken:  # noqa: BLE001 - told to the client as INTERNAL and logged; one request is lost, not the host
            error = broken
        finally:
            await self._close_ticket(run, finish_reason)
        if error is not None:
            self._remember(run, error)
            await self._tell_error(run, error)
            return None
        await self._tell_end(run, finish_reason)
        return "".join(run.texts) if run.accepted is not None and finish_reason != "error" else None

    # --- before the first token -------------------------------------------------------------------------------------

    async def _admit(self, run: Run) -> None:
        request = run.request
        held_s = self._blame.held_s(request, asyncio.get_running_loop().time())
        if held_s > 0:
            raise RateLimited(
                "the model process died under your prompts several times", retry_after_s=math.ceil(held_s)
            )
        if request.job_id is None:
            self._check_free_use(request)
            return
        admission = self._accountant.admit(
            request.job_id, request.session.account_name, request.peer.address, request.prompt.max_tokens
        )
        run.ticket = await self._unless_cancelled(run, admission, self._take_back)
        if not self._admitted(request):
            raise JobTaken("this job is in use by another client")
        if run.ticket.allowed_tokens is not None and run.ticket.allowed_tokens < 1:
            raise DepositExhausted("the job's deposit covers no further token")

    def _check_free_use(self, request: PromptRequest) -> None:
        if self._free_use == "everyone" or (self._free_use == "loopback" and request.peer.is_local):
            return
        raise JobNotValid("this host serves paid jobs only: name one in job_id")

    async def _take_back(self, ticket: Ticket) -> None:
        """A ticket that came after its request was cancelled."""
        await self._accountant.finish(ticket, "cancelled")

    async def _unless_cancelled(
        self, run: Run, work: Coroutine[Any, Any, T], too_late: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """The work's result. Raises Interrupted if the request is cancelled first, EngineBusy after `admission_s`.

        A result is either returned or given to `too_late`, never both: a ticket must not be closed and used.
        """
        if run.cancelled.done():  # also before its first step: then nothing is begun, and no place in the line is taken
            work.close()
            raise Interrupted
        task = asyncio.get_running_loop().create_task(work)
        limit_s = self._limits.admission_s if too_late is not None else None
        is_wanted = False
        try:
            either: set[asyncio.Future[Any]] = {task, run.cancelled}
            await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if run.cancelled.done():
                raise Interrupted
            if not task.done():
                raise EngineBusy("the job could not be checked in time", position=0, retry_after_s=5.0)
            is_wanted = True
            return task.result()
        finally:
            if not is_wanted:
                await _let_go(task, too_late)

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def _generate(self, run: Run) -> FinishReason:
        model = self._engine.status.model
        run.model = model.name if model is not None else ""
        turns = run.request.session.turns_for(run.request, model.context_window if model is not None else 2048)
        while True:
            stream = cast("AsyncGenerator[GenerationEvent]", self._engine.generate(self._generation(run, turns)))
            async with aclosing(stream):
                try:
                    check_prompt_size(turns, self._engine.status)
                    first = await self._unless_cancelled(run, _next(stream))
                except ContextOverflow:
                    if len(turns) <= 1 or run.request.prompt.context is not None:
                        raise
                    turns = _forget_half(turns)  # only what we kept ourselves is forgotten, never what was sent
                    continue
                return await self._deliver(run, turns, first, stream)

    def _generation(self, run: Run, turns: tuple[Message, ...]) -> GenerationRequest:
        request, prompt = run.request, run.request.prompt
        allowed = run.allowed_tokens
        return GenerationRequest(
            request_id=request.key,
            messages=turns,
            max_tokens=prompt.max_tokens if allowed is None else allowed,
            sampling=prompt.sampling,
            stop=prompt.stop,
            job_key="" if request.job_id is None else str(request.job_id),
            cache_key=request.session.cache_key,
            client=request.peer.group,
        )

    async def _deliver(
        self, run: Run, turns: tuple[Message, ...], first: GenerationEvent, stream: AsyncGenerator[GenerationEvent]
    ) -> FinishReason:
        if isinstance(first, Finished):
            return first.finish_reason
        if not isinstance(first, Accepted):
            raise TypeError("the engine gave tokens before it accepted the prompt")
        run.accepted = first
        if run.ticket is not None:
            await self._accountant.begin(run.ticket, self._generation(run, turns), first)
        clock = asyncio.get_running_loop().time
        pieces = 0
        async for event in stream:
            run.last_event_s = clock()
            if isinstance(event, Piece):
                if not await self._pass_on(run, event):
                    return "cancelled"
                pieces += 1
                if pieces % _BURST == 0:
                    await asyncio.sleep(0)
            elif isinstance(event, Finished):
                return await self._last_text(run, event)
        raise RuntimeError("the engine's stream ended without an ending")

    async def _pass_on(self, run: Run, piece: Piece) -> bool:
        """Count, then send. False if the client is gone; what was counted stays counted."""
        count = len(piece.token_ids)
        if run.ticket is not None:
            await self._accountant.record(run.ticket, piece.token_ids)
            self._metrics.tokens_by_kind["job"] += count
        else:
            self._metrics.tokens_by_kind["free"] += count
        run.tokens += count
        run.texts.append(piece.text)
        run.has_sent = True
        return await run.send(run.writer.chunk(piece.text, count))

    @staticmethod
    async def _last_text(run: Run, finished: Finished) -> FinishReason:
        """Text that was held back carries no token. An answer without a frame gets an empty one: SDKs wait for the first."""
        if finished.text or (not run.has_sent and finished.finish_reason in {"stop", "length"}):
            run.texts.append(finished.text)
            await run.send(run.writer.chunk(finished.text, 0))
        return finished.finish_reason

    # --- endings ----------------------------------------------------------------------------------------------------

    async def _close_ticket(self, run: Run, finish_reason: FinishReason) -> None:
        if run.ticket is None:
            return
        try:
            await self._accountant.finish(run.ticket, finish_reason)
        except FabstirError as error:
            log.warning("the ticket of job %d was not closed: %s", run.ticket.job_id, error)

    async def _tell_end(self, run: Run, finish_reason: FinishReason) -> None:
        cancelled = run.request.cancelled
        if finish_reason == "cancelled" and cancelled is CancelReason.STOPPING:
            await self._fail(run, "SHUTTING_DOWN", "the host is stopping")
        elif finish_reason == "cancelled" and cancelled is CancelReason.STALLED:
            await self._fail(run, "INTERNAL", "the model gave no token for too long")
        elif finish_reason == "error":
            await self._fail(run, "INTERNAL", "the model failed")
        else:
            self._metrics.requests_by_outcome[finish_reason] += 1
            further: dict[str, Any] = {}
            if finish_reason == "length" and run.allowed_tokens == run.tokens:
                further["allowed_tokens"] = run.allowed_tokens  # the job's means ended the answer, not max_tokens
            await run.send(run.writer.end(finish_reason, run.usage, run.model, **further))

    def _remember(self, run: Run, error: Exception) -> None:
        """What an error says about its client, beyond this request."""
        job_id = run.request.job_id
        if isinstance(error, JobTaken) and job_id is not None:
            self._contested(job_id)
        elif isinstance(error, WorkerCrashed) and not run.has_sent:
            self._blame.note(run.request, asyncio.get_running_loop().time())

    async def _tell_error(self, run: Run, error: Exception) -> None:
        match error:
            case EngineBusy():
                await self._fail(
                    run, error.code, str(error), retry_after_s=error.retry_after_s, position=error.position
                )
            case ContextOverflow():
                window = error.context_window
                await self._fail(
                    run, error.code, str(error), prompt_tokens=error.prompt_tokens, context_window_size=window
                )
            case RateLimited() | JobUnchecked():
                await self._fail(run, error.code, str(error), retry_after_s=error.retry_after_s)
            case GenerationError() | AdmissionRefused():
                await self._fail(run, error.code, str(error))
            case LedgerError():
                log.error("a request of job %s ended: %s", run.request.job_id, error)
                await self._fail(run, "INTERNAL", "the ledger cannot be written: serving stops to protect earnings")
            case FabstirError():
                log.warning("a request of job %s ended: %s", run.request.job_id, error)
                await self._fail(run, "INTERNAL", "the request could not be served")
            case _:
                # the text of a foreign exception may hold a prompt: type and place only
                log.error("a request failed: %s at %s", type(error).__name__, _place_of(error))
                await self._fail(run, "INTERNAL", "the request could not be served")

    async def _fail(self, run: Run, code: str, message: str, **further: Any) -> None:
        was_begun = run.accepted is not None or code in _BROKEN_CODES
        self._metrics.requests_by_outcome["error" if was_begun else "refused"] += 1
        self._metrics.errors_by_code[code] += 1
        if await run.send(run.writer.error(code, message, **further)) and was_begun:
            await run.send(run.writer.end("error", run.usage, run.model))


async def _next(stream: AsyncGenerator[GenerationEvent]) -> GenerationEvent:
    return await anext(stream)


async def _let_go(task: asyncio.Task[T], too_late: Callable[[T], Awaitable[None]] | None) -> None:
    """End work that nobody waits for any more; what it still brought goes to `too_late`."""
    task.cancel()
    await asyncio.wait({task}, timeout=_LET_GO_S)
    is_result = task.done() and not task.cancelled() and task.exception() is None
    if is_result and too_late is not None:
        await too_late(task.result())


def _forget_half(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    kept = turns[(len(turns) + 1) // 2 :] if len(turns) > 2 else turns[-1:]
    while len(kept) > 1 and kept[0].role == "assistant":
        kept = kept[1:]
    return kept


def _place_of(error: BaseException) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "unknown place"
    code = traceback.tb_frame.f_code
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} ({code.co_name})"
