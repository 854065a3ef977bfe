"""Jobs whose answers run: looked at again from time to time, so that an answer ends when nobody will pay for its rest.

A client may end its job, or spend the deposit elsewhere, right after its prompt was admitted. The look is begun by the tokens
themselves and made beside them: a token never waits for the chain, it only finds the job ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fabstir_desktop.errors import AdmissionRefused, ChainError, LedgerError
from fabstir_desktop.tasks import OwnTasks

log = logging.getLogger(__name__)

LOOK_AFTER_S: Final = 5.0
LOOK_AFTER_TOKENS: Final = 200
"""Whichever comes first, counted over all answers of the job."""


@dataclass(slots=True)
class _Running:
    looked_at_s: float
    answers: int = 0
    tokens: int = 0
    is_looking: bool = False
    refusal: AdmissionRefused | None = None


class RunningJobs:
    """Belongs to one loop. `look` asks the chain about a job; it raises AdmissionRefused if further tokens are not paid."""

    def __init__(self, look: Callable[[int], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._jobs: dict[int, _Running] = {}
        self._tasks = OwnTasks()

    def begin(self, job_id: int) -> None:
        """One more answer of the job runs; it was found good just now."""
        running = self._jobs.setdefault(job_id, _Running(self._clock()))
        running.answers += 1

    def end(self, job_id: int) -> None:
        """An answer ended."""
        running = self._jobs.get(job_id)
        if running is not None:
            running.answers -= 1
            if running.answers <= 0:
                del self._jobs[job_id]

    def check(self, job_id: int) -> None:
        """Raises AdmissionRefused once the job was found ended. Costs a token nothing else."""
        running = self._jobs.get(job_id)
        if running is not None and running.refusal is not None:
            raise running.refusal

    def used(self, job_id: int, tokens: int) -> None:
        """Tokens came; look again where it is time."""
        running = self._jobs.get(job_id)
        if running is None or running.is_looking:
            return
        running.tokens += tokens
        if running.tokens >= LOOK_AFTER_TOKENS or self._clock() - running.looked_at_s >= LOOK_AFTER_S:
            running.is_looking = True
            self._tasks.start(self._look_at(job_id, running), f"second look at job {job_id}")

    async def _look_at(self, job_id: int, running: _Running) -> None:
        try:
            await self._look(job_id)
        except AdmissionRefused as refusal:
            log.warning("the running answers of job %d end: %s", job_id, refusal)
            running.refusal = refusal
        except (ChainError, LedgerError, TimeoutError) as error:
            # no contact is no verdict: the backlog is bounded at admission
            log.debug("job %d could not be looked at again: %s", job_id, type(error).__name__)
        finally:
            running.is_looking = False
            running.tokens, running.looked_at_s = 0, self._clock()

    async def stop(self) -> None:
        """End the looks that are under way."""
        await self._tasks.finish(0.0)
