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

    def take(self, name: str, now_s: float, amount: float = 1.0) -> float:
        """Take `amount` (at most the burst); 0 if it was there, else nothing is taken: the seconds until it will be."""
        bucket = self._bucket_by_name.get(name)
        if bucket is None:
            self._make_room(now_s)
            bucket = self._bucket_by_name[name] = _Bucket(self._burst, now_s)
        bucket.level = min(self._burst, bucket.level + (now_s - bucket.filled_at_s) * self._per_second)
        bucket.filled_at_s = now_s
        if bucket.level >= amount:
            bucket.level -= amount
            return 0.0
        return (amount - bucket.level) / self._per_second

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


class FrameRates:
    """How much an address may send, counted in frames and in bytes."""

    def __init__(self, limits: Limits) -> None:
        self._frames = Rate(limits.frames_per_s, limits.frames_burst)
        self._bytes = Rate(limits.frame_bytes_per_s, limits.frame_bytes_burst)
        self._least_cost = limits.frame_cost_bytes
        self._most_cost = limits.frame_bytes_burst

    def take_frame(self, address: str, now_s: float) -> float:
        """Take one frame; 0 if it may be served, else the seconds to wait before asking again."""
        return self._frames.take(address, now_s)

    def take_bytes(self, address: str, size: int, now_s: float) -> float:
        """Take a frame's bytes; 0 if it may be served, else the seconds to wait before asking again."""
        return self._bytes.take(address, now_s, min(max(self._least_cost, size), self._most_cost))


class PromptRates:
    """How often an address may ask, in all and for each job.

    A job's rate is its client's own: a stranger who names the job takes nothing from it.
    """

    def __init__(self, limits: Limits) -> None:
        self._address = Rate(limits.prompts_per_minute / 60, limits.prompts_burst)
        self._job = Rate(limits.job_prompts_per_minute / 60, limits.job_prompts_burst)

    def take(self, address: str, job_id: int | None, now_s: float) -> None:
        """Take one prompt. Raises Refusal that says when to come back: never sooner than it helps."""
        job_wait_s = self._job.take(f"{address} {job_id}", now_s) if job_id is not None else 0.0
        wait_s = job_wait_s or self._address.take(address, now_s)
        if wait_s > 0:
            whose = "for this job" if job_wait_s else "from your address"
            raise Refusal("RATE_LIMITED", f"too many prompts {whose}", retry_after_s=math.ceil(wait_s * 10) / 10)
