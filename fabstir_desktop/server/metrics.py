"""What the server counts, in Prometheus' text format. Counting is plain integers; the format is made when it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import OPEN_STATES, ClaimState
from fabstir_desktop.jobs.events import ClaimChanged
from fabstir_desktop.jobs.status import NodeStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServerMetrics(Collector):
    """Counters of the server. `tokens_by_kind` has the kinds `job` and `free`."""

    def __init__(self, status: Callable[[], NodeStatus], refused: Callable[[], Counter[str]], feed: Feed) -> None:
        self.tokens_by_kind: Counter[str] = Counter({"job": 0, "free": 0})
        self.requests_by_outcome: Counter[str] = Counter(
            {"stop": 0, "length": 0, "cancelled": 0, "error": 0, "refused": 0}
        )
        self.errors_by_code: Counter[str] = Counter()
        self.frames_refused = 0
        self._status = status
        self._refused = refused
        self._checkpoints: Counter[str] = Counter({state.value: 0 for state in ClaimState})
        self._state_by_open_claim: dict[int, ClaimState] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._unsubscribe = feed.subscribe(ClaimChanged, self._claim_changed)

    def close(self) -> None:
        """Stop listening to the feed."""
        self._unsubscribe()

    def text(self) -> bytes:
        """All numbers now."""
        return generate_latest(self._registry)

    def _claim_changed(self, event: ClaimChanged) -> None:
        if self._state_by_open_claim.get(event.claim_id) is event.state:
            return  # a fee bump or a note: the same state again
        self._checkpoints[event.state.value] += 1
        if event.state in OPEN_STATES:
            self._state_by_open_claim[event.claim_id] = event.state
        else:
            self._state_by_open_claim.pop(event.claim_id, None)

    def collect(self) -> Iterator[Metric]:
        """The numbers as Prometheus' metric families."""
        yield _counter("fabstir_tokens_generated", "Tokens generated.", "kind", self.tokens_by_kind)
        yield _counter("fabstir_requests", "Requests by how they ended.", "outcome", self.requests_by_outcome)
        yield _counter("fabstir_request_errors", "Errors sent to clients, by code.", "code", self.errors_by_code)
        yield _counter("fabstir_checkpoints", "Checkpoints by the state they reached.", "state", self._checkpoints)
        yield _counter("fabstir_connections_refused", "Connections refused or cut off.", "reason", self._refused())
        malformed = CounterMetricFamily("fabstir_malformed_frames", "Frames that could not be used.")
        malformed.add_metric([], self.frames_refused)
        yield malformed
        yield from self._gauges(self._status())

    @staticmethod
    def _gauges(status: NodeStatus) -> Iterator[Metric]:
        engine, server = status.engine, status.server
        numbers = {
            "fabstir_active_streams": ("Prompts being answered.", engine.active_streams),
            "fabstir_queued_requests": ("Prompts waiting for a stream or for their session.", server.queued_requests),
            "fabstir_active_requests": ("Prompts handed over and not ended.", server.active_requests),
            "fabstir_connections": ("Open connections.", server.connections),
            "fabstir_sessions": ("Sessions that are not over.", server.sessions),
            "fabstir_tokens_per_second": ("Tokens per second over all streams.", engine.tokens_per_second),
            "fabstir_loop_lag_seconds": ("Delay of the event loop when last measured.", status.loop_lag_ms / 1000),
            "fabstir_open_claims": ("Claims on their way.", status.chain.open_claims),
            "fabstir_engine_restarts": ("Times the model process was started again.", engine.restarts),
            "fabstir_model_loaded": ("1 while a model is ready.", float(engine.state == "ready")),
        }
        for name, (help_text, number) in numbers.items():
            yield GaugeMetricFamily(name, help_text, value=number)


def _counter(name: str, help_text: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
