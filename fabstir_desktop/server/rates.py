"""How often someone may do something: token buckets, bounded in number. Pure; the caller brings the time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fabstir_desktop.server.actions import Refusal
from fabstir_desktop.server.limits import Limits

_MAX_BUCKETS: Final = 4096


@dataclass(slots=True)
class _Bucket:
    level: float
    filled_at_s: float


class Rate:
    """At most `burst` at once and `per_second` in the long run, for each of many names."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._bucket_by_name: dict[str, _Bucket] = {}

    def take(self, name: str, now_s: float) -> float:
        """Take one; 0 if it was there, else the seconds until one will be."""
        bucket = self._bucket_by_name.get(name)
        if bucket is None:
            self._make_room(now_s)
            bucket = self._bucket_by_name[name] = _Bucket(self._burst, now_s)
        bucket.level = min(self._burst, bucket.level + (now_s - bucket.filled_at_s) * self._per_second)
        bucket.filled_at_s = now_s
        if bucket.level >= 1:
            bucket.level -= 1
            return 0.0
        return (1 - bucket.level) / self._per_second

    def _make_room(self, now_s: float) -> None:
        """Forget full buckets, which say nothing; if there are none, the one that was filled longest ago."""
        if len(self._bucket_by_name) < _MAX_BUCKETS:
            return
        full_after_s = self._burst / self._per_second
        for name, bucket in list(self._bucket_by_name.items()):
            if now_s - bucket.filled_at_s >= full_after_s:
                del self._bucket_by_name[name]
        if len(self._bucket_by_name) >= _MAX_BUCKETS:
            oldest = min(self._bucket_by_name, key=lambda name: self._bucket_by_name[name].filled_at_s)
            del self._bucket_by_name[oldest]


class PromptRates:
    """How often an address and a job may ask."""

    def __init__(self, limits: Limits) -> None:
        self._address = Rate(limits.prompts_per_minute / 60, limits.prompts_burst)
        self._job = Rate(limits.job_prompts_per_minute / 60, limits.job_prompts_burst)

    def take(self, address: str, job_id: int | None, now_s: float) -> None:
        """Take one prompt. Raises Refusal that says when to come back: never sooner than it helps."""
        job_wait_s = self._job.take(str(job_id), now_s) if job_id is not None else 0.0
        wait_s = job_wait_s or self._address.take(address, now_s)
        if wait_s > 0:
            whose = "for this job" if job_wait_s else "from your address"
            raise Refusal("RATE_LIMITED", f"too many prompts {whose}", retry_after_s=math.ceil(wait_s * 10) / 10)
