"""The jobs with unclaimed tokens, counted as they change: tray and pages ask every second, and a host has thousands."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from fabstir_desktop.jobs.views import JobView

MARKETPLACE_MINIMUM_TOKENS = 100
"""JobMarketplace refuses claims below this."""


class WaitingJobs:
    """What of the jobs can be claimed, kept up to date job by job."""

    def __init__(self, jobs: Iterable[JobView] = ()) -> None:
        self._job_by_id: dict[int, JobView] = {}
        self._ready = {1: 0, MARKETPLACE_MINIMUM_TOKENS: 0}
        self.has_generated = False
        """Whether any job ever had a token."""
        self.claiming = 0
        """How many of them have a claim on its way."""
        self.update(jobs)

    def __len__(self) -> int:
        return len(self._job_by_id)

    def update(self, jobs: Iterable[JobView]) -> None:
        """Take these jobs as they are now; the others stay."""
        for job in jobs:
            old = self._job_by_id.pop(job.job_id, None)
            if old is not None:
                self._count(old, -1)
            if job.unclaimed:
                self._job_by_id[job.job_id] = job
                self._count(job, 1)
            self.has_generated = self.has_generated or job.generated > 0

    def _count(self, job: JobView, change: int) -> None:
        if job.state == "claiming":
            self.claiming += change
            return
        for minimum in self._ready:
            if job.unclaimed >= minimum:
                self._ready[minimum] += change

    def ready(self, *, with_minimum: bool) -> int:
        """How many could be claimed now; `with_minimum`: where the contract takes no small claims."""
        return self._ready[MARKETPLACE_MINIMUM_TOKENS if with_minimum else 1]

    def largest(self, count: int) -> list[JobView]:
        """Those with most unclaimed tokens."""
        return heapq.nlargest(count, self._job_by_id.values(), key=lambda job: job.unclaimed)
