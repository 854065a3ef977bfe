"""The decode loop's inside: streams join, every step gives each a token, streams leave. Works on a loaded model."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from fabstir_desktop.inference import wire
from fabstir_desktop.inference.answers import Answer
from fabstir_desktop.inference.backend import Context, Model, Sampler
from fabstir_desktop.inference.llama import Batch, ContextOptions, DecodeError
from fabstir_desktop.inference.preparation import Prepared
from fabstir_desktop.inference.scheduler import (
    CacheAction,
    Cut,
    FillPrefix,
    Keep,
    Move,
    Owner,
    Row,
    Scheduler,
    Stream,
)

TOLERABLE_GAP_S = 0.15
"""How long the tokens of running streams may stop for a newcomer's prompt."""
LARGEST_GAP_S = 0.6
"""The same when several newcomers wait: the more wait for a first token, the longer the others may wait for their next."""
SMALLEST_CHUNK_TOKENS = 16
FIRST_CHUNK_TOKENS = 128
"""Read before it is known how fast the machine reads."""
LONGEST_STEP_S = 2.0
"""Of a step that reads prompts while nobody waits for tokens: between steps cancels are heard, and the parent hears of us."""
TOLERABLE_MOVE_S = 0.05
"""How long all streams may stand while one's cells are copied beside the others'."""
LARGEST_SHARE = 4
"""A conversation larger than this part of the room for kept ones is not kept: it would drive out the others."""


@dataclass(frozen=True, slots=True)
class Running:
    """What a running stream needs beside its place in the batch."""

    stream: Stream
    sampler: Sampler
    answer: Answer


class SessionCache:
    """Cells of conversations that lost their slot, least recently used first out."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._states: OrderedDict[Owner, bytes] = OrderedDict()

    def put(self, owner: Owner, state: bytes) -> list[Owner]:
        """Keep a state; returns the owners whose states had to go."""
        self._size -= len(self._states.pop(owner, b""))
        self._states[owner] = state
        self._size += len(state)
        dropped: list[Owner] = []
        while self._size > self._limit and self._states:
            old, gone = self._states.popitem(last=False)
            self._size -= len(gone)
            dropped.append(old)
        return dropped

    def fits(self, size: int) -> bool:
        """Whether a state of so many bytes is worth keeping."""
        return size <= self._limit // LARGEST_SHARE

    def drop(self, owner: Owner) -> None:
        """Forget the owner's state."""
        self._size -= len(self._states.pop(owner, b""))

    def get(self, owner: Owner) -> bytes | None:
        """The owner's state, if it is still there."""
        if owner in self._states:
            self._states.move_to_end(owner)
        return self._states.get(owner)

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()
        self._size = 0


class EngineCore:
    """Runs prepared requests on one model. Not thread-safe: the decode thread owns it."""

    def __init__(self, model: Model, options: ContextOptions, prefix: list[int], cache_bytes: int) -> None:
        self._model = model
        self._options = options
        self._cache = SessionCache(cache_bytes)
        self._batch = Batch(options.batch_tokens)
        self._running: dict[int, Running] = {}
        self._prefill_rate = 0.0  # tokens a second, measured
        self._move_rate = 0.0  # cells a second, measured
        self._begun_anew: set[int] = set()
        self._prefix = prefix
        self._context: Context = model.new_context(options)
        # llama.cpp rounds its own window up; what clients are told is the smaller one.
        self.window = min(self._context.window, options.window)
        self._prefix_state = self._compute_prefix()
        self._scheduler = self._new_scheduler()

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return any(not running.stream.held or running.stream.next_id is None for running in self._running.values())

    def begin(self, prepared: Prepared, report: StepReport) -> None:
        """Let a request join the batch."""
        begin = prepared.begin
        room = self.window - len(prepared.prompt_ids)
        owner = (begin.job_key, begin.cache_key) if begin.cache_key is not None else None
        stream = Stream(begin.stream, prepared.prompt_ids, begin.job_key, owner)
        self._running[begin.stream] = Running(
            stream,
            self._model.new_sampler(begin.sampling),
            Answer(min(begin.max_tokens, room), begin.stop),
        )
        report.accepted.append(wire.Accepted(begin.stream, list(prepared.prompt_ids)))
        try:
            self._carry_out(self._scheduler.join(stream))
        except DecodeError as error:  # of a neighbour that had to be read again
            self._rebuild(str(error), report)

    def cancel(self, number: int, report: StepReport) -> bool:
        """End a stream now; False if there is none of this number."""
        if number not in self._running:
            return False
        self._end(number, "cancelled", report)
        return True

    def hold(self, number: int, held: bool) -> None:
        """Let a stream rest, or go on."""
        running = self._running.get(number)
        if running is not None:
            running.stream.held = held

    def forget(self, cache_key: str) -> None:
        """The conversation is over: its cells are given back."""
        owners, actions = self._scheduler.forget(cache_key)
        for owner in owners:
            self._cache.drop(owner)
        self._carry_out(actions)

    def step(self, report: StepReport) -> None:
        """One decode step. A failure of llama.cpp ends all streams and rebuilds the context."""
        try:
            self._carry_out(self._scheduler.compact(self._movable_cells()))
            self._compute(report)
        except DecodeError as error:
            self._rebuild(str(error), report)
        report.prefilling = self._scheduler.prefilling

    def close(self) -> None:
        """Free what belongs to llama.cpp."""
        for running in self._running.values():
            running.sampler.close()
        self._context.close()

    def _compute(self, report: StepReport) -> None:
        rows = self._scheduler.rows(self._chunk_tokens(), self._unit_tokens())
        if not rows:
            return
        batch = self._batch
        batch.clear()
        wanted: list[tuple[Row, int]] = []
        for row in rows:
            index = batch.add(row.slot, row.position, row.tokens, output=row.wants_token)
            if row.wants_token:
                wanted.append((row, index))
        started = time.perf_counter()
        self._context.decode(batch)
        for row, index in wanted:
            self._take_token(row, index, report)
        self._learn_rate(rows, time.perf_counter() - started)

    # --- tokens ----------------------------------------------------------------------------------------------------

    def _take_token(self, row: Row, index: int, report: StepReport) -> None:
        number = row.stream.number
        running = self._running[number]
        token = running.sampler.sample(self._context, index)
        taken = running.answer.take(None if self._model.is_end(token) else self._model.piece(token))
        if taken.is_billed:
            report.pieces.append((number, token, taken.text))
        if taken.ending is not None:
            self._end(number, taken.ending, report)
        else:
            self._scheduler.sampled(row, token)

    def _end(self, number: int, reason: str, report: StepReport) -> None:
        running = self._running.pop(number)
        running.sampler.close()
        self._scheduler.leave(number)
        report.ended.append(wire.Ended(number, reason, running.answer.finish()))

    # --- pace ------------------------------------------------------------------------------------------------------

    def _chunk_tokens(self) -> int:
        """Prompt tokens that fit into the time that running streams may be kept waiting."""
        if self._prefill_rate <= 0:
            return FIRST_CHUNK_TOKENS
        gap_s = min(TOLERABLE_GAP_S * self._scheduler.newcomers, LARGEST_GAP_S)
        return max(SMALLEST_CHUNK_TOKENS, int(self._prefill_rate * gap_s))

    def _unit_tokens(self) -> int:
        """Prompt tokens of a step when nobody waits for tokens."""
        if self._prefill_rate <= 0:
            return FIRST_CHUNK_TOKENS
        return max(2 * SMALLEST_CHUNK_TOKENS, int(self._prefill_rate * LONGEST_STEP_S))

    def _movable_cells(self) -> int | None:
        """Cells that can be copied in the time that streams may stand; None before a move was measured."""
        return int(self._move_rate * TOLERABLE_MOVE_S) if self._move_rate > 0 else None

    def _learn_rate(self, rows: list[Row], elapsed_s: float) -> None:
        read = sum(len(row.tokens) for row in rows if len(row.tokens) > 1)
        if read >= SMALLEST_CHUNK_TOKENS and elapsed_s > 0:
            rate = read / elapsed_s
            self._prefill_rate = rate if self._prefill_rate == 0 else 0.7 * self._prefill_rate + 0.3 * rate

    # --- the cache -------------------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[CacheAction]) -> None:
        """Do what the scheduler planned, in order. Its books show the state after all of it: a slot that had to begin anew on
        the way takes none of what was still planned for it."""
        self._begun_anew.clear()
        for action in actions:
            if isinstance(action, Keep):
                self._keep(action)
            elif isinstance(action, Move):
                self._move(action)
            elif action.slot in self._begun_anew:
                continue
            elif isinstance(action, Cut):
                self._cut(action)
            elif isinstance(action, FillPrefix):
                self._fill(action.slot, self._prefix_state, len(self._prefix))
            else:
                self._fill(action.slot, self._cache.get(action.owner), action.start)

    def _keep(self, action: Keep) -> None:
        if not self._cache.fits(self._context.state_bytes(action.slot)):
            self._cache.drop(action.owner)
            self._scheduler.kept.pop(action.owner, None)
            return
        for dropped in self._cache.put(action.owner, self._context.save(action.slot)):
            self._scheduler.kept.pop(dropped, None)

    def _move(self, action: Move) -> None:
        cells = len(self._scheduler.slots[action.target].tokens)
        started = time.perf_counter()
        state = self._context.save(action.source)
        self._context.cut(action.source, 0)
        self._fill(action.target, state, None)
        if cells >= SMALLEST_CHUNK_TOKENS:
            rate = cells / max(time.perf_counter() - started, 1e-6)
            self._move_rate = rate if self._move_rate == 0 else 0.7 * self._move_rate + 0.3 * rate

    def _cut(self, action: Cut) -> None:
        if not self._context.cut(action.slot, action.start):
            self._restart_slot(action.slot)

    def _fill(self, slot: int, state: bytes | None, keep_tokens: int | None) -> None:
        """Put saved cells into a slot, and drop those from `keep_tokens` on; where that fails the slot begins anew."""
        filled = state is not None and self._context.restore(slot, state)
        if not filled or (keep_tokens is not None and not self._context.cut(slot, keep_tokens)):
            self._restart_slot(slot)

    def _restart_slot(self, slot: int) -> None:
        """Empty the slot; a stream in it reads its prompt, and what it made so far, again."""
        self._begun_anew.add(slot)
        self._context.cut(slot, 0)
        place = self._scheduler.slots[slot]
        stream = place.stream
        if stream is not None and stream.next_id is not None:
            # Read again as if it were prompt; the token in hand stays the next one.
            self._read_again(slot, place.tokens)
            return
        place.tokens.clear()
        if stream is not None:
            stream.done = 0

    def _read_again(self, slot: int, tokens: list[int]) -> None:
        for start in range(0, len(tokens), self._options.unit_tokens):
            part = tokens[start : start + self._options.unit_tokens]
            self._batch.clear()
            self._batch.add(slot, start, part, output=False)
            self._context.decode(self._batch)

    def _compute_prefix(self) -> bytes | None:
        """The template's common beginning, computed once."""
        if not self._prefix or len(self._prefix) >= min(self.window, self._options.batch_tokens):
            self._prefix = []
            return None
        self._batch.clear()
        self._batch.add(0, 0, self._prefix, output=False)
        self._context.decode(self._batch)
        state = self._context.save(0)
        self._context.cut(0, 0)
        return state

    def _rebuild(self, reason: str, report: StepReport) -> None:
        """After a failed step nothing in the context is trusted."""
        for number, running in list(self._running.items()):
            running.sampler.close()
            report.refused.append(wire.Refused(number, wire.BROKEN, reason))
        self._running.clear()
        self._cache.clear()
        self._context.close()
        self._context = self._model.new_context(self._options)
        self._prefix_state = self._compute_prefix()
        self._scheduler = self._new_scheduler()

    def _new_scheduler(self) -> Scheduler:
        return Scheduler(self._options.sequences, unit_tokens=self._options.unit_tokens, prefix=self._prefix)


class StepReport:
    """Gathers what is to be told to the parent after a step."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, int, str]] = []
        self.ended: list[wire.Ended] = []
        self.accepted: list[wire.Accepted] = []
        self.refused: list[wire.Refused] = []
        self.prefilling = False

    def message(self) -> wire.Step:
        """The report as a message."""
        return wire.Step(self.pieces, self.ended, self.accepted, self.refused, self.prefilling)
