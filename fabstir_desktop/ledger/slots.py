"""The outbox: nonces, the claims they carry, and the signed bytes. Every step is one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from fabstir_desktop.errors import LedgerRefused
from fabstir_desktop.jobs.claims import BATCH, Attempt, ClaimState, MinedFact, ReadSigned, Slot, SlotState
from fabstir_desktop.jobs.landed import LandedClaim
from fabstir_desktop.ledger.carried import check_carried
from fabstir_desktop.ledger.claims import record_foreign, step_claim
from fabstir_desktop.ledger.journal import tell
from fabstir_desktop.ledger.nonces import USES_TWO_NONCES
from fabstir_desktop.ledger.recovery import absorb
from fabstir_desktop.ledger.rows import fetch_row, fetch_rows, fetch_value

_SLOT = (
    "SELECT id, sender, nonce, kind, state, created_at, mined_hash, block_number, block_hash, succeeded, "
    "(SELECT max(a.last_sent_at) FROM attempt a WHERE a.slot = slot.id) FROM slot"
)
_MINED = (SlotState.INCLUDED, SlotState.CONFIRMED)


def bind(
    db: apsw.Connection,
    chain_id: int,
    claim_ids: Sequence[int],
    *,
    sender: str,
    nonce: int,
    attempt: Attempt,
    kind: str,
    reads: ReadSigned | None = None,
) -> Slot:
    """The slot, its first attempt, the bindings, each claim BOUND. Raises LedgerError where the bytes carry something else."""
    db.execute(
        "INSERT INTO slot (chain_id, sender, nonce, kind, state, created_at) VALUES (?, ?, ?, ?, 'open', ?)",
        (chain_id, sender, nonce, kind, time.time()),
    )
    slot_id = db.last_insert_rowid()
    for claim_id in claim_ids:
        db.execute("INSERT INTO binding (claim, slot) VALUES (?, ?)", (claim_id, slot_id))
    check_carried(db, slot_id, attempt.raw, reads)
    _insert_attempt(db, slot_id, attempt)
    for claim_id in claim_ids:
        step_claim(db, claim_id, ClaimState.BOUND, "")
    _tell(db, slot_id, f"Transaction 0x{attempt.tx_hash.hex()} was signed with nonce {nonce} and stored.")
    return read_slot(db, slot_id)


def add_attempt(db: apsw.Connection, slot_id: int, attempt: Attempt, reads: ReadSigned | None = None) -> Slot:
    """One more attempt of an open slot; the same bytes again change nothing. Raises like `bind`."""
    known = fetch_value(db, "SELECT slot FROM attempt WHERE tx_hash = ?", (attempt.tx_hash,))
    if known != slot_id:
        check_carried(db, slot_id, attempt.raw, reads)
        _insert_attempt(db, slot_id, attempt)
        _tell(db, slot_id, f"Transaction 0x{attempt.tx_hash.hex()} replaces the last one with a higher fee.")
    return read_slot(db, slot_id)


def _insert_attempt(db: apsw.Connection, slot_id: int, attempt: Attempt) -> None:
    db.execute(
        "INSERT INTO attempt (tx_hash, slot, number, raw, max_fee_per_gas_wei, max_priority_fee_per_gas_wei, gas_limit, "
        "created_at) VALUES (?1, ?2, (SELECT coalesce(max(number), 0) + 1 FROM attempt WHERE slot = ?2), ?3, ?4, ?5, ?6, ?7)",
        (
            *(attempt.tx_hash, slot_id, attempt.raw, str(attempt.max_fee_per_gas_wei)),
            *(str(attempt.max_priority_fee_per_gas_wei), attempt.gas_limit, time.time()),
        ),
    )


def note_send(db: apsw.Connection, tx_hash: bytes, error: str | None) -> None:
    """The bytes were handed to an RPC, and this was its answer."""
    db.execute(
        "UPDATE attempt SET sends = sends + 1, last_sent_at = ?, last_error = ? WHERE tx_hash = ?",
        (time.time(), error, tx_hash),
    )


def read_slot(db: apsw.Connection, slot_id: int) -> Slot:
    """One slot. Raises LedgerRefused if there is none."""
    rows = fetch_rows(db, f"{_SLOT} WHERE id = ?", (slot_id,))
    if not rows:
        raise LedgerRefused(f"there is no nonce row {slot_id}")
    return _slot(db, rows[0])


def read_slots(db: apsw.Connection, chain_id: int, sender: str, states: Sequence[SlotState]) -> list[Slot]:
    """Slots of a sender in nonce order."""
    wanted = f" AND state IN ({','.join('?' * len(states))})" if states else ""
    rows = fetch_rows(
        db,
        f"{_SLOT} WHERE chain_id = ? AND sender = ?{wanted} ORDER BY nonce",
        (chain_id, sender, *(state.value for state in states)),
    )
    return [_slot(db, row) for row in rows]


def read_slot_of_claim(db: apsw.Connection, claim_id: int) -> Slot | None:
    """The slot a claim is bound to now."""
    slot_id = fetch_value(db, "SELECT slot FROM binding WHERE claim = ? AND released IS NULL", (claim_id,))
    return None if slot_id is None else read_slot(db, slot_id)


def read_next_nonce(db: apsw.Connection, chain_id: int, sender: str) -> int | None:
    """The first nonce of the sender that nothing in the ledger uses or will use."""
    highest = fetch_value(  # the last row alone decides: the one before it uses no nonce above the last one's
        db,
        f"SELECT s.nonce + CASE WHEN {USES_TWO_NONCES} THEN 1 ELSE 0 END FROM slot s WHERE s.chain_id = ? AND s.sender = ? "
        "ORDER BY s.nonce DESC LIMIT 1",
        (chain_id, sender),
    )
    return None if highest is None else int(highest) + 1


def read_slots_with_failures(db: apsw.Connection, chain_id: int, sender: str) -> list[Slot]:
    """Slots of batches that succeeded while some of their claims failed and wait for what becomes of them."""
    rows = fetch_rows(
        db,
        f"{_SLOT} WHERE chain_id = ? AND sender = ? AND id IN "
        "(SELECT slot FROM binding WHERE succeeded = 0 AND released IS NULL) ORDER BY nonce",
        (chain_id, sender),
    )
    return [_slot(db, row) for row in rows]


def read_reverted(db: apsw.Connection, chain_id: int, sender: str, kind: str) -> list[Slot]:
    """Slots of a kind whose transaction was reverted."""
    rows = fetch_rows(
        db,
        f"{_SLOT} WHERE chain_id = ? AND sender = ? AND state IN ('included', 'confirmed', 'final') AND succeeded = 0 "
        "AND kind = ? ORDER BY nonce",
        (chain_id, sender, kind),
    )
    return [_slot(db, row) for row in rows]


def read_senders(db: apsw.Connection, chain_id: int, states: Sequence[SlotState]) -> list[str]:
    """Every address that signed something here."""
    wanted = f" AND state IN ({','.join('?' * len(states))})" if states else ""
    rows = fetch_rows(
        db,
        f"SELECT DISTINCT sender FROM slot WHERE chain_id = ?{wanted} ORDER BY sender",
        (chain_id, *(state.value for state in states)),
    )
    return [sender for (sender,) in rows]


def _slot(db: apsw.Connection, row: Sequence[Any]) -> Slot:
    slot_id, sender, nonce, kind, state, created_at, mined_hash, block_number, block_hash, succeeded, last_sent_at = row
    attempts = fetch_rows(
        db,
        "SELECT tx_hash, raw, max_fee_per_gas_wei, max_priority_fee_per_gas_wei, gas_limit FROM attempt WHERE slot = ? "
        "ORDER BY number",
        (slot_id,),
    )
    bindings = fetch_rows(
        db, "SELECT claim, released, succeeded FROM binding WHERE slot = ? ORDER BY claim", (slot_id,)
    )
    return Slot(
        slot_id=slot_id,
        sender=sender,
        nonce=nonce,
        kind=kind,
        state=SlotState(state),
        attempts=tuple(Attempt(tx, raw, int(fee), int(tip), gas) for tx, raw, fee, tip, gas in attempts),
        claim_ids=tuple(claim for claim, _released, _succeeded in bindings),
        created_at=created_at,
        last_sent_at=last_sent_at,
        mined_hash=mined_hash,
        block_number=block_number,
        block_hash=block_hash,
        succeeded=None if succeeded is None else bool(succeeded),
        carried_ids=tuple(claim for claim, released, good in bindings if released is None and good != 0),
        failed_ids=tuple(claim for claim, released, good in bindings if released is None and good == 0),
    )


# --- steps ----------------------------------------------------------------------------------------------------------


def mark_included(
    db: apsw.Connection, slot_id: int, fact: MinedFact, outcomes: Mapping[int, bool] | None = None
) -> None:
    """Slot INCLUDED, its claims too if it succeeded. The same fact again changes nothing; another one is a reorg between.

    `outcomes` says for each claim of a batch whether it succeeded; it must name them all.
    """
    slot = read_slot(db, slot_id)
    if slot.state in _MINED or slot.state is SlotState.FINAL:
        if (slot.mined_hash, slot.block_hash, slot.succeeded) == (fact.tx_hash, fact.block_hash, fact.succeeded):
            return
        mark_reorged(db, slot_id)
    if slot.kind == BATCH and fact.succeeded and set(outcomes or ()) != set(slot.claim_ids):
        raise LedgerRefused(f"the outcome of each claim of nonce {slot.nonce} must be known, not of the batch alone")
    db.execute(
        "UPDATE slot SET state = 'included', mined_hash = ?, block_number = ?, block_hash = ?, succeeded = ?, gas_used = ?, "
        "fee_wei = ? WHERE id = ?",
        (
            fact.tx_hash,
            fact.block_number,
            fact.block_hash,
            int(fact.succeeded),
            fact.gas_used,
            str(fact.fee_wei),
            slot_id,
        ),
    )
    judged = (outcomes or {}) if fact.succeeded else {}
    for claim_id, good in judged.items():
        db.execute("UPDATE binding SET succeeded = ? WHERE claim = ? AND slot = ?", (int(good), claim_id, slot_id))
    for claim_id, state in _carried(db, slot_id):
        if fact.succeeded and judged.get(claim_id, True):
            step_claim(db, claim_id, ClaimState.INCLUDED)
        elif state is ClaimState.REOPENED:
            step_claim(db, claim_id, ClaimState.BOUND)
    if fact.succeeded:
        _take_back(db, slot_id, fact.tx_hash)
    verb = "is in" if fact.succeeded else "was reverted in"
    _tell(db, slot_id, f"Transaction 0x{fact.tx_hash.hex()} {verb} block {fact.block_number}.")


def mark_confirmed(db: apsw.Connection, slot_id: int) -> None:
    """Slot CONFIRMED, and its claims if it succeeded. Nothing happens if it was."""
    slot = read_slot(db, slot_id)
    if slot.state in (SlotState.CONFIRMED, SlotState.FINAL):
        return
    _step_slot(db, slot_id, SlotState.CONFIRMED)
    if slot.succeeded:
        _step_claims(db, slot_id, ClaimState.CONFIRMED)
        _tell(db, slot_id, f"Transaction 0x{(slot.mined_hash or b'').hex()} is confirmed.")


def mark_final(db: apsw.Connection, slot_id: int) -> None:
    """Slot FINAL, and its claims if it succeeded. Nothing happens if it was."""
    slot = read_slot(db, slot_id)
    if slot.state is SlotState.FINAL:
        return
    mark_confirmed(db, slot_id)
    _step_slot(db, slot_id, SlotState.FINAL)
    if slot.succeeded:
        _step_claims(db, slot_id, ClaimState.FINAL)


def mark_reorged(db: apsw.Connection, slot_id: int) -> None:
    """The block is gone: slot OPEN again, claims that were mined REOPENED. Nothing happens to an open slot."""
    slot = read_slot(db, slot_id)
    if slot.state is SlotState.OPEN:
        return
    db.execute(
        "UPDATE slot SET state = 'open', mined_hash = NULL, block_number = NULL, block_hash = NULL, succeeded = NULL, "
        "gas_used = NULL, fee_wei = NULL WHERE id = ?",
        (slot_id,),
    )
    db.execute("UPDATE binding SET succeeded = NULL WHERE slot = ? AND succeeded IS NOT NULL", (slot_id,))
    for claim_id, state in _carried(db, slot_id):
        if state in (ClaimState.INCLUDED, ClaimState.CONFIRMED):
            step_claim(db, claim_id, ClaimState.REOPENED)
    _forget_payments(db, slot_id)
    _tell(db, slot_id, f"Block {slot.block_number} is no longer part of the chain; the same transaction is sent again.")


def _forget_payments(db: apsw.Connection, slot_id: int) -> None:
    """What its receipt said was paid is undone with it. The block it is mined in next says it anew; and lest that receipt is
    not seen, or nothing was reorganised at all, events are read again from the last final block on."""
    paid = "tx_hash IN (SELECT tx_hash FROM attempt WHERE slot = ?)"
    db.execute(
        f"UPDATE venue SET event_hash = x'' WHERE event_block IS NOT NULL AND id IN (SELECT venue FROM payment WHERE {paid})",
        (slot_id,),
    )
    db.execute(f"DELETE FROM payment WHERE {paid}", (slot_id,))


def void_reverted(
    db: apsw.Connection, slot_id: int, note: str, outcome: ClaimState, *, is_on_chain: bool = False
) -> None:
    """A revert, deep enough: release the bindings, each claim goes to `outcome`.

    `is_on_chain`: the contract has the proofs by another transaction. Then the tokens are owned by that in the same step.
    """
    slot = read_slot(db, slot_id)
    if slot.state is SlotState.INCLUDED:
        mark_confirmed(db, slot_id)
    for claim_id, _state in _carried(db, slot_id):
        _release(db, claim_id, slot_id, note or "reverted")
        step_claim(db, claim_id, outcome, note)
        if is_on_chain:
            _own_elsewhere(db, claim_id)
    _tell(db, slot_id, f"The checkpoint was refused by the contract: {note}")


def release_failed(
    db: apsw.Connection, slot_id: int, claim_id: int, note: str, outcome: ClaimState, *, is_on_chain: bool = False
) -> None:
    """A claim of a batch that failed while the others succeeded: release it, and it goes to `outcome`; see `void_reverted`."""
    if claim_id not in read_slot(db, slot_id).failed_ids:
        return
    _release(db, claim_id, slot_id, note or "failed")
    step_claim(db, claim_id, outcome, note)
    if is_on_chain:
        _own_elsewhere(db, claim_id)
    job = fetch_value(db, "SELECT job FROM claim WHERE id = ?", (claim_id,))
    tell(db, job, f"The checkpoint was refused by the contract: {note}")


def _own_elsewhere(db: apsw.Connection, claim_id: int) -> None:
    """The tokens of a claim that is void belong to the same claim, made by a transaction that is not known here."""
    venue_id, job_id, count, proof_hash = fetch_row(
        db,
        "SELECT j.venue, j.job_id, c.range_end - c.range_start, c.proof_hash FROM claim c JOIN job j ON j.id = c.job "
        "WHERE c.id = ?",
        (claim_id,),
    )
    record_foreign(db, venue_id, int(job_id), count, proof_hash, "found on chain", proof_hash=proof_hash)


def free_slot(
    db: apsw.Connection,
    slot_id: int,
    state: SlotState,
    note: str,
    *,
    landed: Sequence[LandedClaim] = (),
    venue_id: int = 0,
) -> None:
    """The nonce is provably spent by another: its claims are planned again, unless the spender itself made them (`landed`,
    claims of jobs of the venue)."""
    carried = _carried(db, slot_id)
    for claim_id, claim_state in carried:
        if claim_state is ClaimState.REOPENED:
            step_claim(db, claim_id, ClaimState.BOUND)
    _step_slot(db, slot_id, state)
    for claim_id, _state in carried:
        _release(db, claim_id, slot_id, note or state.value)
        step_claim(db, claim_id, ClaimState.PLANNED, "")
    for claim in landed:
        absorb(db, venue_id, claim)
    ending = "" if landed else "; the checkpoint gets a new one"
    _tell(db, slot_id, f"The nonce was spent by another transaction{ending}. {note}".strip())


def _take_back(db: apsw.Connection, slot_id: int, tx_hash: bytes) -> None:
    """Claims released by a revert that a reorganisation turned into a success: their tokens are claimed after all, also those
    that were written off.

    The claim itself is void from then on; its tokens go to a claim in the manner of a foreign one, if nothing covers them yet.
    """
    rows = fetch_rows(
        db,
        "SELECT c.id, c.state, j.venue, j.job_id, c.range_end - c.range_start, j.next_start <= c.range_start FROM binding b "
        "JOIN claim c ON c.id = b.claim JOIN job j ON j.id = c.job WHERE b.slot = ? AND b.released IS NOT NULL "
        "AND b.succeeded IS NOT 0",
        (slot_id,),
    )
    for claim_id, state, venue_id, job_id, count, is_uncovered in rows:
        if state in (ClaimState.PLANNED, ClaimState.HELD, ClaimState.WRITTEN_OFF):
            step_claim(db, claim_id, ClaimState.VOID, "its reverted transaction succeeded after a reorganisation")
        elif state != ClaimState.VOID or not is_uncovered:
            continue
        record_foreign(
            db, venue_id, int(job_id), count, tx_hash, "a reverted transaction succeeded after a reorganisation"
        )


def _release(db: apsw.Connection, claim_id: int, slot_id: int, why: str) -> None:
    db.execute("UPDATE binding SET released = ? WHERE claim = ? AND slot = ?", (why, claim_id, slot_id))


def _carried(db: apsw.Connection, slot_id: int) -> list[tuple[int, ClaimState]]:
    """The claims that the slot holds now."""
    rows = fetch_rows(
        db,
        "SELECT c.id, c.state FROM binding b JOIN claim c ON c.id = b.claim WHERE b.slot = ? AND b.released IS NULL",
        (slot_id,),
    )
    return [(claim_id, ClaimState(state)) for claim_id, state in rows]


def _step_slot(db: apsw.Connection, slot_id: int, state: SlotState) -> None:
    db.execute("UPDATE slot SET state = ? WHERE id = ?", (state.value, slot_id))


def _step_claims(db: apsw.Connection, slot_id: int, state: ClaimState) -> None:
    """Every claim of a slot that succeeded goes along, but those of a batch that failed on their own."""
    for claim_id in read_slot(db, slot_id).carried_ids:
        step_claim(db, claim_id, state)


def _tell(db: apsw.Connection, slot_id: int, text: str) -> None:
    """The sentence for each job that the slot carries or carried."""
    rows = fetch_rows(
        db, "SELECT DISTINCT c.job FROM binding b JOIN claim c ON c.id = b.claim WHERE b.slot = ?", (slot_id,)
    )
    for (job,) in rows or [(None,)]:
        tell(db, job, text)
