"""JobGate: before a paid prompt is served, its claim is simulated; a job that would not pay costs no token.

What a job may still generate is what its whole deposit covers, less what this ledger has generated for it, less what
others have claimed of it, less what running answers have reserved. With the RPC away, jobs that were good go on up to a
bounded backlog; unknown ones are refused, or wait a while for it, as the host chose. Without a key nothing is simulated:
tokens are counted only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fabstir_desktop.errors import (
    AdmissionRefused,
    CallReverted,
    ChainError,
    DepositExhausted,
    JobNotValid,
    JobUnchecked,
    RateLimited,
)
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.contracts.base import JobFacts, RefusalKind, SettlementContract
from fabstir_desktop.settlement.payable import most_payable, try_claim
from fabstir_desktop.settlement.running_jobs import RunningJobs
from fabstir_desktop.wallet.signer import Signer

log = logging.getLogger(__name__)

GOOD_FOR_S = 3.0
BAD_FOR_S = 2.0
CHECK_LIMIT_S = 15.0
RECOVERY_LIMIT_S = 5.0
WAIT_FOR_CHAIN_S = 20.0
_LOOK_AGAIN_S = 0.2
REMEMBERED_JOBS = 10_000


@dataclass(slots=True)
class _Known:
    """What the last check of a job found. `covered` is None where the contract cannot tell."""

    checked_at: float = float("-inf")
    good: bool = False
    refusal: AdmissionRefused | None = None
    facts: JobFacts | None = None
    covered_tokens: int | None = None
    """For contracts without getters: tokens that a simulated claim showed to be payable, counted from the job's start."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    promising: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Reservation:
    job_id: int
    tokens: int


class JobGate:
    """Decides whether a job's prompt is served and how many tokens it may have."""

    def __init__(
        self,
        ledger: Ledger,
        contract: SettlementContract,
        *,
        max_unproven_tokens: int,
        is_ready: Callable[[], bool],
        first_look: Callable[[], Awaitable[None]],
        recovered: Callable[[], Awaitable[None]],
        wait_for_chain_s: float = 0.0,
        on_headroom: Callable[[int, int], None] = lambda _job_id, _tokens: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._contract = contract
        self._max_unproven_tokens = max_unproven_tokens
        self._is_ready = is_ready
        self._first_look = first_look
        self._recovered = recovered
        self._is_recovered = False
        self._wait_for_chain_s = wait_for_chain_s
        self._on_headroom = on_headroom
        self._clock = clock
        self._known: dict[int, _Known] = {}
        self._reserved: dict[int, int] = {}
        self._tickets: dict[int, _Reservation] = {}
        self._generated: dict[int, int] = {}
        """Tokens generated in this process, by job: tells what came while the ledger was read."""
        self.signer: Signer | None = None
        self._running = RunningJobs(self._look_again, clock)

    async def reserve(self, job_id: int, max_tokens: int) -> int:
        """Tokens the prompt may have, at most `max_tokens`, now reserved. Raises AdmissionRefused, LedgerError."""
        if not self._is_recovered and await self._ledger.account(job_id) is not None:
            await self._wait_recovered()
        if self.signer is None:
            return self._reserve(job_id, max_tokens)
        known = await self._check(job_id, self.signer)
        async with known.promising:  # what one prompt is promised, the next one counts
            return self._reserve(job_id, await self._allowance(job_id, known, max_tokens))

    async def _wait_recovered(self) -> None:
        """A job that the ledger knows is served once the ledger was compared with the chain, after some seconds at most, and
        at once where the chain is away: what is made then is known to be made later than what was claimed elsewhere."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECOVERY_LIMIT_S):
                await self._first_look()
                if self._is_ready():
                    await self._recovered()
                    self._is_recovered = True

    def _reserve(self, job_id: int, tokens: int) -> int:
        self._reserved[job_id] = self._reserved.get(job_id, 0) + tokens
        return tokens

    def release(self, job_id: int, tokens: int) -> None:
        """Give back what was reserved and no ticket took over."""
        left = self._reserved.get(job_id, 0) - tokens
        if left > 0:
            self._reserved[job_id] = left
        else:
            self._reserved.pop(job_id, None)

    def assign(self, ticket_id: int, job_id: int, tokens: int) -> None:
        """A ticket holds the reservation from now on."""
        self._tickets[ticket_id] = _Reservation(job_id, tokens)
        self._running.begin(job_id)

    def check_running(self, job_id: int) -> None:
        """Raises AdmissionRefused if the job was found ended, or its deposit spent, since its answer was admitted."""
        self._running.check(job_id)

    def used(self, ticket_id: int, tokens: int) -> None:
        """Tokens are generated: they count as such, no longer as reserved."""
        reservation = self._tickets.get(ticket_id)
        if reservation is not None:
            taken = min(tokens, reservation.tokens)
            reservation.tokens -= taken
            self.release(reservation.job_id, taken)
            # Put in anew, so that the newest is last.
            self._generated[reservation.job_id] = self._generated.pop(reservation.job_id, 0) + tokens
            if len(self._generated) > REMEMBERED_JOBS:
                self._generated.pop(next(iter(self._generated)))
            self._running.used(reservation.job_id, tokens)

    def close(self, ticket_id: int) -> None:
        """The answer ended. Safe to call twice."""
        reservation = self._tickets.pop(ticket_id, None)
        if reservation is not None:
            self.release(reservation.job_id, reservation.tokens)
            self._running.end(reservation.job_id)

    async def stop(self) -> None:
        """End what is asked of the chain beside the answers."""
        await self._running.stop()

    def forget(self) -> None:
        """Another key or contract: what was found no longer holds."""
        self._known.clear()
        self._is_recovered = False

    # --- what the chain says ----------------------------------------------------------------------------------------

    async def _check(self, job_id: int, signer: Signer) -> _Known:
        known = self._entry(job_id)
        async with known.lock:
            fresh_for_s = GOOD_FOR_S if known.refusal is None else BAD_FOR_S
            if self._clock() - known.checked_at > fresh_for_s:
                await self._ask(job_id, signer, known)
        if known.refusal is not None:
            raise known.refusal
        return known

    async def _ask(self, job_id: int, signer: Signer, known: _Known) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(CHECK_LIMIT_S):
                await self._first_look()
                if not self._is_ready():
                    raise TimeoutError
                await self._simulate(job_id, signer, known)
        except AdmissionRefused as refusal:
            known.refusal, known.good = refusal, False
        except (ChainError, TimeoutError):
            try:
                await self._go_on_without_chain(job_id, signer, known, ends_at=began + self._wait_for_chain_s)
            except JobUnchecked as refusal:  # who waits behind this prompt need not find out anew
                known.refusal, known.checked_at = refusal, self._clock()
            return
        else:
            known.refusal, known.good = None, True
        known.checked_at = self._clock()

    async def _simulate(self, job_id: int, signer: Signer, known: _Known) -> None:
        """Read the job where that is possible, and let the contract judge a claim of one token (or its minimum)."""
        known.facts = await self._contract.read_job(job_id)
        if known.facts is not None:
            self._judge(known.facts, signer.address)
            self._judge_first_claim(known.facts)
            if known.facts.remaining_tokens == 0:
                raise DepositExhausted(f"The deposit of job {job_id} is used up")
        tokens = max(1, self._contract.rules.minimum_tokens)
        try:
            await try_claim(self._contract, signer, job_id, tokens)
        except CallReverted as error:
            refusal = self._contract.explain(error.reason)
            if refusal.kind is RefusalKind.DEPOSIT:
                raise DepositExhausted(f"Job {job_id}: {refusal.plain}") from None
            if refusal.kind in {RefusalKind.TOO_FAST, RefusalKind.PAUSED, RefusalKind.TOO_FEW}:
                return  # the job is good, the moment is not
            raise JobNotValid(f"Job {job_id}: {refusal.plain}") from None

    async def _look_again(self, job_id: int) -> None:
        """Raises AdmissionRefused if further tokens of a running answer would not be paid, ChainError, TimeoutError."""
        signer = self.signer
        if signer is None or not self._is_ready():
            return
        known = self._entry(job_id)
        try:
            async with asyncio.timeout(CHECK_LIMIT_S):
                facts = await self._contract.read_job(job_id)
                if facts is None:
                    await self._simulate(job_id, signer, known)
                    return
            self._judge(facts, signer.address)
            account = await self._ledger.account(job_id)
            is_promised_more = self._reserved.get(job_id, 0) > 0
            if account is not None and is_promised_more and _tokens_left(facts, account) <= 0:
                raise DepositExhausted(f"The deposit of job {job_id} went elsewhere")
        except AdmissionRefused as refusal:
            known.refusal, known.good, known.checked_at = refusal, False, self._clock()
            raise

    @staticmethod
    def _judge(facts: JobFacts, host: str) -> None:
        if not facts.exists:
            raise JobNotValid(f"The contract does not know job {facts.job_id}")
        if facts.host.lower() != host.lower():
            raise JobNotValid(f"Job {facts.job_id} belongs to another host")
        if not facts.is_open:
            raise JobNotValid(f"Job {facts.job_id} has ended")

    def _judge_first_claim(self, facts: JobFacts) -> None:
        """A session whose first claim must be larger than it can ever become would be served and never paid."""
        least = facts.first_claim_minimum
        for limit, what in (
            (self._max_unproven_tokens, "this host leaves at most {} tokens of a job unproven"),
            (facts.remaining_tokens, "its deposit covers {} tokens"),
        ):
            if least > limit:
                why = what.format(limit)
                raise JobNotValid(f"The first claim of job {facts.job_id} must have {least} tokens, but {why}")

    async def _go_on_without_chain(self, job_id: int, signer: Signer, known: _Known, ends_at: float) -> None:
        if known.good:
            return
        account = await self._ledger.account(job_id)
        if account is not None and account.claimed > 0:
            known.good, known.refusal = True, None  # it was claimed from before: it was good then
            return
        if await self._checked_late(job_id, signer, known, ends_at):
            return
        raise JobUnchecked(
            f"Job {job_id} cannot be checked now: there is no contact with its contract. Try again later"
        )

    async def _checked_late(self, job_id: int, signer: Signer, known: _Known, ends_at: float) -> bool:
        """Wait for the chain as long as the host allows; True once the job was found good. Raises AdmissionRefused."""
        while self._clock() < ends_at:
            await asyncio.sleep(_LOOK_AGAIN_S)
            if not self._is_ready():
                continue
            try:
                async with asyncio.timeout(max(_LOOK_AGAIN_S, ends_at - self._clock())):
                    await self._simulate(job_id, signer, known)
            except (ChainError, TimeoutError):
                continue
            known.refusal, known.good, known.checked_at = None, True, self._clock()
            return True
        return False

    # --- how much ---------------------------------------------------------------------------------------------------

    async def _allowance(self, job_id: int, known: _Known, max_tokens: int) -> int:
        before = self._generated.get(job_id, 0)
        account = await self._ledger.account(job_id)
        if known.facts is not None and known.facts.paid_tokens > 0 and (account is None or account.generated == 0):
            account = await self._take_over(known.facts)
        generated = account.generated - account.written_off if account else 0
        # The account may be older: rather too few than too many.
        generated += max(0, self._generated.get(job_id, 0) - before)
        reserved = self._reserved.get(job_id, 0)
        unproven = generated - account.proven if account else 0
        if unproven >= self._max_unproven_tokens:
            raise RateLimited(
                f"Job {job_id} has {unproven} tokens that are not proven on chain yet; it goes on when they are"
            )
        allowed = max_tokens = min(max_tokens, self._max_unproven_tokens - unproven)  # no answer runs past the limit
        if known.facts is not None:
            left = known.facts.covered_tokens - _paid_to_others(known.facts, account) - generated - reserved
            self._on_headroom(job_id, left + reserved)
            if left <= 0:
                raise DepositExhausted(f"The deposit of job {job_id} covers no further token")
            allowed = min(allowed, left)
        elif self._is_ready() and self.signer is not None:
            allowed = await self._payable(job_id, unproven + reserved, max_tokens, self.signer)
        if not self._is_ready():
            allowed = min(allowed, self._max_unproven_tokens - unproven - reserved)
            if allowed <= 0:
                raise RateLimited(
                    f"Running answers of job {job_id} fill its backlog; it goes on when the chain is back"
                )
        return allowed

    async def _take_over(self, facts: JobFacts) -> JobAccount | None:
        """A job that this ledger sees first, but the contract has paid for: the data folder was lost, or another machine
        works on it. Those tokens are known from the chain alone and never claimed from here."""
        mark = hashlib.sha256(f"first seen:{facts.job_id}:{facts.paid_tokens}".encode()).digest()
        note = f"{facts.paid_tokens} tokens were claimed before this ledger knew the job"
        log.warning("Job %d: %s", facts.job_id, note)
        await self._ledger.record_foreign(facts.job_id, facts.paid_tokens, mark, note)
        return await self._ledger.account(facts.job_id)

    async def _payable(self, job_id: int, before: int, wanted: int, signer: Signer) -> int:
        """For a contract that cannot be asked: the most tokens, up to `wanted`, whose claim it would still pay."""
        tolerance = max(1, wanted // 64)
        try:
            found = await most_payable(self._contract, signer, job_id, wanted, before=before, tolerance=tolerance)
        except ChainError:
            return wanted  # the job was good a moment ago; the backlog is bounded
        if found == 0:
            raise DepositExhausted(f"The deposit of job {job_id} covers no further token")
        return found

    def _entry(self, job_id: int) -> _Known:
        if job_id not in self._known and len(self._known) >= REMEMBERED_JOBS:
            self._known.pop(next(iter(self._known)))
        return self._known.setdefault(job_id, _Known())


def _paid_to_others(facts: JobFacts, account: JobAccount | None) -> int:
    """Tokens of the job that were claimed from elsewhere."""
    return max(0, facts.paid_tokens - (account.claimed if account else 0))


def _tokens_left(facts: JobFacts, account: JobAccount) -> int:
    """What the deposit still covers beyond all that was generated here."""
    return facts.covered_tokens - _paid_to_others(facts, account) - (account.generated - account.written_off)
