"""What the GET endpoints answer: plain data, made from a status. Public, so: no paths, no addresses of others, no free text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import ChainState, NodeStatus, ServingState, StatusSource, WalletState
from fabstir_desktop.server.metrics import CONTENT_TYPE, ServerMetrics

_JSON = "application/json"
_LEDGER_FAILED = "D01"

_ENGINE_ISSUES = {
    EngineState.STOPPED: "the model is stopped",
    EngineState.NO_MODEL: "no model is loaded",
    EngineState.LOADING: "the model is being loaded",
    EngineState.RESTARTING: "the model process is being restarted",
    EngineState.FAILED: "the model cannot be loaded",
}
_CHAIN_ISSUES = {
    ChainState.CONNECTING: "the chain is not reached yet",
    ChainState.UNREACHABLE: "the chain cannot be reached: checkpoints wait",
    ChainState.NOT_SUPPORTED: "the contract does not answer as it should: checkpoints wait",
}
_WALLET_ISSUES = {
    WalletState.LOADING: "the key is being looked for",
    WalletState.NONE: "there is no key: tokens are counted, not claimed",
    WalletState.LOCKED: "the keyring is locked: checkpoints wait",
    WalletState.UNAVAILABLE: "there is no keyring: tokens are counted, not claimed",
    WalletState.INVALID: "the key cannot be used: tokens are counted, not claimed",
    WalletState.OTHER_KEY: "another key than expected was found: nothing is signed",
    WalletState.OTHER_PLACE: "another keyring than expected answers: checkpoints wait",
}
_SERVING_ISSUES = {
    ServingState.STARTING: "the host is starting",
    ServingState.DRAINING: "the host is stopping",
    ServingState.STOPPED: "the host is stopped",
}


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


def health_of(status: NodeStatus, problems: Sequence[Problem]) -> tuple[str, list[str]]:
    """`healthy`, `degraded` (serves, but cannot claim just now, or is paused) or `unhealthy`, and why."""
    severe: list[str | None] = [
        _ENGINE_ISSUES.get(status.engine.state),
        _SERVING_ISSUES.get(status.state),
        "the host is on the wrong chain" if status.chain.state is ChainState.WRONG_CHAIN else None,
        "the ledger cannot be written" if any(problem.code == _LEDGER_FAILED for problem in problems) else None,
    ]
    mild: list[str | None] = [
        _CHAIN_ISSUES.get(status.chain.state),
        _WALLET_ISSUES.get(status.wallet.state),
        "the host has paused serving" if status.state is ServingState.PAUSED else None,
    ]
    issues = [issue for issue in severe + mild if issue is not None]
    if any(severe):
        return "unhealthy", issues
    return ("degraded" if issues else "healthy"), issues


class Pages:
    """Makes the page for a path."""

    def __init__(self, source: StatusSource, metrics: ServerMetrics) -> None:
        self._source = source
        self._metrics = metrics
        self._pages: dict[str, Callable[[], Page]] = {
            "/health": self._health,
            "/v1/health": self._health,
            "/v1/models": self._models,
            "/v1/version": self._version,
            "/status": self._status,
            "/metrics": lambda: Page(HTTPStatus.OK, CONTENT_TYPE, self._metrics.text()),
        }

    def page(self, path: str) -> Page | None:
        """The page, None if there is none at the path."""
        make = self._pages.get(path)
        return make() if make is not None else None

    def _health(self) -> Page:
        status = self._source.status
        word, issues = health_of(status, self._source.problems)
        body = {
            "status": word,
            "healthy": word != "unhealthy",
            "issues": issues,
            "model_loaded": status.engine.state is EngineState.READY,
            "chain_id": status.chain.chain_id,
            "version": status.version,
        }
        return _json(body, HTTPStatus.SERVICE_UNAVAILABLE if word == "unhealthy" else HTTPStatus.OK)

    def _models(self) -> Page:
        status = self._source.status
        return _json(
            {"models": _models_of(status), "chain_id": status.chain.chain_id, "chain_name": status.chain.chain_name}
        )

    def _version(self) -> Page:
        status = self._source.status
        body = {
            "version": status.version,
            "build": f"fabstir-desktop {status.version}",
            "date": "",
            "features": ["streaming", "sessions", "checkpoints", "messages", "stop", "seed"],
            "chains": [status.chain.chain_id],
            "breaking_changes": [],
        }
        return _json(body)

    def _status(self) -> Page:
        status = self._source.status
        word, _ = health_of(status, self._source.problems)
        body = {
            "status": word,
            "state": status.state.value,
            "node_id": status.wallet.address or "",
            "version": status.version,
            "uptime_seconds": max(0, round(time.time() - status.started_at)),
            "chain_id": status.chain.chain_id,
            "contract": status.chain.contract,
            "submitting": status.chain.submitting,
            "open_claims": status.chain.open_claims,
            "capabilities": ["inference", "streaming"],
            "models_loaded": [model["id"] for model in _models_of(status)],
            "engine": status.engine.state.value,
            "connections": status.server.connections,
            "active_sessions": status.server.sessions,
            "active_requests": status.server.active_requests,
            "queued_requests": status.server.queued_requests,
            "active_streams": status.engine.active_streams,
            "parallel_streams": status.engine.parallel_streams,
            "tokens_per_second": round(status.engine.tokens_per_second, 2),
            "loop_lag_ms": round(status.loop_lag_ms, 2),
        }
        return _json(body)


def _models_of(status: NodeStatus) -> list[dict[str, Any]]:
    model = status.engine.model
    if model is None or status.engine.state is not EngineState.READY:
        return []
    return [
        {
            "id": model.name,
            "name": model.name,
            "description": f"{model.architecture}, {model.quantisation}",
            "sha256": model.sha256,
            "parameter_count": model.parameter_count,
            "quantisation": model.quantisation,
            "context_window": model.context_window,
        }
    ]


def _json(body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Page:
    return Page(status, _JSON, msgspec.json.encode(body))
