"""The waiting line in front of the streams: who may wait, for how long, and whose turn it is. Pure."""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fabstir_desktop.errors import EngineBusy
from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.jobs.generation import GenerationRequest

_REMEMBERED_TURNS: Final = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A request in the line; `since_s` on the caller's clock."""

    request: GenerationRequest
    since_s: float


class WaitingLine:
    """Jobs take turns: fewest running streams first, then whose turn was longest ago. Within a job, first come first served.

    The places of a full line are shared too: who has fewer takes one from whoever has most, be that an address or a job, and
    prompts that nobody pays for give way to those of jobs. So no single party can keep all others out.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._waiting: list[Waiting] = []
        self._gave_way: list[tuple[Waiting, EngineBusy]] = []
        """No longer in the line, and not told yet."""
        self._had_turn: dict[str, int] = {}
        """Jobs in the order of their last turn, with its number."""
        self._turns = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, request: GenerationRequest, now_s: float) -> Waiting:
        """Take a place at the end; of a full line, another's, who hears of it from `overdue`.

        Raises EngineBusy with the place it would have had.
        """
        limits = self._limits
        position = len(self._waiting) + 1
        same_job = sum(1 for other in self._waiting if request.job_key and other.request.job_key == request.job_key)
        if same_job >= limits.queue_per_job:
            raise self._busy(f"{same_job} prompts of this job wait already", position)
        if not is_loopback(request.client):
            same_client = sum(1 for other in self._waiting if other.request.client == request.client)
            if same_client >= limits.queue_per_client:
                raise self._busy(f"{same_client} prompts from your address wait already", position)
        if len(self._waiting) >= limits.queue_length:
            self._make_room(request, position)
        entry = Waiting(request, now_s)
        self._waiting.append(entry)
        return entry

    def _make_room(self, request: GenerationRequest, position: int) -> None:
        """Take out one for the request. Raises EngineBusy if nobody has to give way to it."""
        entry = gives_way(self._waiting, request)
        if entry is None:
            raise self._busy("all streams are taken and the waiting line is full", position)
        self._waiting.remove(entry)
        busy = self._busy("the waiting line is full, and others have fewer places in it", position)
        self._gave_way.append((entry, busy))

    def leave(self, entry: Waiting) -> bool:
        """Give up a place; False if it was left before."""
        self._gave_way = [(other, busy) for other, busy in self._gave_way if other is not entry]
        if entry in self._waiting:
            self._waiting.remove(entry)
            return True
        return False

    def next(self, running_jobs: Iterable[str]) -> Waiting | None:
        """Take out whose turn it is; see the class."""
        if not self._waiting:
            return None
        running = Counter(running_jobs)

        def turn(entry: Waiting) -> tuple[int, int]:
            job = entry.request.job_key
            return running[job], self._had_turn.get(job, 0)

        chosen = min(self._waiting, key=turn)  # min keeps the order of arrival
        self._waiting.remove(chosen)
        self._note_turn(chosen.request.job_key)
        return chosen

    def _note_turn(self, job: str) -> None:
        self._had_turn.pop(job, None)
        self._had_turn[job] = next(self._turns)
        if len(self._had_turn) > _REMEMBERED_TURNS:
            del self._had_turn[next(iter(self._had_turn))]

    def overdue(self, now_s: float) -> list[tuple[Waiting, EngineBusy]]:
        """Take out those who waited too long, each with what to tell it; with them those who gave way."""
        limit = self._limits.queue_timeout_s
        late = [(place, entry) for place, entry in enumerate(self._waiting, 1) if now_s - entry.since_s >= limit]
        for _, entry in late:
            self._waiting.remove(entry)
        gave_way, self._gave_way = self._gave_way, []
        return gave_way + [
            (entry, self._busy(f"no stream became free in {limit:.0f} s", place)) for place, entry in late
        ]

    def clear(self) -> list[Waiting]:
        """Take out all."""
        entries = self._waiting + [entry for entry, _ in self._gave_way]
        self._waiting, self._gave_way = [], []
        return entries

    def _busy(self, message: str, position: int) -> EngineBusy:
        return EngineBusy(f"{message} (position {position})", position=position, retry_after_s=min(5.0, 0.5 * position))


def gives_way(waiting: Sequence[Waiting], newcomer: GenerationRequest) -> Waiting | None:
    """Whose place in a full line the newcomer takes: the last one of whoever has most; None if nobody has two more than it.

    A prompt of a job takes one that nobody pays for where there is one; a prompt without a job takes only from its like.
    """
    free = [entry for entry in waiting if not entry.request.job_key]
    if newcomer.job_key and free:
        return free[-1]
    among = waiting if newcomer.job_key else free
    for party_of in (_address_of, _job_of):
        held = Counter(party_of(entry.request) for entry in among)
        if not held:
            return None
        greediest, places = held.most_common(1)[0]
        if places > held[party_of(newcomer)] + 1:
            return next(entry for entry in reversed(among) if party_of(entry.request) == greediest)
    return None


def _address_of(request: GenerationRequest) -> str:
    return "" if is_loopback(request.client) else request.client


def _job_of(request: GenerationRequest) -> str:
    return request.job_key


def is_loopback(client: str) -> bool:
    """Whether the address is this machine's own (an empty one, of a caller without a socket, is too)."""
    if not client or client == "localhost":
        return True
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(address.is_loopback or (mapped is not None and mapped.is_loopback))
