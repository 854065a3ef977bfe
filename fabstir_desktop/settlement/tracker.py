"""TokenTracker: admits prompts to jobs, counts every token before it is sent, and says when a checkpoint is needed.

It works without a key: then it counts and logs what would be submitted. A CheckpointManager may be attached and detached
while it runs; what waits is claimed as soon as one is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fabstir_desktop.errors import JobTaken, LedgerError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.accounting import Ticket
from fabstir_desktop.jobs.addresses import group_of
from fabstir_desktop.jobs.claims import ClaimReason
from fabstir_desktop.jobs.events import CheckpointNeeded, JobChanged, TokensCounted
from fabstir_desktop.jobs.generation import Accepted, FinishReason, GenerationRequest
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.admission import JobGate

log = logging.getLogger(__name__)

INFO_EVERY_S = 1.0
REMEMBERED_ANSWERS = 10_000
REMEMBERED_METERS = 1_000


def client_mark(job_id: int, address: str) -> bytes:
    """What a job's client is known by for as long as the ledger lives: its network, of which no address can be read off."""
    return hashlib.sha256(f"client of {job_id}: {group_of(address)}".encode()).digest()


class Claimant(Protocol):
    """Whoever submits checkpoints."""

    def due(self, job_id: int, reason: ClaimReason) -> None:
        """A job has something to claim."""
        ...


@dataclass(slots=True)
class _Meter:
    """A job's counts in memory, so that no token waits for a query."""

    total: int = 0
    claimed: int = 0
    announce_at: int = 0
    """The total at which the next checkpoint is announced."""
    session_id: str = ""
    sessions: set[str] = field(default_factory=set)
    info_at: float = float("-inf")


class TokenTracker:
    """The Accountant of the server. Safe to call from one loop."""

    def __init__(
        self,
        ledger: Ledger,
        feed: Feed,
        gate: JobGate,
        *,
        venue: Venue,
        threshold_tokens: int,
        model_sha256: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._feed = feed
        self._gate = gate
        self._venue = venue
        self._threshold_tokens = threshold_tokens
        self._model_sha256 = model_sha256
        self._clock = clock
        self._meters: dict[int, _Meter] = {}
        self._answer_starts: dict[int, int] = {}
        self.manager: Claimant | None = None

    # --- the server's side ------------------------------------------------------------------------------------------

    async def admit(self, job_id: int, session_id: str, client: str, max_tokens: int) -> Ticket:
        """Check whose the job is, and on chain (simulated claim), and reserve tokens. Raises AdmissionRefused, LedgerError."""
        mark = client_mark(job_id, client)
        if await self._ledger.is_anothers(job_id, session_id, mark):
            raise JobTaken("another client was the first to use this job: name the session it was used with")
        allowed = await self._gate.reserve(job_id, max_tokens)
        try:
            meter = await self._meter(job_id)
            ticket_id = await self._ledger.open_ticket(job_id, session_id, mark)
        except BaseException:
            self._gate.release(job_id, allowed)
            raise
        self._gate.assign(ticket_id, job_id, allowed)
        meter = self._meters.setdefault(job_id, meter)  # many others may have come meanwhile
        meter.session_id = session_id
        meter.sessions.add(session_id)
        log.debug("job %d: a prompt of %s is admitted for at most %d tokens", job_id, client, allowed)
        self._feed.publish(JobChanged(job_id))
        return Ticket(ticket_id, job_id, session_id, allowed if allowed < max_tokens else None)

    async def begin(self, ticket: Ticket, request: GenerationRequest, accepted: Accepted) -> None:
        """Store what the answer is generated from, before its first token."""
        sampling = request.sampling
        parameters = {
            "max_tokens": request.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repeat_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "seed": accepted.seed,
            **({"stop": list(request.stop)} if request.stop else {}),
        }
        text = json.dumps(parameters, sort_keys=True, separators=(",", ":"), allow_nan=False)
        await self._ledger.store_prompt(ticket.ticket_id, accepted.prompt_ids, text, self._model_sha256())

    async def record(self, ticket: Ticket, token_ids: Sequence[int]) -> int:
        """Store the tokens; returns the job's new total once they are in the ledger.

        Raises LedgerError, and AdmissionRefused once the job was found ended: then nothing is stored.
        """
        self._gate.check_running(ticket.job_id)
        total = await self._ledger.add_tokens(ticket.ticket_id, token_ids)
        count = len(token_ids)
        if count:
            if ticket.ticket_id not in self._answer_starts:
                self._remember_start(ticket.ticket_id, total - count)
            self._gate.used(ticket.ticket_id, count)
            self._count(ticket, count, total)
        return total

    async def finish(self, ticket: Ticket, finish_reason: FinishReason) -> None:
        """Close the ticket and release what it reserved. Safe to call twice; never raises for a closed ticket."""
        self._gate.close(ticket.ticket_id)
        try:
            await self._ledger.close_ticket(ticket.ticket_id, finish_reason)
        except LedgerError as error:
            # The next start closes open tickets; the tokens are counted either way.
            log.warning("the end of an answer of job %d could not be stored: %s", ticket.job_id, error)

    async def end_session(self, session_id: str) -> None:
        """The session is over: whatever its jobs have unclaimed is claimed, unless another session works on them."""
        ended = set()
        for job_id, meter in self._meters.items():
            if session_id in meter.sessions:
                meter.sessions.discard(session_id)
                if not meter.sessions:
                    ended.add(job_id)
        names = {session_id} if not ended else {self._meters[job_id].session_id for job_id in ended}
        try:
            for name in names:
                if not any(name in meter.sessions for meter in self._meters.values()):
                    ended.update(await self._ledger.end_session(name))
        finally:  # a ledger that cannot be written just now must not cost the claim
            for job_id in ended:
                if not self.has_session(job_id):
                    await self._settle_job(job_id)

    # --- settlement's side ------------------------------------------------------------------------------------------

    def has_session(self, job_id: int) -> bool:
        """Whether a client may still send prompts for the job."""
        meter = self._meters.get(job_id)
        return meter is not None and bool(meter.sessions)

    def answer_start(self, ticket_id: int) -> int | None:
        """The job's position of an answer's first token, if it was made in this process."""
        return self._answer_starts.get(ticket_id)

    def note_account(self, account: JobAccount) -> None:
        """A claim of the job moved: count the next checkpoint from there."""
        meter = self._meters.get(account.job_id)
        if meter is None:
            return
        claimed = account.claimed + account.written_off + account.reserved
        if claimed != meter.claimed:
            meter.claimed = claimed
            meter.announce_at = max(claimed + self._threshold_tokens, meter.total + 1 if claimed > meter.total else 0)

    # --- within -----------------------------------------------------------------------------------------------------

    async def _meter(self, job_id: int) -> _Meter:
        meter = self._meters.get(job_id)
        if meter is None:
            account = await self._ledger.account(job_id)
            self._forget_one_of_many()
            meter = self._meters.setdefault(job_id, _Meter())
            if account is not None and meter.total == 0:
                meter.total = account.generated
                meter.claimed = account.claimed + account.written_off + account.reserved
            meter.announce_at = meter.claimed + self._threshold_tokens
        return meter

    def _forget_one_of_many(self) -> None:
        """Of more jobs than are remembered, the one without a session that was met first: the ledger has its counts."""
        if len(self._meters) >= REMEMBERED_METERS:
            over = next((job_id for job_id, meter in self._meters.items() if not meter.sessions), None)
            if over is not None:
                del self._meters[over]

    def _count(self, ticket: Ticket, count: int, total: int) -> None:
        meter = self._meters.setdefault(ticket.job_id, _Meter(announce_at=self._threshold_tokens))
        meter.total = max(meter.total, total)
        self._log_count(meter, ticket.job_id, count, total)
        self._feed.publish(TokensCounted(ticket.job_id, ticket.session_id, count, total))
        if meter.total >= meter.announce_at:
            meter.announce_at = meter.total - (meter.total - meter.announce_at) % self._threshold_tokens
            meter.announce_at += self._threshold_tokens
            self._need(ticket.job_id, ticket.session_id, meter.total - meter.claimed, ClaimReason.THRESHOLD)

    def _log_count(self, meter: _Meter, job_id: int, count: int, total: int) -> None:
        now = self._clock()
        level = logging.DEBUG
        if now - meter.info_at >= INFO_EVERY_S:
            meter.info_at, level = now, logging.INFO
        if log.isEnabledFor(level):
            text = "Generated %d tokens for job %d (total: %d, last checkpoint: %d)"
            log.log(level, text, count, job_id, total, meter.claimed)

    async def _settle_job(self, job_id: int) -> None:
        account = await self._ledger.account(job_id)
        self._feed.publish(JobChanged(job_id))
        if account is None:
            return
        self.note_account(account)
        if account.claimable > 0:
            self._need(job_id, account.session_id, account.claimable, ClaimReason.SESSION_END)

    def _need(self, job_id: int, session_id: str, tokens: int, reason: ClaimReason) -> None:
        log.info("CHECKPOINT NEEDED for job %d with %d tokens!", job_id, tokens)
        self._feed.publish(CheckpointNeeded(job_id, session_id, tokens, reason))
        if self.manager is not None:
            self.manager.due(job_id, reason)
            return
        log.info("CHECKPOINT SUBMISSION REQUIRED:")
        log.info("- Job ID: %d", job_id)
        log.info("- Tokens to submit: %d", tokens)
        log.info("- Session ID: %s", session_id)
        log.info("- Contract: %s at %s", self._venue.contract_name, self._venue.contract)

    def _remember_start(self, ticket_id: int, start: int) -> None:
        while len(self._answer_starts) >= REMEMBERED_ANSWERS:
            self._answer_starts.pop(next(iter(self._answer_starts)))
        self._answer_starts[ticket_id] = start
