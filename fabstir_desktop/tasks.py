"""Tasks with an owner: kept, their failure logged, ended in time; and threads that hold up no end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fabstir_desktop.errors import FabstirError

log = logging.getLogger(__name__)

_LET_GO_S = 0.5


async def every(pause_s: float, work: Callable[[], Awaitable[object]], complaint: str) -> None:
    """Do something again and again until cancelled; what goes wrong is logged with `complaint`, and tried again."""
    while True:
        try:
            await work()
        except FabstirError as error:
            log.warning("%s: %s", complaint, error)
        await asyncio.sleep(pause_s)


async def finish_within(name: str, ending: Awaitable[None], limit_s: float) -> None:
    """Wait for a part's end, but not for ever; what goes wrong is logged, for the next part is to end as well."""
    try:
        await asyncio.wait_for(ending, limit_s)
    except TimeoutError:
        log.warning("the %s did not stop within %.1f s", name, limit_s)
    except FabstirError as error:
        log.warning("the %s did not stop cleanly: %s", name, error)


class Deadline:
    """A time by which several parts are to end, one after the other. Create it in the loop."""

    def __init__(self, limit_s: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._ends_at_s = self._clock() + limit_s

    def left_s(self, kept_s: float = 0.0, at_least_s: float = 0.1) -> float:
        """What the next part may use, so that `kept_s` are left for those after it."""
        return max(at_least_s, self._ends_at_s - self._clock() - kept_s)


class LeavingExecutor(ThreadPoolExecutor):
    """A loop's default executor that is left, not joined: what hangs in the system (a name that no server resolves, a
    network disk) would otherwise hold up the end of the application for as long as it likes."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the base's shape
        """Take nothing more and return at once, whatever is asked."""
        super().shutdown(wait=False, cancel_futures=True)


def exit_now_if_held_up(code: int) -> None:
    """End the process with this exit code if a thread that nobody waits for would keep the interpreter from ending.

    To be called last: everything is stored and closed, and nothing runs after it.
    """
    here = threading.current_thread()
    if any(thread.is_alive() and not thread.daemon and thread is not here for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class OwnTasks:
    """The running tasks of one part."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` as a task of ours."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # by its type only: a foreign text may hold a prompt
            log.error("the task %r ended with %s", task.get_name(), type(error).__name__)

    async def finish(self, limit_s: float) -> None:
        """Let the tasks end, then cancel those that did not. One's end may begin others; they are waited for too."""
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + limit_s
        while self._tasks and loop.time() < ends_at_s:
            await asyncio.wait(set(self._tasks), timeout=ends_at_s - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_LET_GO_S)
