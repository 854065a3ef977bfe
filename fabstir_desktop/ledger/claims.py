"""Claims: ranges of a job's tokens. The triggers hold what must be true; here are the reads and the steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from fabstir_desktop.errors import LedgerRefused
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import PROVEN_STATES, Claim, ClaimReason, ClaimState
from fabstir_desktop.ledger.journal import count_of, tell
from fabstir_desktop.ledger.rows import fetch_row, fetch_rows, fetch_value
from fabstir_desktop.ledger.tokens import ensure_job, job_row

_CLAIM = (
    "SELECT c.id, j.job_id, c.sequence, c.range_start, c.range_end, c.host, c.reason, c.state, c.proof_hash, c.proof, "
    "c.calldata, c.note, c.created_at FROM claim c JOIN job j ON j.id = c.job"
)
_ACCOUNT = (
    "SELECT j.job_id, j.session_id, j.generated, j.claimed, j.proven, j.settled, j.written_off, j.reserved, j.open_claims, "
    "j.next_start, j.session_open, j.updated_at, (SELECT c.range_start FROM claim c WHERE c.job = j.id "
    "AND c.state <> 'void' AND c.range_start >= j.next_start ORDER BY c.range_start LIMIT 1) FROM job j"
)
_REASONS = {
    ClaimReason.THRESHOLD: "enough tokens gathered",
    ClaimReason.SESSION_END: "the session ended",
    ClaimReason.FORCED: "you asked for it",
    ClaimReason.DEADLINE: "the deadline is near",
    ClaimReason.EXPOSURE: "too many tokens were unproven",
    ClaimReason.RECOVERY: "found unclaimed at start",
}


@dataclass(frozen=True, slots=True)
class NewClaim:
    """What a claim is made of; see `Ledger.plan_claim`."""

    job_id: int
    start: int
    end: int
    reason: ClaimReason
    host: str
    record: bytes
    proof_hash: bytes
    proof: bytes
    calldata: bytes


def read_account(db: apsw.Connection, venue_id: int, job_id: int) -> JobAccount | None:
    """The account of one job."""
    rows = fetch_rows(db, f"{_ACCOUNT} WHERE j.venue = ? AND j.job_id = ?", (venue_id, str(job_id)))
    return _account(rows[0]) if rows else None


def read_unclaimed(db: apsw.Connection, venue_id: int) -> list[JobAccount]:
    """Every job with tokens that no sent claim covers."""
    rows = fetch_rows(db, f"{_ACCOUNT} WHERE j.venue = ? AND j.generated > j.claimed + j.written_off", (venue_id,))
    return [_account(row) for row in rows]


def _account(row: Sequence[Any]) -> JobAccount:
    job_id, session_id, generated, claimed, proven, settled, written_off, reserved, open_claims, *rest = row
    next_start, session_open, updated_at, next_end = rest
    return JobAccount(
        job_id=int(job_id),
        session_id=session_id,
        generated=generated,
        claimed=claimed,
        proven=proven,
        settled=settled,
        written_off=written_off,
        reserved=reserved,
        open_claims=open_claims,
        next_start=next_start,
        session_open=bool(session_open),
        updated_at=updated_at,
        next_end=next_end,
    )


def plan_claim(db: apsw.Connection, venue_id: int, new: NewClaim) -> Claim:
    """Fix a claim; the same job and range again gives the claim that is there."""
    row = job_row(db, venue_id, new.job_id)
    known = fetch_value(
        db,
        "SELECT id FROM claim WHERE job = ? AND range_start = ? AND range_end = ? AND state <> 'void' AND kind = 'claim'",
        (row, new.start, new.end),
    )
    if known is not None:
        return read_claim(db, known)
    if row is None:
        raise LedgerRefused(f"job {new.job_id} has no tokens")
    db.execute(
        "INSERT INTO claim (job, sequence, kind, range_start, range_end, host, reason, record, proof_hash, proof, calldata, "
        "state, created_at) VALUES (?, (SELECT coalesce(max(sequence), 0) + 1 FROM claim WHERE job = ?), 'claim', "
        "?, ?, ?, ?, ?, ?, ?, ?, 'planned', ?)",
        (
            *(row, row, new.start, new.end, new.host, new.reason.value),
            *(new.record, new.proof_hash, new.proof, new.calldata, time.time()),
        ),
    )
    claim_id = db.last_insert_rowid()
    why = _REASONS[new.reason]
    tell(db, row, f"Checkpoint over tokens {new.start} to {new.end} ({count_of(new.end - new.start, 'token')}): {why}.")
    return read_claim(db, claim_id)


def read_claim(db: apsw.Connection, claim_id: int) -> Claim:
    """One claim. Raises LedgerRefused if there is none."""
    rows = fetch_rows(db, f"{_CLAIM} WHERE c.id = ?", (claim_id,))
    if not rows:
        raise LedgerRefused(f"there is no claim {claim_id}")
    return _claim(rows[0])


def read_claims(
    db: apsw.Connection, venue_id: int, job_id: int | None, states: Sequence[ClaimState], limit: int
) -> list[Claim]:
    """Claims, oldest first."""
    conditions, values = ["j.venue = ?"], [venue_id]  # type: list[str], list[object]
    if job_id is not None:
        conditions.append("j.job_id = ?")
        values.append(str(job_id))
    if states:
        conditions.append(f"c.state IN ({','.join('?' * len(states))})")
        values.extend(state.value for state in states)
    rows = fetch_rows(db, f"{_CLAIM} WHERE {' AND '.join(conditions)} ORDER BY c.id LIMIT ?", (*values, limit))
    return [_claim(row) for row in rows]


def _claim(row: Sequence[Any]) -> Claim:
    claim_id, job_id, sequence, start, end, host, reason, state, proof_hash, proof, calldata, note, created_at = row
    return Claim(
        claim_id=claim_id,
        job_id=int(job_id),
        sequence=sequence,
        start=start,
        end=end,
        host=host,
        reason=ClaimReason(reason),
        state=ClaimState(state),
        proof_hash=proof_hash or b"",
        proof=proof or b"",
        calldata=calldata or b"",
        note=note,
        created_at=created_at,
    )


def read_record(db: apsw.Connection, proof_hash: bytes) -> bytes | None:
    """The canonical proof record stored with a claim."""
    record: bytes | None = fetch_value(
        db, "SELECT record FROM claim WHERE proof_hash = ? ORDER BY id DESC LIMIT 1", (proof_hash,)
    )
    return record


def read_last_proof_hash(db: apsw.Connection, venue_id: int, job_id: int, before: int | None) -> bytes:
    """Proof hash of the job's last claim that is not void (and begins below token `before`); 32 zero bytes if none."""
    found = fetch_value(
        db,
        "SELECT c.proof_hash FROM claim c JOIN job j ON j.id = c.job WHERE j.venue = ?1 AND j.job_id = ?2 "
        "AND c.state <> 'void' AND c.proof_hash IS NOT NULL AND (?3 IS NULL OR c.range_start < ?3) "
        "ORDER BY c.range_start DESC LIMIT 1",
        (venue_id, str(job_id), before),
    )
    return found or bytes(32)


def move_claim(db: apsw.Connection, claim_id: int, state: ClaimState, note: str) -> None:
    """A step without a slot; the same state again only changes the note."""
    before = read_claim(db, claim_id)
    if before.state not in (ClaimState.PLANNED, ClaimState.HELD, state):
        raise LedgerRefused(f"not a step of a claim without a nonce: {before.state} to {state}")
    step_claim(db, claim_id, state, note)
    if before.state is not state:
        job = fetch_value(db, "SELECT job FROM claim WHERE id = ?", (claim_id,))
        words = {
            ClaimState.HELD: "waits",
            ClaimState.VOID: "was withdrawn; its tokens are free again",
            ClaimState.WRITTEN_OFF: "can never be paid",
        }.get(state, "goes on")
        tell(
            db, job, f"The checkpoint over tokens {before.start} to {before.end} {words}{': ' + note if note else '.'}"
        )


def step_claim(db: apsw.Connection, claim_id: int, state: ClaimState, note: str | None = None) -> None:
    """Set state (and note, unless None). The triggers refuse what is not a step."""
    now = time.time() if state is ClaimState.CONFIRMED else None
    db.execute(
        "UPDATE claim SET state = ?1, note = coalesce(?2, note), proven_at = CASE WHEN ?1 = 'final' THEN proven_at ELSE ?3 END "
        "WHERE id = ?4",
        (state.value, note, now, claim_id),
    )


def read_reverts(db: apsw.Connection, venue_id: int, job_id: int, start: int) -> tuple[int, float]:
    """How many transactions of claims that begin at the token were reverted, and when the last of them was made."""
    count, last = fetch_row(
        db,
        "SELECT count(*), coalesce(max(s.created_at), 0) FROM claim c JOIN job j ON j.id = c.job "
        "JOIN binding b ON b.claim = c.id JOIN slot s ON s.id = b.slot "
        "WHERE j.venue = ? AND j.job_id = ? AND c.range_start = ? AND (s.succeeded = 0 OR b.succeeded = 0)",
        (venue_id, str(job_id), start),
    )
    return int(count), float(last)


def mark_settled(db: apsw.Connection, claim_id: int) -> None:
    """The contract has credited the claim (for contracts without payment events)."""
    read_claim(db, claim_id)
    db.execute("UPDATE claim SET paid = 1 WHERE id = ? AND paid = 0", (claim_id,))


def mark_job_settled(db: apsw.Connection, venue_id: int, job_id: int) -> None:
    """The contract has credited every claim of the job that is proven, however many there are."""
    states = ",".join(f"'{state}'" for state in sorted(PROVEN_STATES))
    db.execute(
        f"UPDATE claim SET paid = 1 WHERE paid = 0 AND state IN ({states}) "
        "AND job = (SELECT id FROM job WHERE venue = ? AND job_id = ?)",
        (venue_id, str(job_id)),
    )


def read_jobs_to_settle(db: apsw.Connection, venue_id: int) -> list[int]:
    """Jobs with more proven than settled tokens."""
    rows = fetch_rows(db, "SELECT job_id FROM job WHERE venue = ? AND proven > settled ORDER BY id", (venue_id,))
    return [int(job_id) for (job_id,) in rows]


def record_foreign(
    db: apsw.Connection,
    venue_id: int,
    job_id: int,
    tokens: int,
    tx_hash: bytes,
    note: str,
    *,
    own_from: int | None = None,
    proof_hash: bytes | None = None,
) -> None:
    """A claim of the chain that this ledger did not make owns the lowest uncovered tokens; twice is once.

    Tokens from position `own_from` on were surely made here since, and are in no claim made elsewhere: they are passed over.
    Where the ledger knows too few tokens, the missing ones are counted as known from the chain alone, so that tokens still
    to come lie behind them and are claimed. `proof_hash` is that of the claim, where it is known.
    """
    row = ensure_job(db, venue_id, job_id)
    known = (
        "SELECT 1 FROM claim WHERE job = ?1 AND (foreign_hash = ?2 OR (proof_hash = ?3 AND state <> 'void')) LIMIT 1"
    )
    if fetch_value(db, known, (row, tx_hash, proof_hash)) is not None:
        return
    remaining = tokens
    while remaining > 0:
        remaining -= _take_gap(db, row, remaining, Foreign(tx_hash, note, own_from, proof_hash))
        proof_hash = None  # a proof has one row; where the claim is in pieces, the first one names it
    tell(db, row, f"A checkpoint over {count_of(tokens, 'token')} was found on chain that is not from here: {note}")


@dataclass(frozen=True, slots=True)
class Foreign:
    """A claim made elsewhere; see `record_foreign`."""

    tx_hash: bytes
    note: str
    own_from: int | None = None
    proof_hash: bytes | None = None


def _take_gap(db: apsw.Connection, row: int, tokens: int, foreign: Foreign) -> int:
    """Cover the first gap, up to `tokens`; returns how many it took."""
    start, generated, next_live = fetch_row(
        db,
        "SELECT j.next_start, j.generated, (SELECT min(c.range_start) FROM claim c WHERE c.job = j.id "
        "AND c.state <> 'void' AND c.range_start >= j.next_start) FROM job j WHERE j.id = ?",
        (row,),
    )
    end = start + tokens if next_live is None else min(start + tokens, next_live)
    if foreign.own_from is not None and end > foreign.own_from:
        if start < min(foreign.own_from, generated):
            end = min(foreign.own_from, generated)
        else:  # what is left lies behind all that was counted here
            start, end = generated, generated + tokens
    now = time.time()
    if end > generated:
        db.execute(
            "INSERT INTO token (job, start, count, ticket, ids) VALUES (?, ?, ?, NULL, x'')",
            (row, generated, end - generated),
        )
    db.execute(
        "INSERT INTO claim (job, sequence, kind, range_start, range_end, host, reason, foreign_hash, state, paid, note, "
        "created_at, proven_at, proof_hash) VALUES (?1, (SELECT coalesce(max(sequence), 0) + 1 FROM claim WHERE job = ?1), "
        "'foreign', ?2, ?3, '', ?4, ?5, 'final', 1, ?6, ?7, ?7, ?8)",
        (row, start, end, ClaimReason.RECOVERY.value, foreign.tx_hash, foreign.note, now, foreign.proof_hash),
    )
    return int(end - start)
