"""A thread of one's own for calls that block or compute: the keyring, and signing.

Calls run one after the other. A wait has a limit and can be given up; the answer that comes later is thrown away and
the stuck thread is left behind (it is a daemon and ends with its call), so one unanswered prompt does not block the
next try.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fabstir_desktop.errors import Bug, EnvironmentFault, FabstirError

T = TypeVar("T")
MAX_WAITING = 64
MAX_STUCK = 4


class TooManyWaiting(EnvironmentFault):
    """Earlier calls hang or wait; no further one is taken."""


@dataclass(slots=True)
class _Job:
    call: Callable[[threading.Event], Any]
    future: Future[Any] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)


class OneThread:
    """Run calls one after the other on a daemon thread, from one asyncio loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._stuck: list[threading.Thread] = []
        self._closed = False

    async def run(self, call: Callable[[threading.Event], T], *, timeout_s: float) -> T:
        """Call `call(abandoned)` on the thread and return its answer.

        `abandoned` is set once nobody waits any more: a call of several steps looks at it before it changes anything.
        Raises TimeoutError after `timeout_s`, TooManyWaiting when earlier calls hang. An error of the call comes
        without its traceback, whose frames may hold a key.
        """
        self._check_room()
        job = _Job(call)
        self._jobs.put_nowait(job)
        self._start()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.future), timeout_s)
        finally:
            if not job.future.done() or job.future.cancelled():
                self._abandon(job)

    def close(self) -> None:
        """Let the thread end after its present call. Safe to call twice."""
        if not self._closed:
            self._closed = True
            with suppress(queue.Full):
                self._jobs.put_nowait(None)

    def _check_room(self) -> None:
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if self._closed:
            raise Bug(f"{self._name} is closed")
        if self._jobs.full() or len(self._stuck) >= MAX_STUCK:
            raise TooManyWaiting(f"{self._name}: too many calls are unanswered")

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True)
            self._thread.start()

    def _abandon(self, job: _Job) -> None:
        job.abandoned.set()
        if job.future.running() and self._thread is not None:
            # The thread hangs in the call: it ends after it, and what waits goes to a fresh one.
            stuck_jobs, self._jobs = self._jobs, queue.Queue(MAX_WAITING)
            self._stuck.append(self._thread)
            self._thread = None
            while not stuck_jobs.empty():
                self._jobs.put_nowait(stuck_jobs.get_nowait())
            stuck_jobs.put_nowait(None)
            if not self._jobs.empty():
                self._start()


def _work(jobs: queue.Queue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        if job.future.set_running_or_notify_cancel():
            _execute(job)
        del job  # a waiting thread must not keep the last call's key alive


def _execute(job: _Job) -> None:
    result: object = None
    fault: Exception | None = None
    try:
        result = job.call(job.abandoned)
    except BaseException as error:  # noqa: BLE001 - handed to the waiting task
        fault = _bare(error)
    with suppress(InvalidStateError):
        if fault is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(fault)


def _bare(error: BaseException) -> Exception:
    """Keep of an error what cannot hold a key: our own kind's text, or the type and place of any other."""
    if isinstance(error, FabstirError):
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_name}:{place.tb_lineno}" if place is not None else "unknown"
    return Bug(f"{type(error).__name__} in {where}")
