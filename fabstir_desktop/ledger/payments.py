"""What the contract paid, as its events say, and how far they were read."""

from __future__ import annotations

import time
from collections.abc import Sequence

import apsw

from fabstir_desktop.jobs.claims import Payment
from fabstir_desktop.ledger.journal import tell
from fabstir_desktop.ledger.rows import fetch_row, fetch_rows, fetch_value
from fabstir_desktop.ledger.tokens import job_row


def record_payments(
    db: apsw.Connection,
    venue_id: int,
    payments: Sequence[Payment],
    cursor_block: int | None = None,
    cursor_hash: bytes = b"",
) -> int:
    """Store payments (twice is once) and move the cursor, if one is given; returns how many were new."""
    new = 0
    now = time.time()
    for payment in payments:
        added = fetch_value(
            db,
            "INSERT INTO payment (venue, tx_hash, log_index, job_id, block_number, token, host_amount, treasury_amount, "
            "recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
            (
                *(
                    venue_id,
                    payment.tx_hash,
                    payment.log_index,
                    str(payment.job_id),
                    payment.block_number,
                    payment.token,
                ),
                *(str(payment.host_amount), str(payment.treasury_amount), now),
            ),
        )
        if added is not None:
            new += 1
            _tell_payment(db, venue_id, payment, now)
    if cursor_block is not None:
        db.execute(
            "UPDATE venue SET event_block = ?, event_hash = ? WHERE id = ?", (cursor_block, cursor_hash, venue_id)
        )
    return new


def _tell_payment(db: apsw.Connection, venue_id: int, payment: Payment, now: float) -> None:
    job = job_row(db, venue_id, payment.job_id)
    if job is not None:
        db.execute("UPDATE job SET updated_at = ? WHERE id = ?", (now, job))
        tell(db, job, f"The contract paid you for this job in transaction 0x{payment.tx_hash.hex()}.")


def forget_payments_from(db: apsw.Connection, venue_id: int, block_number: int) -> None:
    """Drop payments at and above the block; what lies below is read again from there."""
    db.execute("DELETE FROM payment WHERE venue = ? AND block_number >= ?", (venue_id, block_number))
    db.execute(
        "UPDATE venue SET event_block = CASE WHEN ?2 > 0 THEN ?2 - 1 END, event_hash = CASE WHEN ?2 > 0 THEN x'' END "
        "WHERE id = ?1 AND event_block >= ?2",
        (venue_id, block_number),
    )


def read_cursor(db: apsw.Connection, venue_id: int) -> tuple[int, bytes] | None:
    """Last block whose events are stored, and its hash (empty after a reorganisation: the hash is not known)."""
    row = fetch_row(db, "SELECT event_block, event_hash FROM venue WHERE id = ?", (venue_id,))
    return None if row is None or row[0] is None else (int(row[0]), row[1])


def read_counted_block(db: apsw.Connection, venue_id: int) -> int | None:
    """The newest block whose payments count; None if those of every block do."""
    found = fetch_value(db, "SELECT counted_block FROM venue WHERE id = ?", (venue_id,))
    return None if found is None else int(found)


def count_up_to(db: apsw.Connection, venue_id: int, block_number: int | None) -> list[int]:
    """Payments of later blocks are pending from now on (None: of none); returns the jobs for which that changes."""
    before = read_counted_block(db, venue_id)
    if before == block_number:
        return []
    db.execute("UPDATE venue SET counted_block = ? WHERE id = ?", (block_number, venue_id))
    ends = [end for end in (before, block_number) if end is not None]
    last = None if None in (before, block_number) else max(ends)
    rows = fetch_rows(
        db,
        "SELECT DISTINCT job_id FROM payment WHERE venue = ?1 AND block_number > ?2 AND (?3 IS NULL OR block_number <= ?3)",
        (venue_id, min(ends), last),
    )
    return [int(job_id) for (job_id,) in rows]
