"""The two lanes in which conversations become prompts: short ones never wait for a long one.

Within a lane they are prepared one after the other, in the order they came, so that the parent knows which one a hanging
lane is busy with. What is cancelled while it waits is never prepared.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from fabstir_desktop.inference import wire

T = TypeVar("T")


class Lanes:
    """Shared by the thread that reads the parent, the two that prepare, and the decode loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[bool, queue.SimpleQueue[wire.Begin]] = {
            is_long: queue.SimpleQueue() for is_long in (False, True)
        }
        self._at_work: dict[bool, set[int]] = {is_long: set() for is_long in (False, True)}
        self._waiting: set[int] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a short prompt is about to come."""
        return bool(self._at_work[False]) or not self._queues[False].empty()

    def add(self, begin: wire.Begin) -> None:
        """Put a request at the end of its lane."""
        with self._lock:
            self._waiting.add(begin.stream)
        self._queues[wire.is_long(begin)].put(begin)

    def withdraw(self, stream: int) -> bool:
        """Take a waiting request out; False if it is not waiting (any more)."""
        with self._lock:
            if stream not in self._waiting:
                return False
            self._waiting.remove(stream)
            return True

    def is_at_work(self, stream: int) -> bool:
        """Whether the request is being prepared, or is prepared and not fetched."""
        with self._lock:
            return any(stream in streams for streams in self._at_work.values())

    def fetched(self, stream: int) -> None:
        """The decode loop has what was prepared."""
        with self._lock:
            for streams in self._at_work.values():
                streams.discard(stream)

    def run(self, prepare: Callable[[wire.Begin], T], deliver: Callable[[T], None], *, is_long: bool) -> None:
        """Prepare the lane's requests for ever."""
        while True:
            self.run_once(prepare, deliver, is_long=is_long)

    def run_once(self, prepare: Callable[[wire.Begin], T], deliver: Callable[[T], None], *, is_long: bool) -> None:
        """Wait for the lane's next request, and prepare it unless it was withdrawn."""
        begin = self._queues[is_long].get()
        with self._lock:
            if begin.stream not in self._waiting:
                return
            self._at_work[is_long].add(begin.stream)
            self._waiting.remove(begin.stream)
        deliver(prepare(begin))
