"""Submits checkpoints: knows which jobs are due, makes their claims, and follows what was sent until it is proven.

One task does it all in turns: look at what is on its way, make what is due, read payments. The order at start is the same
as ever after: first what became of what was sent, then the stored bytes again, then what was planned, then new claims.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from fabstir_desktop.errors import ChainError, FabstirError, LedgerError, SignerLocked
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import WAITING_STATES, ClaimReason
from fabstir_desktop.jobs.policy import ClaimLater, ClaimNow, decide_claim, is_deadline_due
from fabstir_desktop.jobs.status import BatchingStatus, CheckpointOutcome
from fabstir_desktop.settlement.alerts import tell_deadlines
from fabstir_desktop.settlement.batch_rounds import BatchRounds, Made, Make
from fabstir_desktop.settlement.board import ClaimWaits
from fabstir_desktop.settlement.claimer import Submitted
from fabstir_desktop.settlement.delegation import Mode
from fabstir_desktop.settlement.due_list import DueList
from fabstir_desktop.settlement.manager_parts import ManagerParts
from fabstir_desktop.settlement.reconciler import Progress
from fabstir_desktop.settlement.speeding import speed_up

log = logging.getLogger(__name__)

PARALLEL_CLAIMS = 8
DEADLINE_POLLS = 10.0
DEADLINE_MARGIN_S = 150.0
FORCE_LIMIT_S = 20.0
IDLE_POLLS = 7.5
"""Rest in polls while nothing is on its way: 15 s at two seconds a poll."""
SWEEP_POLLS = 150.0
"""Every so many polls (five minutes at two seconds a poll) the ledger is searched for jobs that nobody remembers."""
BUG_RETRY_S = 60.0
LONGEST_BACKOFF_S = 5.0


class CheckpointManager:
    """Claims for one signer. `is_ready` tells whether chain and contract can be used now."""

    def __init__(
        self,
        parts: ManagerParts,
        *,
        poll_s: float,
        is_ready: Callable[[], bool],
        has_session: Callable[[int], bool],
        on_account: Callable[[JobAccount], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._poll_s = poll_s
        self._idle_s = IDLE_POLLS * poll_s
        self._is_ready = is_ready
        self._has_session = has_session
        self._on_account = on_account
        self._on_trouble = on_trouble
        self._due = DueList()
        self._afterwards: dict[int, ClaimReason] = {}
        """Jobs that are claimed again when their open claim is closed."""
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()  # who holds or awaits one keeps it
        self._rounds = BatchRounds(parts.ledger, parts.claimer, parts.outbox, self._due, self, poll_s=poll_s)
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(PARALLEL_CLAIMS)
        self._task: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._finality_at = 0.0
        self._failures = 0
        self._made = 0
        self._settling = False
        self._deadlines_at = 0.0
        self._swept_at = 0.0
        self._recovered = asyncio.Event()
        self.open_claims = 0
        """Claims on their way, as last seen."""

    @property
    def sender(self) -> str:
        """The host's address."""
        return self._parts.outbox.sender

    @property
    def recovered(self) -> bool:
        """Whether the ledger was compared with the chain: nothing new is claimed before."""
        return self._recovered.is_set()

    async def wait_recovered(self) -> None:
        """Return once the ledger was compared with the chain. May take as long as the chain is away."""
        await self._recovered.wait()

    @property
    def waiting_jobs(self) -> int:
        """Jobs that should be claimed and are not yet."""
        return len(self._due)

    @property
    def claim_gas(self) -> int:
        """What a claim needs in gas, as last estimated."""
        return self._parts.outbox.claim_gas

    def start(self) -> None:
        """Begin to work, in a task of its own."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="checkpoints")

    async def stop(self, timeout_s: float) -> None:
        """Sign, store and send what is due, as far as the time goes; then end. Safe to call twice."""
        if self._task is None:
            return
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._drain()
        task, self._task = self._task, None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def due(self, job_id: int, reason: ClaimReason) -> None:
        """A job has something to claim. Cheap; may be called for every token."""
        if self._due.add(job_id, reason):
            self.wake()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def retry_now(self) -> None:
        """A cause may be gone: try every waiting job at once."""
        self._due.retry_now()
        self._parts.outbox.forget_market()
        self.wake()

    async def checkpoint(self, job_id: int | None = None) -> list[CheckpointOutcome]:
        """Claim now what the job (or every job) has; says for each what was done or why not."""
        if job_id is not None:
            self._parts.history.consent(job_id)
            jobs = [job_id]
        else:
            jobs = [account.job_id for account in await self._parts.ledger.accounts_with_unclaimed()]
        return list(await asyncio.gather(*(self._force(one) for one in jobs)))

    async def speed_up(self, tx_hash: str) -> str:
        """Send a waiting claim again with a dearer fee; returns the new hash. Raises CannotSpeedUp, ChainError, LedgerError."""
        parts = self._parts
        return await speed_up(parts.ledger, parts.outbox, parts.feed, tx_hash)

    @property
    def batching(self) -> BatchingStatus:
        """Whether claims travel together, as last looked at."""
        return self._parts.delegation.status

    async def batching_changed(self, limit_s: float) -> None:
        """The host wants it otherwise: see to it now, and return when it is so, on its way, or impossible."""
        self.wake()
        if self._is_ready():
            await self._parts.delegation.settled(limit_s)

    # --- the task ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            pause_s = self._poll_s
            try:
                pause_s = await self._turn()
                self._failures = 0
            except (ChainError, LedgerError, SignerLocked) as error:
                self._failures += 1
                pause_s = min(LONGEST_BACKOFF_S, self._poll_s * 2 ** min(self._failures, 8))
                level = logging.WARNING if self._failures == 1 else logging.DEBUG
                log.log(level, "checkpoints wait: %s", error)
                self._on_trouble()
            except Exception:
                self._failures += 1
                pause_s = LONGEST_BACKOFF_S
                log.exception("a step of settlement failed; it is tried again")
            finally:
                self._idle.set()
            await self._pause(pause_s)

    async def _turn(self) -> float:
        """One turn; returns how long to rest."""
        self._wake.clear()
        if not self._is_ready():
            return self._idle_s  # whoever finds the chain ready wakes us
        progress = await self._look()
        await self._recover()
        await self._sweep()
        made = self._made
        match await self._parts.delegation.step():
            case Mode.BATCH:
                await self._rounds.run()
            case Mode.SINGLE:
                await self._resume_planned()
                await self._make_due()
            case Mode.NONE:  # the account itself is being changed
                pass
        self._settling = await self._parts.completer.run()
        await self._watch_deadlines()
        if progress.open_slots or self._made != made:
            progress = await self._look()
        elif progress.head is not None or self._parts.payments.is_stale:
            await self._parts.payments.poll(progress.head)
        self.open_claims = progress.unproven_slots
        return self._rest_s(progress)

    async def _recover(self) -> None:
        """Compare the ledger with the chain: at start, and before anything is signed after nonces that are not known here."""
        nonces = self._parts.outbox.nonces
        if not self.recovered or nonces.wants_history or self._parts.history.is_due:
            nonces.wants_history = False
            try:
                await self._parts.recovery.run(self.lock)
            except BaseException:
                nonces.wants_history = True
                raise
        if not self.recovered:
            await self._parts.announcer.settle_unreported(can_read=self._parts.payments.can_read)
            self._recovered.set()

    def _rest_s(self, progress: Progress) -> float:
        if progress.unproven_slots or self._settling:
            return self._poll_s
        soonest_s = self._due.next_in_s()
        return self._idle_s if soonest_s is None else min(self._idle_s, max(self._poll_s, soonest_s))

    async def _pause(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()

    async def _look(self) -> Progress:
        now = time.monotonic()
        finality = now >= self._finality_at
        if finality:
            self._finality_at = now + 30.0
        progress = await self._parts.reconciler.look(finality=finality)
        if progress.confirmed or progress.jobs or progress.paid:
            await self._parts.payments.poll(progress.head, progress.paid)
        for claim, tx_hash, payments in progress.confirmed:
            await self._parts.announcer.announce(claim, tx_hash, payments)
        for job_id in progress.jobs:
            await self._reconsider(job_id)
        return progress

    async def _sweep(self) -> None:
        """What is due follows from the ledger: at start, and from time to time, lest a trigger was lost with an error."""
        now = time.monotonic()
        if self._swept_at and now - self._swept_at < SWEEP_POLLS * self._poll_s:
            return
        await self.claim_unclaimed()
        self._swept_at = now

    async def claim_unclaimed(self) -> None:
        """Make every job due whose unclaimed tokens wait for nothing: its session is over, or the threshold is reached."""
        for account in await self._parts.ledger.accounts_with_unclaimed():
            self._on_account(account)
            self._consider(account, ClaimReason.RECOVERY)

    async def _reconsider(self, job_id: int) -> None:
        account = await self._parts.ledger.account(job_id)
        if account is None:
            return
        self._on_account(account)
        if account.open_claims == 0 and job_id in self._afterwards:
            self.due(job_id, self._afterwards.pop(job_id))
        self._consider(account, ClaimReason.SESSION_END)

    def _consider(self, account: JobAccount, reason: ClaimReason) -> None:
        trigger = None if self._has_session(account.job_id) else reason
        if isinstance(decide_claim(account, self._parts.claimer.policy, trigger=trigger), ClaimNow):
            self.due(account.job_id, trigger or ClaimReason.THRESHOLD)

    async def _watch_deadlines(self) -> None:
        """Where unproven tokens can be lost by time, prove them when half of it has passed."""
        now = time.monotonic()
        if not self._parts.contract.rules.has_deadlines or now < self._deadlines_at:
            return
        self._deadlines_at = now + DEADLINE_POLLS * self._poll_s
        near: list[tuple[JobAccount, float]] = []
        head = await self._parts.reconciler.head()
        for account in await self._parts.ledger.accounts_with_unclaimed():
            if account.claimable < self._parts.claimer.policy.minimum_tokens or account.open_claims:
                continue
            facts = await self._parts.contract.read_job(account.job_id)
            if facts is not None and facts.is_open and facts.deadline is not None:
                near.append((account, facts.deadline))
                if is_deadline_due(head.timestamp, facts.deadline, facts.deadline_window_s, DEADLINE_MARGIN_S):
                    self.due(account.job_id, ClaimReason.DEADLINE)
        tell_deadlines(self._parts.board, near, head.timestamp)

    # --- claims -----------------------------------------------------------------------------------------------------

    async def _resume_planned(self) -> None:
        """Claims that were planned before the process ended, freed by the reconciler, or held."""
        for listed in await self._parts.ledger.claims(states=WAITING_STATES):
            if self._due.is_waiting(listed.job_id):
                continue
            async with self.lock(listed.job_id):
                claim = await self._parts.ledger.claim(listed.claim_id)
                if claim.state in WAITING_STATES:
                    await self.attempt(claim.job_id, partial(self._parts.claimer.resume, claim), claim.reason)

    async def _make_due(self) -> None:
        await asyncio.gather(*(self._claim_due(job_id) for job_id in self._due.ready()))

    async def _claim_due(self, job_id: int) -> None:
        async with self._slots, self.lock(job_id):
            entry = self._due.get(job_id)
            if entry is not None:
                trigger = None if entry.reason is ClaimReason.THRESHOLD else entry.reason
                await self.attempt(job_id, partial(self._parts.claimer.claim, job_id, trigger), entry.reason)

    async def _force(self, job_id: int) -> CheckpointOutcome:
        if not self._is_ready():
            return CheckpointOutcome(
                job_id, False, 0, None, "no contact with the chain, or its contract; it is claimed later"
            )
        try:
            async with asyncio.timeout(FORCE_LIMIT_S):
                # What the chain has and the ledger has not must be known first, or it is claimed a second time.
                await self.wait_recovered()
                async with self.lock(job_id):
                    claim = partial(self._parts.claimer.claim, job_id, ClaimReason.FORCED)
                    result = await self.attempt(job_id, claim, ClaimReason.FORCED)
                    if _is_busy(result):
                        self._afterwards[job_id] = ClaimReason.FORCED
        except TimeoutError:
            why = "the chain does not answer" if self.recovered else "the ledger is still being compared with the chain"
            return CheckpointOutcome(job_id, False, 0, None, f"{why}; it is claimed later")
        except FabstirError as error:
            return CheckpointOutcome(job_id, False, 0, None, str(error))
        self.wake()
        if isinstance(result, Submitted):
            why = "submitted" if result.accepted else "signed and stored; it is sent until a node takes it"
            return CheckpointOutcome(job_id, True, result.claim.tokens, result.tx_hash, why)
        return CheckpointOutcome(job_id, False, 0, None, result.why if isinstance(result, ClaimLater) else "planned")

    async def attempt(self, job_id: int, make: Make, fallback: ClaimReason) -> Made:
        """Make a claim; whatever stands in the way leaves the job due, with its cause, to be tried again."""
        asked = self._due.asked(job_id)
        try:
            self._parts.history.check(job_id)
            result = await make()
        except (ClaimWaits, ChainError, LedgerError, SignerLocked) as error:
            return self.put_off(job_id, fallback, error)
        except Exception as error:
            log.exception("claiming job %d failed; other jobs go on", job_id)
            return self._postpone(job_id, fallback, BUG_RETRY_S, f"{type(error).__name__}: {error}")
        entry = self._due.answer(job_id, asked)
        if isinstance(result, Submitted):
            await self.note_made(job_id)
        elif entry is not None and entry.reason is not ClaimReason.THRESHOLD and _is_busy(result):
            self._afterwards[job_id] = entry.reason
        return result

    async def note_made(self, job_id: int) -> None:
        """A claim of the job is signed and stored."""
        self._made += 1
        account = await self._parts.ledger.account(job_id)
        if account is not None:
            self._on_account(account)

    def put_off(self, job_id: int, reason: ClaimReason, error: Exception) -> ClaimLater:
        """Let the job wait, because of the error, and say the problem if it is one."""
        if isinstance(error, ClaimWaits):
            if error.problem is not None:
                self._parts.board.raise_(error.problem)
            return self._postpone(job_id, reason, error.retry_s, str(error))
        self._on_trouble()
        return self._postpone(job_id, reason, self._poll_s, str(error))

    def _postpone(self, job_id: int, reason: ClaimReason, retry_s: float, why: str) -> ClaimLater:
        self._due.postpone(job_id, reason, retry_s, why)
        return ClaimLater(why)

    async def _drain(self) -> None:
        """Wait until nothing is due that could be made now."""
        while self._is_ready() and self._due.ready():
            self._idle.clear()
            self.wake()
            await self._idle.wait()

    def lock(self, job_id: int) -> asyncio.Lock:
        """The job's lock, which every step of a claim holds."""
        return self._locks.setdefault(job_id, asyncio.Lock())


def _is_busy(result: Made) -> bool:
    """Another claim of the job is on its way."""
    return isinstance(result, ClaimLater) and result.is_busy
