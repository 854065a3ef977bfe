"""The ledger's public face: what the rest of the application may ask of the only door to SQLite.

Tokens are stored by group commit (durable against a killed process when the future resolves, flushed to the medium within
250 ms); claims, slots and attempts are each one transaction with a full fsync. A commit whose outcome is unknown is read
back by its key, never assumed. Every method raises LedgerError when the file cannot be used, and LedgerRefused when the
database refuses a step that would break what must always be true.

One thread writes, one reads, a third checks and copies in the background; nothing blocks the loop. Use a ledger from the
loop that opened it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import (
    Attempt,
    Claim,
    ClaimReason,
    ClaimState,
    MinedFact,
    Payment,
    ReadSigned,
    Slot,
    SlotState,
)
from fabstir_desktop.jobs.generation import FinishReason
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.landed import LandedClaim
from fabstir_desktop.jobs.views import ClaimView, EarningsPoint, EarningsView, JobView, TransactionView
from fabstir_desktop.ledger import claims, journal, recovery, series, slots, tokens, views
from fabstir_desktop.ledger import payments as chain_facts
from fabstir_desktop.ledger.engine import LedgerEngine, open_engine, open_view_engine
from fabstir_desktop.ledger.records import TranscriptSegment

__all__ = ["Ledger", "TranscriptSegment", "read_views"]


class Ledger:
    """One open ledger of one venue (chain, contract)."""

    def __init__(self, venue: Venue, engine: LedgerEngine, reads: ReadSigned | None = None) -> None:
        self.venue = venue
        self._engine = engine
        self._reads = reads
        self._venue_id = engine.venue_id

    @classmethod
    async def open(cls, path: Path, venue: Venue, *, vfs: str | None = None, reads: ReadSigned | None = None) -> Ledger:
        """Lock the data directory, back up and migrate if needed, check integrity, start the writer thread.

        `vfs` names another file system layer of SQLite (tests put faults there). With `reads` signed bytes are stored only
        where they carry what is said of them. Raises LedgerLocked, LedgerTooNew, LedgerDamaged, LedgerError.
        """
        return cls(venue, await open_engine(path, venue, vfs), reads)

    async def close(self) -> None:
        """Commit what waits, truncate the WAL, release the lock. Safe to call twice."""
        await self._engine.close()

    @property
    def failure(self) -> str | None:
        """Why the ledger cannot be written just now, or None."""
        return self._engine.failure

    # --- jobs and tokens --------------------------------------------------------------------------------------------

    async def open_ticket(self, job_id: int, session_id: str, client: bytes | None = None) -> int:
        """Begin an answer for the job (created if new, its session marked open); returns the ticket's id.

        The first `client` that is given for a job (a hash, never an address) is kept as its own.
        """
        return await self._engine.write(
            lambda db: tokens.open_ticket(db, self._venue_id, job_id, session_id, client), durable=False
        )

    async def is_anothers(self, job_id: int, session_id: str, client: bytes) -> bool:
        """Whether the job was first used by another client, and never in a session of this name."""
        return await self._engine.read(lambda db: tokens.is_anothers(db, self._venue_id, job_id, session_id, client))

    async def store_prompt(self, ticket_id: int, prompt_ids: Sequence[int], parameters: str, model_sha256: str) -> None:
        """Store what the answer is generated from."""
        await self._engine.write(
            lambda db: tokens.store_prompt(db, ticket_id, prompt_ids, parameters, model_sha256), durable=False
        )

    def add_tokens(self, ticket_id: int, token_ids: Sequence[int]) -> asyncio.Future[int]:
        """Count tokens; the future gives the job's new total once they are committed.

        Calls made in one turn of the loop share one transaction and one hop to the writer thread.
        """
        return self._engine.add_tokens(ticket_id, token_ids)

    async def close_ticket(self, ticket_id: int, finish_reason: FinishReason) -> None:
        """Mark the answer ended. Does nothing for a closed ticket."""
        await self._engine.write(lambda db: tokens.close_ticket(db, ticket_id, finish_reason), durable=False)

    async def end_session(self, session_id: str) -> list[int]:
        """Mark the session's jobs as without a session; returns their ids."""
        return await self._engine.write(lambda db: tokens.end_session(db, self._venue_id, session_id), durable=False)

    async def end_all_sessions(self) -> list[int]:
        """At start: no session survived the last process. Open tickets are closed as `error`. Returns job ids affected."""
        return await self._engine.write(lambda db: tokens.end_all_sessions(db, self._venue_id), durable=False)

    async def account(self, job_id: int) -> JobAccount | None:
        """The job's account, None if it never had a token or ticket."""
        return await self._engine.read(lambda db: claims.read_account(db, self._venue_id, job_id))

    async def accounts_with_unclaimed(self) -> list[JobAccount]:
        """Every job with tokens that no sent claim covers."""
        return await self._engine.read(lambda db: claims.read_unclaimed(db, self._venue_id))

    async def note_job(self, job_id: int, note: str) -> None:
        """Set the job's remark for the host (refused by chain, forfeited tail, mismatch); empty clears it."""
        await self._engine.write(lambda db: tokens.note_job(db, self._venue_id, job_id, note), durable=False)

    async def transcript(self, job_id: int, start: int, end: int) -> list[TranscriptSegment]:
        """The tokens `[start, end)` of a job in order."""
        return await self._engine.read(lambda db: tokens.read_transcript(db, self._venue_id, job_id, start, end))

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
        new = claims.NewClaim(job_id, start, end, reason, host, record, proof_hash, proof, calldata)
        return await self._engine.write(lambda db: claims.plan_claim(db, self._venue_id, new), durable=True)

    async def claim(self, claim_id: int) -> Claim:
        """One claim."""
        return await self._engine.read(lambda db: claims.read_claim(db, claim_id))

    async def claims(
        self, *, job_id: int | None = None, states: Sequence[ClaimState] = (), limit: int = 1000
    ) -> list[Claim]:
        """Claims, oldest first; all states if none is named."""
        return await self._engine.read(lambda db: claims.read_claims(db, self._venue_id, job_id, states, limit))

    async def claim_record(self, proof_hash: bytes) -> bytes | None:
        """The canonical proof record stored with a claim."""
        return await self._engine.read(lambda db: claims.read_record(db, proof_hash))

    async def last_proof_hash(self, job_id: int, *, before: int | None = None) -> bytes:
        """Proof hash of the job's last claim that is not void (and begins below token `before`); 32 zero bytes if none."""
        return await self._engine.read(lambda db: claims.read_last_proof_hash(db, self._venue_id, job_id, before))

    async def reverts(self, job_id: int, start: int) -> tuple[int, float]:
        """How often a claim beginning at the job's token `start` was reverted on chain; when the last one was signed."""
        return await self._engine.read(lambda db: claims.read_reverts(db, self._venue_id, job_id, start))

    async def bind(
        self, claim_ids: Sequence[int], *, sender: str, nonce: int, attempt: Attempt, kind: str = "claim"
    ) -> Slot:
        """In one transaction: the slot (OPEN), its first attempt, the bindings, each claim BOUND. Nothing is sent before."""
        bound = partial(slots.bind, sender=sender, nonce=nonce, attempt=attempt, kind=kind, reads=self._reads)
        return await self._engine.write(lambda db: bound(db, self.venue.chain_id, claim_ids), durable=True)

    async def add_attempt(self, slot_id: int, attempt: Attempt) -> Slot:
        """Store a fee bump of an OPEN slot before it is sent."""
        return await self._engine.write(lambda db: slots.add_attempt(db, slot_id, attempt, self._reads), durable=True)

    async def note_send(self, tx_hash: bytes, error: str | None) -> None:
        """Remember that the bytes were handed to an RPC, and its answer. Advice only: losing it does no harm."""
        await self._engine.write(lambda db: slots.note_send(db, tx_hash, error), durable=False)

    async def slots(self, sender: str, states: Sequence[SlotState] = ()) -> list[Slot]:
        """Slots of a sender in nonce order; all states if none is named."""
        return await self._engine.read(lambda db: slots.read_slots(db, self.venue.chain_id, sender, states))

    async def reverted_slots(self, sender: str, kind: str) -> list[Slot]:
        """Nonces of the sender and of this kind whose transaction was reverted, in nonce order."""
        return await self._engine.read(lambda db: slots.read_reverted(db, self.venue.chain_id, sender, kind))

    async def slots_with_failures(self, sender: str) -> list[Slot]:
        """Batches of the sender that succeeded while claims of theirs failed and are not released yet."""
        return await self._engine.read(lambda db: slots.read_slots_with_failures(db, self.venue.chain_id, sender))

    async def senders(self, states: Sequence[SlotState] = ()) -> list[str]:
        """Every address that signed transactions here, of any venue of the chain; only those with one in `states`."""
        return await self._engine.read(lambda db: slots.read_senders(db, self.venue.chain_id, states))

    async def slot_of_claim(self, claim_id: int) -> Slot | None:
        """The slot a claim is bound to now."""
        return await self._engine.read(lambda db: slots.read_slot_of_claim(db, claim_id))

    async def next_nonce(self, sender: str) -> int | None:
        """One above the highest nonce of the sender in the ledger; None if there is none."""
        return await self._engine.read(lambda db: slots.read_next_nonce(db, self.venue.chain_id, sender))

    async def mark_included(self, slot_id: int, fact: MinedFact, outcomes: Mapping[int, bool] | None = None) -> None:
        """Slot INCLUDED; its claims INCLUDED if it succeeded, else they stay BOUND until `void_reverted`.

        Of a batch `outcomes` tells for each claim whether it succeeded; those that failed wait for `release_failed`.
        """
        await self._engine.write(lambda db: slots.mark_included(db, slot_id, fact, outcomes), durable=True)

    async def mark_confirmed(self, slot_id: int) -> None:
        """Slot and claims CONFIRMED."""
        await self._engine.write(lambda db: slots.mark_confirmed(db, slot_id), durable=True)

    async def mark_final(self, slot_id: int) -> None:
        """Slot and claims FINAL."""
        await self._engine.write(lambda db: slots.mark_final(db, slot_id), durable=True)

    async def mark_reorged(self, slot_id: int) -> None:
        """The block is gone: slot OPEN again, claims REOPENED."""
        await self._engine.write(lambda db: slots.mark_reorged(db, slot_id), durable=True)

    async def void_reverted(
        self, slot_id: int, *, note: str, outcome: ClaimState = ClaimState.VOID, is_on_chain: bool = False
    ) -> None:
        """A mined and deep enough revert: release the binding; each claim goes to VOID, HELD or WRITTEN_OFF with `note`.

        `is_on_chain`: the contract has the proofs by another transaction, which owns the tokens in the same step: a process
        that dies here claims nothing twice.
        """
        await self._engine.write(
            lambda db: slots.void_reverted(db, slot_id, note, outcome, is_on_chain=is_on_chain), durable=True
        )

    async def release_failed(
        self, slot_id: int, claim_id: int, *, note: str, outcome: ClaimState, is_on_chain: bool = False
    ) -> None:
        """A claim that failed in a batch which succeeded, deep enough; like `void_reverted`, for that claim."""
        await self._engine.write(
            lambda db: slots.release_failed(db, slot_id, claim_id, note, outcome, is_on_chain=is_on_chain), durable=True
        )

    async def free_slot(self, slot_id: int, *, state: SlotState, note: str, landed: Sequence[LandedClaim] = ()) -> None:
        """Only on positive proof that no attempt can be mined: slot BURNED or FOREIGN, claims back to PLANNED.

        Where the transaction that spent the nonce made claims itself (`landed`), those own their tokens in the same step,
        and claims of those jobs that own no nonce are withdrawn: a process that dies here claims nothing twice.
        """
        await self._engine.write(
            lambda db: slots.free_slot(db, slot_id, state, note, landed=landed, venue_id=self._venue_id), durable=True
        )

    async def absorb(self, landed: LandedClaim) -> None:
        """A claim that landed without this ledger: it owns its tokens, claims of its job without a nonce are withdrawn."""
        await self._engine.write(lambda db: recovery.absorb(db, self._venue_id, landed), durable=True)

    async def generated_by_job(self) -> dict[int, int]:
        """Tokens of every job, by its id."""
        return await self._engine.read(lambda db: recovery.read_generated(db, self._venue_id))

    async def unknown_nonces(self, sender: str, below: int) -> list[range]:
        """Nonces of the sender below `below` that no transaction of this ledger has."""
        return await self._engine.read(lambda db: recovery.read_unknown_nonces(db, self.venue.chain_id, sender, below))

    async def unclaimed_since(self) -> float | None:
        """When the oldest token that no claim covers was made, about (never later); None if every token is covered."""
        return await self._engine.read(lambda db: recovery.read_unclaimed_since(db, self._venue_id))

    async def proof_state(self, job_id: int, proof_hash: bytes) -> ClaimState | None:
        """Where the job's live claim with this proof stands; None if it has none."""
        return await self._engine.read(lambda db: recovery.read_proof_state(db, self._venue_id, job_id, proof_hash))

    async def move_claim(self, claim_id: int, state: ClaimState, note: str = "") -> None:
        """A step without a slot: PLANNED to HELD or VOID or WRITTEN_OFF, HELD to PLANNED, VOID or WRITTEN_OFF."""
        await self._engine.write(lambda db: claims.move_claim(db, claim_id, state, note), durable=True)

    async def record_foreign(
        self,
        job_id: int,
        tokens: int,
        tx_hash: bytes,
        note: str,
        *,
        own_from: int | None = None,
        proof_hash: bytes | None = None,
    ) -> None:
        """A claim seen on chain that this ledger did not make: it owns its range, so that it is never claimed again.

        Tokens from position `own_from` on were surely made here since and are passed over.
        """
        venue_id = self._venue_id
        await self._engine.write(
            lambda db: claims.record_foreign(
                db, venue_id, job_id, tokens, tx_hash, note, own_from=own_from, proof_hash=proof_hash
            ),
            durable=True,
        )

    async def mark_settled(self, claim_id: int) -> None:
        """The contract has credited the claim, for contracts that tell so by no event; twice is once."""
        await self._engine.write(lambda db: claims.mark_settled(db, claim_id), durable=True)

    async def mark_job_settled(self, job_id: int) -> None:
        """The contract has credited everything of the job that is proven; twice is once."""
        await self._engine.write(lambda db: claims.mark_job_settled(db, self._venue_id, job_id), durable=True)

    async def jobs_to_settle(self) -> list[int]:
        """Ids of every job with more proven than settled tokens."""
        return await self._engine.read(lambda db: claims.read_jobs_to_settle(db, self._venue_id))

    # --- chain facts ------------------------------------------------------------------------------------------------

    async def record_payments(
        self, payments: Sequence[Payment], *, cursor_block: int | None = None, cursor_hash: bytes = b""
    ) -> int:
        """Store payments (twice is once); returns how many were new.

        With a cursor: these are all there are up to that block, which is stored in the same transaction.
        """
        return await self._engine.write(
            lambda db: chain_facts.record_payments(db, self._venue_id, payments, cursor_block, cursor_hash),
            durable=True,
        )

    async def forget_payments_from(self, block_number: int) -> None:
        """A reorganisation: drop payments at and above the block and set the cursor below it."""
        await self._engine.write(
            lambda db: chain_facts.forget_payments_from(db, self._venue_id, block_number), durable=True
        )

    async def count_payments_up_to(self, block_number: int | None) -> list[int]:
        """Payments of later blocks are pending from now on (None: of none); returns the jobs for which that changes."""
        if await self.counted_block() == block_number:
            return []
        return await self._engine.write(
            lambda db: chain_facts.count_up_to(db, self._venue_id, block_number), durable=False
        )

    async def counted_block(self) -> int | None:
        """The newest block whose payments count as earned; None if those of every block do."""
        return await self._engine.read(lambda db: chain_facts.read_counted_block(db, self._venue_id))

    async def event_cursor(self) -> tuple[int, bytes] | None:
        """Last block whose events are stored, and its hash."""
        return await self._engine.read(lambda db: chain_facts.read_cursor(db, self._venue_id))

    # --- views ------------------------------------------------------------------------------------------------------

    async def job_views(self, *, limit: int | None = None, job_ids: Collection[int] | None = None) -> list[JobView]:
        """Jobs, most recently changed first; only those of `job_ids` if any are named."""
        return await self._engine.read(lambda db: views.read_job_views(db, self._venue_id, limit, job_ids))

    async def job_view(self, job_id: int) -> JobView | None:
        """One job's row."""
        return await self._engine.read(lambda db: views.read_job_view(db, self._venue_id, job_id))

    async def claim_views(self, job_id: int, *, limit: int = 1000) -> list[ClaimView]:
        """The job's claims, newest first, each with its transaction."""
        return await self._engine.read(lambda db: views.read_claim_views(db, self._venue_id, job_id, limit))

    async def transaction_views(self, *, limit: int | None = None, slot_id: int | None = None) -> list[TransactionView]:
        """Attempts, newest first; all of them without a limit."""
        return await self._engine.read(lambda db: views.read_transaction_views(db, self.venue.chain_id, limit, slot_id))

    async def transaction_count(self) -> int:
        """How many attempts `transaction_views` has without a limit."""
        return await self._engine.read(lambda db: views.count_transactions(db, self.venue.chain_id))

    async def earnings(self) -> EarningsView:
        """The ladder over all jobs of the venue."""
        return await self._engine.read(lambda db: views.read_earnings(db, self._venue_id, self.venue.chain_id))

    async def earnings_series(self, *, since: float, bucket_seconds: int) -> list[EarningsPoint]:
        """Points of the plot from `since` on; buckets in which the app did not run at all are gaps."""
        return await self._engine.read(lambda db: series.read_series(db, self._venue_id, since, bucket_seconds))

    async def journal(self, job_id: int | None = None, *, limit: int = 200) -> list[tuple[float, str]]:
        """What happened (time, sentence), newest first: the job's timeline."""
        return await self._engine.read(lambda db: journal.read_journal(db, self._venue_id, job_id, limit))

    async def note_running(self) -> None:
        """Called once a minute: marks the time as one in which the app ran."""
        await self._engine.write(series.note_running, durable=False)


async def read_views(path: Path, venue: Venue | None = None) -> Ledger:
    """Open an existing ledger for views only, beside a running writer or without one; creates nothing.

    Without a venue it shows the one whose jobs changed last.

    Raises LedgerError if there is none.
    """
    engine, found = await open_view_engine(path, venue)
    return Ledger(found, engine)
