"""The ledger's public face: what the rest of the application may ask of the only door to SQLite.

Tokens are stored by group commit (durable against a killed process when the future resolves, flushed to the medium within
250 ms); claims, slots and attempts are each one transaction with a full fsync. A commit whose outcome is unknown is read
back by its key, never assumed. Every method raises LedgerError when the file cannot be used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import Attempt, Claim, ClaimReason, ClaimState, MinedFact, Payment, Slot, SlotState
from fabstir_desktop.jobs.generation import FinishReason
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.views import EarningsPoint, EarningsView, JobView, TransactionView


@dataclass(frozen=True, slots=True)
class TranscriptSegment:
    """Consecutive tokens of one answer inside a job: `start` is the job position of the first of `token_ids`."""

    ticket_id: int
    start: int
    token_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    parameters: str
    """Canonical JSON of sampling parameters, seed and max_tokens."""
    model_sha256: str


class Ledger:
    """One open ledger of one venue (chain, contract)."""

    venue: Venue

    @classmethod
    async def open(cls, path: Path, venue: Venue) -> Ledger:
        """Lock the data directory, back up and migrate if needed, check integrity, start the writer thread.

        Raises LedgerLocked, LedgerTooNew, LedgerDamaged, LedgerError.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Commit what waits, truncate the WAL, release the lock. Safe to call twice."""
        raise NotImplementedError

    @property
    def failure(self) -> str | None:
        """Why the ledger cannot be written just now, or None."""
        raise NotImplementedError

    # --- jobs and tokens --------------------------------------------------------------------------------------------

    async def open_ticket(self, job_id: int, session_id: str) -> int:
        """Begin an answer for the job (created if new, its session marked open); returns the ticket's id."""
        raise NotImplementedError

    async def store_prompt(
        self, ticket_id: int, prompt_ids: Sequence[int], parameters: str, model_sha256: str
    ) -> None:
        """Store what the answer is generated from."""
        raise NotImplementedError

    def add_tokens(self, ticket_id: int, token_ids: Sequence[int]) -> asyncio.Future[int]:
        """Count tokens; the future gives the job's new total once they are committed.

        Calls made in one turn of the loop share one transaction and one hop to the writer thread.
        """
        raise NotImplementedError

    async def close_ticket(self, ticket_id: int, finish_reason: FinishReason) -> None:
        """Mark the answer ended. Does nothing for a closed ticket."""
        raise NotImplementedError

    async def end_session(self, session_id: str) -> list[int]:
        """Mark the session's jobs as without a session; returns their ids."""
        raise NotImplementedError

    async def end_all_sessions(self) -> list[int]:
        """At start: no session survived the last process. Open tickets are closed as `error`. Returns job ids affected."""
        raise NotImplementedError

    async def account(self, job_id: int) -> JobAccount | None:
        """The job's account, None if it never had a token or ticket."""
        raise NotImplementedError

    async def accounts_with_unclaimed(self) -> list[JobAccount]:
        """Every job with tokens that no sent claim covers."""
        raise NotImplementedError

    async def note_job(self, job_id: int, note: str) -> None:
        """Set the job's remark for the host (refused by chain, forfeited tail, mismatch); empty clears it."""
        raise NotImplementedError

    async def transcript(self, job_id: int, start: int, end: int) -> list[TranscriptSegment]:
        """The tokens `[start, end)` of a job in order."""
        raise NotImplementedError

    # --- claims, slots, attempts ------------------------------------------------------------------------------------

    async def plan_claim(
        self,
        job_id: int,
        start: int,
        end: int,
        *,
        reason: ClaimReason,
        host: str,
        record: bytes,
        proof_hash: bytes,
        proof: bytes,
        calldata: bytes,
    ) -> Claim:
        """Fix a claim (PLANNED). The database refuses overlap, gaps, and an end beyond what was generated.

        Planning the same job and range again returns the claim that is there.
        """
        raise NotImplementedError

    async def claim(self, claim_id: int) -> Claim:
        """One claim."""
        raise NotImplementedError

    async def claims(
        self, *, job_id: int | None = None, states: Sequence[ClaimState] = (), limit: int = 1000
    ) -> list[Claim]:
        """Claims, oldest first; all states if none is named."""
        raise NotImplementedError

    async def claim_record(self, proof_hash: bytes) -> bytes | None:
        """The canonical proof record stored with a claim."""
        raise NotImplementedError

    async def last_proof_hash(self, job_id: int) -> bytes:
        """Proof hash of the job's newest claim that is not void; 32 zero bytes if none."""
        raise NotImplementedError

    async def bind(
        self, claim_ids: Sequence[int], *, sender: str, nonce: int, attempt: Attempt, kind: str = "claim"
    ) -> Slot:
        """In one transaction: the slot (OPEN), its first attempt, the bindings, each claim BOUND. Nothing is sent before."""
        raise NotImplementedError

    async def add_attempt(self, slot_id: int, attempt: Attempt) -> Slot:
        """Store a fee bump of an OPEN slot before it is sent."""
        raise NotImplementedError

    async def note_send(self, tx_hash: bytes, error: str | None) -> None:
        """Remember that the bytes were handed to an RPC, and its answer. Advice only: losing it does no harm."""
        raise NotImplementedError

    async def slots(self, sender: str, states: Sequence[SlotState] = ()) -> list[Slot]:
        """Slots of a sender in nonce order; all states if none is named."""
        raise NotImplementedError

    async def slot_of_claim(self, claim_id: int) -> Slot | None:
        """The slot a claim is bound to now."""
        raise NotImplementedError

    async def next_nonce(self, sender: str) -> int | None:
        """One above the highest nonce of the sender in the ledger; None if there is none."""
        raise NotImplementedError

    async def mark_included(self, slot_id: int, fact: MinedFact) -> None:
        """Slot INCLUDED; its claims INCLUDED if it succeeded, else they stay BOUND until `void_reverted`."""
        raise NotImplementedError

    async def mark_confirmed(self, slot_id: int) -> None:
        """Slot and claims CONFIRMED."""
        raise NotImplementedError

    async def mark_final(self, slot_id: int) -> None:
        """Slot and claims FINAL."""
        raise NotImplementedError

    async def mark_reorged(self, slot_id: int) -> None:
        """The block is gone: slot OPEN again, claims REOPENED."""
        raise NotImplementedError

    async def void_reverted(
        self, slot_id: int, *, note: str, outcome: ClaimState = ClaimState.VOID
    ) -> None:
        """A mined and deep enough revert: release the binding; each claim goes to VOID, HELD or WRITTEN_OFF with `note`."""
        raise NotImplementedError

    async def free_slot(self, slot_id: int, *, state: SlotState, note: str) -> None:
        """Only on positive proof that no attempt can be mined: slot BURNED or FOREIGN, claims back to PLANNED."""
        raise NotImplementedError

    async def move_claim(self, claim_id: int, state: ClaimState, note: str = "") -> None:
        """A step without a slot: PLANNED to HELD or VOID or WRITTEN_OFF, HELD to PLANNED, VOID or WRITTEN_OFF."""
        raise NotImplementedError

    async def record_foreign(self, job_id: int, tokens: int, tx_hash: bytes, note: str) -> None:
        """A claim seen on chain that this ledger did not make: it owns its range, so that it is never claimed again."""
        raise NotImplementedError

    # --- chain facts ------------------------------------------------------------------------------------------------

    async def record_payments(
        self, payments: Sequence[Payment], *, cursor_block: int, cursor_hash: bytes
    ) -> int:
        """Store payments (twice is once) and move the event cursor, in one transaction; returns how many were new."""
        raise NotImplementedError

    async def forget_payments_from(self, block_number: int) -> None:
        """A reorganisation: drop payments at and above the block and set the cursor below it."""
        raise NotImplementedError

    async def event_cursor(self) -> tuple[int, bytes] | None:
        """Last block whose events are stored, and its hash."""
        raise NotImplementedError

    # --- views ------------------------------------------------------------------------------------------------------

    async def job_views(self, *, limit: int = 10_000) -> list[JobView]:
        """Jobs, most recently changed first."""
        raise NotImplementedError

    async def job_view(self, job_id: int) -> JobView | None:
        """One job's row."""
        raise NotImplementedError

    async def transaction_views(self, *, limit: int = 1000, slot_id: int | None = None) -> list[TransactionView]:
        """Attempts, newest first."""
        raise NotImplementedError

    async def earnings(self) -> EarningsView:
        """The ladder over all jobs of the venue."""
        raise NotImplementedError

    async def earnings_series(self, *, since: float, bucket_seconds: int) -> list[EarningsPoint]:
        """Points of the plot from `since` on; buckets in which the app did not run at all are gaps."""
        raise NotImplementedError

    async def journal(self, job_id: int | None = None, *, limit: int = 200) -> list[tuple[float, str]]:
        """What happened (time, sentence), newest first: the job's timeline."""
        raise NotImplementedError

    async def note_running(self) -> None:
        """Called once a minute: marks the time as one in which the app ran."""
        raise NotImplementedError


async def read_views(path: Path, venue: Venue) -> Ledger:
    """Open an existing ledger for views only, beside a running writer or without one; creates nothing.

    Raises LedgerError if there is none.
    """
    raise NotImplementedError
