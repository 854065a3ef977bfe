"""What recovery asks of the ledger, and how it takes in claims that landed without it."""

from __future__ import annotations

import apsw

from fabstir_desktop.jobs.claims import WAITING_STATES, ClaimState
from fabstir_desktop.jobs.landed import LandedClaim, missing_nonces
from fabstir_desktop.ledger.claims import move_claim, read_claims, record_foreign
from fabstir_desktop.ledger.nonces import USES_TWO_NONCES
from fabstir_desktop.ledger.rows import fetch_rows, fetch_value
from fabstir_desktop.ledger.tokens import job_row


def absorb(db: apsw.Connection, venue_id: int, landed: LandedClaim) -> None:
    """The claim owns its tokens from now on; claims of its job that own no nonce are withdrawn first, for they may be over
    the same tokens. Twice is once."""
    row = job_row(db, venue_id, landed.job_id)
    known = "SELECT 1 FROM claim WHERE job = ? AND foreign_hash = ? LIMIT 1"
    if fetch_value(db, known, (row, landed.tx_hash)) is not None:
        return
    for claim in read_claims(db, venue_id, landed.job_id, WAITING_STATES, 1000):
        move_claim(db, claim.claim_id, ClaimState.VOID, landed.note)
    record_foreign(
        db,
        venue_id,
        landed.job_id,
        landed.tokens,
        landed.tx_hash,
        landed.note,
        own_from=landed.own_from,
        proof_hash=landed.proof_hash,
    )


def read_generated(db: apsw.Connection, venue_id: int) -> dict[int, int]:
    """Tokens of every job, by its id."""
    rows = fetch_rows(db, "SELECT job_id, generated FROM job WHERE venue = ?", (venue_id,))
    return {int(job_id): generated for job_id, generated in rows}


def read_unknown_nonces(db: apsw.Connection, chain_id: int, sender: str, below: int) -> list[range]:
    """Nonces of the sender that no transaction of this ledger has or uses."""
    rows = fetch_rows(
        db,
        "SELECT s.nonce FROM slot s WHERE s.chain_id = ?1 AND s.sender = ?2 AND s.nonce < ?3 UNION "
        f"SELECT s.nonce + 1 FROM slot s WHERE s.chain_id = ?1 AND s.sender = ?2 AND s.nonce + 1 < ?3 AND {USES_TWO_NONCES} "
        "ORDER BY 1",
        (chain_id, sender, below),
    )
    return missing_nonces([nonce for (nonce,) in rows], below)


def read_unclaimed_since(db: apsw.Connection, venue_id: int) -> float | None:
    """When the oldest uncovered token was made: no later than that of the first answer behind the job's covered tokens."""
    found: float | None = fetch_value(
        db,
        "SELECT min(coalesce((SELECT min(t.opened_at) FROM token k JOIN ticket t ON t.id = k.ticket WHERE k.job = j.id "
        "AND k.start >= coalesce((SELECT max(p.start) FROM token p WHERE p.job = j.id AND p.start <= j.next_start), 0)), "
        "j.created_at)) FROM job j WHERE j.venue = ? AND j.generated > j.claimed + j.written_off",
        (venue_id,),
    )
    return found


def read_proof_state(db: apsw.Connection, venue_id: int, job_id: int, proof_hash: bytes) -> ClaimState | None:
    """Where the job's live claim with this proof stands."""
    state = fetch_value(
        db,
        "SELECT c.state FROM claim c JOIN job j ON j.id = c.job WHERE j.venue = ? AND j.job_id = ? AND c.proof_hash = ? "
        "AND c.state <> 'void' AND c.kind = 'claim'",
        (venue_id, str(job_id), proof_hash),
    )
    return None if state is None else ClaimState(state)
