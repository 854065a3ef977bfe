"""Who is to blame when the worker hangs: judged once a tick, from what each request waits for. Pure.

Ticks are counted, not time: after the app or the machine slept, the worker is not to blame for the silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.inference.streams import RequestStream


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worker is to be ended: why, and the requests that held it up."""

    why: str
    culprits: tuple[RequestStream, ...]


def running(streams: Iterable[RequestStream]) -> list[RequestStream]:
    """Those that the worker works on now: what is in the batch, and of each lane the one being prepared.

    A lane prepares in the order of numbers, so what stands behind its first has not been looked at yet. `streams` come in
    the order of their numbers.
    """
    found: list[RequestStream] = []
    busy_lanes: set[bool] = set()
    for stream in streams:
        if stream.is_prepared:
            found.append(stream)
        elif stream.is_long not in busy_lanes:
            busy_lanes.add(stream.is_long)
            found.append(stream)
    return found


class Watchdog:
    """Looks at a loaded worker's requests once a tick."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits

    def tick(self, streams: Iterable[RequestStream], silent_s: float, *, is_reading: bool) -> Verdict | None:
        """`silent_s`: since when the worker has said nothing at all; `is_reading`: a prompt is in the batch."""
        limits = self._limits
        at_work = running(streams)
        unheld = [stream for stream in at_work if not stream.held]
        reading = is_reading or any(not stream.first_token_made for stream in at_work)
        limit_s = limits.prefill_stall_s if reading else limits.decode_stall_s
        if unheld and silent_s >= limit_s:
            return Verdict(f"no token for {limit_s:.0f} s", tuple(at_work))
        for stream in at_work:
            verdict = self._judge(stream)
            if verdict is not None:
                return verdict
        return None

    def _judge(self, stream: RequestStream) -> Verdict | None:
        """One request among others that go on. While its prompt is read nothing is said of it: the silence of all counts."""
        if stream.held or (stream.is_prepared and not stream.first_token_made):
            stream.quiet_s = 0.0
            return None
        stream.quiet_s += self._limits.tick_s
        if not stream.is_prepared and stream.quiet_s >= self._limits.prefill_stall_s:
            return Verdict(f"a prompt was not tokenised in {self._limits.prefill_stall_s:.0f} s", (stream,))
        if stream.is_prepared and stream.quiet_s >= self._limits.decode_stall_s:
            return Verdict(f"a stream got no token for {self._limits.decode_stall_s:.0f} s beside others", (stream,))
        return None
