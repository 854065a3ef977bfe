"""What clients hear of their checkpoints, and what the host hears of its server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Final

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.addresses import is_loopback
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.events import ClaimChanged, ProblemCleared, ProblemRaised
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.server.exposure import (
    CONTESTED_CODE,
    UNREACHABLE_CODE,
    contested_problem,
    exposure_of,
    plaintext_problem,
    try_public_url,
    unknown_proxy_problem,
)
from fabstir_desktop.server.frames import checkpoint_frame
from fabstir_desktop.server.session import Peer
from fabstir_desktop.settings import Settings

log = logging.getLogger(__name__)

_KNOWN_CHECKPOINTS: Final = 2048
_CONTESTED_SHOWN: Final = 20
_PUBLIC_URL_CHECK_S: Final = 600.0
_KINDS: Final = {ClaimState.BOUND: "checkpoint_submitted", ClaimState.CONFIRMED: "checkpoint_confirmed"}


class Announcer:
    """Listens to the feed for clients, speaks to it for the host."""

    def __init__(self, settings: Settings, feed: Feed, tell: Callable[[int, bytes], None], instance: str) -> None:
        """`tell` sends a frame to every socket of a job, without waiting; `instance` is what our handshakes carry."""
        self._settings = settings
        self._feed = feed
        self._tell = tell
        self._instance = instance
        self._contested: set[int] = set()
        self._has_told_of_proxy = False
        self._check_again = asyncio.Event()
        self._told: dict[tuple[int, str, str], None] = {}
        self._unsubscribe = feed.subscribe(ClaimChanged, self._claim_changed)

    def close(self) -> None:
        """Stop listening to the feed."""
        self._unsubscribe()

    def _claim_changed(self, event: ClaimChanged) -> None:
        """Each step of each transaction is told once. Called on the token's way of others: nothing here waits."""
        kind = _KINDS.get(event.state)
        if kind is None or event.tx_hash is None or (event.claim_id, kind, event.tx_hash) in self._told:
            return
        self._told[(event.claim_id, kind, event.tx_hash)] = None
        if len(self._told) > _KNOWN_CHECKPOINTS:
            del self._told[next(iter(self._told))]
        self._tell(event.job_id, checkpoint_frame(kind, event.job_id, event.tokens, event.tx_hash))

    def job_contested(self, job_id: int) -> None:
        """A second client asked for a job in use: the host is told once, however often it asks."""
        if job_id in self._contested or len(self._contested) >= _CONTESTED_SHOWN:
            return
        log.warning("a second client asked for job %d, which another one uses: refused", job_id)
        self._contested.add(job_id)
        self._feed.publish(ProblemRaised(contested_problem(job_id)))

    def jobs_released(self, job_ids: Iterable[int]) -> None:
        """A session with these jobs is over."""
        for job_id in self._contested.intersection(job_ids):
            self._contested.discard(job_id)
            self._feed.publish(ProblemCleared(CONTESTED_CODE, str(job_id)))

    def warn_of_exposure(self) -> None:
        """Write down what others can reach, and warn if prompts will cross a network in the clear."""
        for sentence in exposure_of(self._settings).sentences:
            log.info("%s", sentence)
        problem = plaintext_problem(self._settings)
        if problem is not None:
            log.warning("%s %s", problem.message, problem.advice)
            self._feed.publish(ProblemRaised(problem))

    async def try_public_url(self, url: str) -> Problem | None:
        """Connect as a client would; None if this very host answers."""
        return await try_public_url(url, self._instance)

    async def watch_public_url(self) -> None:
        """Try from time to time whether the configured public URL leads here. Runs until cancelled."""
        while self._settings.public_url is not None:
            self._check_again.clear()
            problem = await try_public_url(self._settings.public_url, self._instance)
            self._feed.publish(ProblemRaised(problem) if problem else ProblemCleared(UNREACHABLE_CODE, ""))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._check_again.wait(), _PUBLIC_URL_CHECK_S)

    def check_public_url(self) -> None:
        """Something changed: try the public URL now, not only at the next time."""
        self._check_again.set()

    def client_came(self, peer: Peer) -> None:
        """A client was let in: the host is told once if a proxy on this machine hides who it is."""
        if peer.hidden_as is None or self._has_told_of_proxy or not is_loopback(peer.address):
            return
        self._has_told_of_proxy = True
        problem = unknown_proxy_problem(peer.address)
        log.warning("%s %s", problem.message, problem.advice)
        self._feed.publish(ProblemRaised(problem))
