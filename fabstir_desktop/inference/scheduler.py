"""What goes into the next decode step: which streams, which slots, how much of which prompt. Pure, without a model.

A slot is one sequence of the KV cache. Three measured facts shape the rules:
- llama.cpp computes neighbouring slots together and others one after the other, so running streams are kept side by side:
  a stream is moved (its cells copied) when a neighbour left.
- A long prompt in one step stops the others' tokens for as long as it takes, so prompts are read in chunks that fit the
  time another stream may wait (the longer, the more newcomers wait); when nobody waits for tokens, chunks are as large as
  the machine's unit of work.
- What a conversation left in a slot is kept until the slot is needed, so its next prompt is read only from where it is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Owner = tuple[str, str]
"""A conversation: its job's key and its own. Cells are never reused for another."""


@dataclass(slots=True, eq=False)
class Stream:
    """A running request, as the scheduler sees it."""

    number: int
    prompt_ids: tuple[int, ...]
    job_key: str = ""
    owner: Owner | None = None
    slot: int = -1
    done: int = 0
    """Tokens of the prompt that are in the cache."""
    next_id: int | None = None
    """The token sampled last, not in the cache yet; None while the prompt is read."""
    held: bool = False

    @property
    def remaining(self) -> int:
        """Prompt tokens still to be read."""
        return len(self.prompt_ids) - self.done


@dataclass(slots=True)
class Slot:
    """A sequence of the cache: the tokens in it, whose they are, and who runs in it now."""

    tokens: list[int] = field(default_factory=list)
    owner: Owner | None = None
    stream: Stream | None = None
    used_at: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of one stream in a step, from `position` on. Only with `wants_token` is a token sampled after the last."""

    stream: Stream
    slot: int
    position: int
    tokens: Sequence[int]
    wants_token: bool


@dataclass(frozen=True, slots=True)
class Keep:
    """Save the slot's cells for their owner before they are overwritten."""

    slot: int
    owner: Owner
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the slot's cells from `start` on."""

    slot: int
    start: int


@dataclass(frozen=True, slots=True)
class FillPrefix:
    """Put the template's common beginning into the empty slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Put the cells that were kept for `owner` into the empty slot, then drop those from `start` on."""

    slot: int
    owner: Owner
    start: int


@dataclass(frozen=True, slots=True)
class Move:
    """Copy the cells of `source` to the empty slot `target`; `source` is empty then."""

    source: int
    target: int


CacheAction = Keep | Cut | FillPrefix | Restore | Move


class Scheduler:
    """Place streams in slots and plan steps. The caller carries out the cache actions in order, before the rows."""

    def __init__(
        self, slots: int, *, unit_tokens: int = 512, prefix: Sequence[int] = (), minimum_reuse_tokens: int = 16
    ) -> None:
        self.slots = [Slot() for _ in range(slots)]
        self.streams: dict[int, Stream] = {}
        self.kept: dict[Owner, tuple[int, ...]] = {}
        """What the caller keeps outside the slots; the caller removes what it drops."""
        self._unit = unit_tokens
        self._prefix = tuple(prefix)
        self._minimum_reuse = minimum_reuse_tokens
        self._clock = 0
        self._read_by_job: dict[str, int] = {}

    # --- joining and leaving -------------------------------------------------------------------------------------

    def join(self, stream: Stream) -> list[CacheAction]:
        """Give the stream a slot beside the running ones, with as much of its prompt as is known already."""
        index, actions = self._place(stream)
        slot = self.slots[index]
        slot.stream = stream
        slot.owner = stream.owner
        stream.slot = index
        stream.done = len(slot.tokens)
        self.streams[stream.number] = stream
        if not any(other.job_key == stream.job_key for other in self.streams.values() if other is not stream):
            # A job that comes back starts level with the others: it has no claim on what it did not use.
            self._read_by_job[stream.job_key] = min(self._read_by_job.values(), default=0)
        return actions

    def leave(self, number: int) -> Stream | None:
        """The stream is over. Its cells stay for its conversation; without one they are dropped with the slot's next use."""
        stream = self.streams.pop(number, None)
        if stream is None:
            return None
        slot = self.slots[stream.slot]
        slot.stream = None
        self._clock += 1
        slot.used_at = self._clock
        if not any(other.job_key == stream.job_key for other in self.streams.values()):
            self._read_by_job.pop(stream.job_key, None)
        return stream

    def sampled(self, row: Row, token: int) -> None:
        """The row's stream goes on with `token`."""
        row.stream.next_id = token

    def forget(self, cache_key: str) -> tuple[list[Owner], list[CacheAction]]:
        """A conversation is over: it owns nothing any more. Returns the owners of it that were known, and what to drop."""
        owners = [owner for owner in self.kept if owner[1] == cache_key]
        actions: list[CacheAction] = []
        for owner in owners:
            del self.kept[owner]
        for index, slot in enumerate(self.slots):
            if slot.owner is None or slot.owner[1] != cache_key:
                continue
            slot.owner = None
            if slot.stream is not None:
                slot.stream.owner = None
            elif slot.tokens:
                slot.tokens = []
                actions.append(Cut(index, 0))
        return owners, actions

    # --- a step ----------------------------------------------------------------------------------------------------

    def compact(self, most_cells: int | None = None) -> list[CacheAction]:
        """Moves that bring the running streams side by side again; none when they are, or when more than `most_cells` would
        have to be copied for it (None: as many as it takes)."""
        running = sorted(stream.slot for stream in self.streams.values())
        if not running or running[-1] - running[0] + 1 == len(running):
            return []
        actions: list[CacheAction] = []
        start = self._best_window(running, len(running))
        gaps = [index for index in range(start, start + len(running)) if self.slots[index].stream is None]
        outside = [index for index in running if not start <= index < start + len(running)]
        if most_cells is not None and sum(len(self.slots[index].tokens) for index in outside) > most_cells:
            return []
        for source, target in zip(outside, gaps, strict=True):
            actions += self._vacate(target)
            self._swap_in(source, target)
            actions.append(Move(source, target))
        return actions

    def rows(self, chunk_tokens: int, idle_tokens: int | None = None) -> list[Row]:
        """The next step: a token for every running stream, and prompts up to `chunk_tokens`.

        If no stream waits for tokens, prompts up to `idle_tokens` (None: all of a unit).
        """
        tokens_by_stream = self._shares(chunk_tokens, self._unit if idle_tokens is None else idle_tokens)
        rows: list[Row] = []
        for stream in sorted(self.streams.values(), key=lambda stream: stream.slot):
            slot = self.slots[stream.slot]
            position = len(slot.tokens)
            if stream.next_id is not None:
                if stream.held:
                    continue
                tokens: Sequence[int] = (stream.next_id,)
                wants_token = True
            else:
                share = tokens_by_stream.get(stream.number, 0)
                if share == 0:
                    continue
                tokens = stream.prompt_ids[stream.done : stream.done + share]
                stream.done += share
                wants_token = stream.done == len(stream.prompt_ids)
            slot.tokens.extend(tokens)
            rows.append(Row(stream, stream.slot, position, tokens, wants_token))
        return rows

    @property
    def prefilling(self) -> bool:
        """Whether a prompt is still being read."""
        return self.newcomers > 0

    @property
    def newcomers(self) -> int:
        """Streams whose prompt is still being read."""
        return sum(stream.next_id is None for stream in self.streams.values())

    def _shares(self, chunk_tokens: int, idle_tokens: int) -> dict[int, int]:
        """How many prompt tokens each stream may read now: an even share for each job, the rest to who read least."""
        waiting = [stream for stream in self.streams.values() if stream.next_id is None and stream.remaining]
        if not waiting:
            return {}
        decoding = any(stream.next_id is not None and not stream.held for stream in self.streams.values())
        budget = min(chunk_tokens if decoding else idle_tokens, self._unit)
        shares: dict[int, int] = dict.fromkeys((stream.number for stream in waiting), 0)
        while budget > 0:
            open_jobs = {stream.job_key for stream in waiting if shares[stream.number] < stream.remaining}
            if not open_jobs:
                break
            order = sorted(open_jobs, key=lambda job: self._read_by_job.get(job, 0))
            even = max(budget // len(order), 1)
            for job in order:
                given = self._give(job, min(even, budget), waiting, shares)
                budget -= given
                if budget <= 0:
                    break
        return shares

    def _give(self, job: str, amount: int, waiting: Sequence[Stream], shares: dict[int, int]) -> int:
        """Hand `amount` prompt tokens to the job's streams, first come first; returns what they took."""
        given = 0
        for stream in waiting:
            if stream.job_key == job and given < amount:
                take = min(stream.remaining - shares[stream.number], amount - given)
                shares[stream.number] += take
                given += take
        self._read_by_job[job] = self._read_by_job.get(job, 0) + given
        return given

    # --- slots -----------------------------------------------------------------------------------------------------

    def _place(self, stream: Stream) -> tuple[int, list[CacheAction]]:
        index = self._neighbour_slot(stream)
        slot = self.slots[index]
        actions: list[CacheAction] = []
        resident = self._resident(stream)
        if resident is not None and resident != index:
            actions += self._vacate(index)
            self._swap_in(resident, index)
            actions.append(Move(resident, index))
            slot = self.slots[index]
        if stream.owner is not None and slot.owner == stream.owner and slot.stream is None:
            common = _common(slot.tokens, stream.prompt_ids)
            if common >= max(self._minimum_reuse, len(self._prefix)):
                if common < len(slot.tokens):
                    actions.append(Cut(index, common))
                    del slot.tokens[common:]
                return index, actions
            slot.owner = None  # too little in common: not worth keeping either
        actions += self._vacate(index)
        actions += self._fill(index, stream)
        return index, actions

    def _fill(self, index: int, stream: Stream) -> Iterator[CacheAction]:
        """Put into the empty slot what is known of the stream's prompt."""
        slot = self.slots[index]
        kept = self.kept.get(stream.owner, ()) if stream.owner is not None else ()
        common = _common(kept, stream.prompt_ids)
        if stream.owner is not None and common >= max(self._minimum_reuse, len(self._prefix) + 1):
            slot.tokens = list(kept[:common])
            yield Restore(index, stream.owner, common)
            return
        if self._prefix and _common(self._prefix, stream.prompt_ids) == len(self._prefix):
            slot.tokens = list(self._prefix)
            yield FillPrefix(index)

    def _vacate(self, index: int) -> list[CacheAction]:
        """Empty a slot that nobody runs in; what a conversation has in it is kept outside."""
        slot = self.slots[index]
        actions: list[CacheAction] = []
        if not slot.tokens:
            slot.owner = None
            return actions
        if slot.owner is not None and len(slot.tokens) > len(self._prefix) + self._minimum_reuse:
            tokens = tuple(slot.tokens)
            actions.append(Keep(index, slot.owner, tokens))
            self.kept[slot.owner] = tokens
        actions.append(Cut(index, 0))
        slot.tokens = []
        slot.owner = None
        return actions

    def _swap_in(self, source: int, target: int) -> None:
        """Move the books of `source` to the empty `target`."""
        old = self.slots[source]
        self.slots[target] = Slot(old.tokens, old.owner, old.stream, old.used_at)
        if old.stream is not None:
            old.stream.slot = target
        self.slots[source] = Slot()

    def _resident(self, stream: Stream) -> int | None:
        """The idle slot that holds the stream's conversation."""
        if stream.owner is None:
            return None
        for index, slot in enumerate(self.slots):
            if slot.stream is None and slot.owner == stream.owner and slot.tokens:
                return index
        return None

    def _neighbour_slot(self, stream: Stream) -> int:
        """A free slot beside the running ones: that of the stream's conversation if it can be, else the least recently used."""
        free = [index for index, slot in enumerate(self.slots) if slot.stream is None]
        running = [index for index, slot in enumerate(self.slots) if slot.stream is not None]
        if running:
            low, high = min(running), max(running)
            inside = [index for index in free if low < index < high]
            beside = [index for index in free if index in (low - 1, high + 1)]
            free = inside or beside or free
        return min(free, key=lambda index: self._cost_of_use(index, stream))

    def _cost_of_use(self, index: int, stream: Stream) -> tuple[int, int, int]:
        slot = self.slots[index]
        if stream.owner is not None and slot.owner == stream.owner and slot.tokens:
            return (0, 0, index)
        return (1, slot.used_at if slot.tokens else 0, index)

    def _best_window(self, running: Sequence[int], size: int) -> int:
        """The start of the run of `size` slots that holds the most cells of running streams (the fewest to copy)."""

        def cells(start: int) -> int:
            return sum(len(self.slots[index].tokens) for index in running if start <= index < start + size)

        return max(range(len(self.slots) - size + 1), key=lambda start: (cells(start), -start))


def _common(known: Sequence[int], prompt: Sequence[int]) -> int:
    """Length of the common beginning; the prompt's last token is always read anew, because its output is needed."""
    limit = min(len(known), len(prompt) - 1)
    for index in range(limit):
        if known[index] != prompt[index]:
            return index
    return max(limit, 0)
