"""What happened, in sentences for the host: written in the same transaction as what they tell."""

from __future__ import annotations

import time

import apsw

from fabstir_desktop.ledger.rows import fetch_rows


def tell(db: apsw.Connection, job: int | None, text: str) -> None:
    """Add a sentence; `job` is the ledger's row."""
    db.execute("INSERT INTO journal (at, job, text) VALUES (?, ?, ?)", (time.time(), job, text))


def read_journal(db: apsw.Connection, venue_id: int, job_id: int | None, limit: int) -> list[tuple[float, str]]:
    """Newest first; of one job, or of the venue and what concerns no job."""
    if job_id is None:
        rows = fetch_rows(
            db,
            "SELECT n.at, n.text FROM journal n LEFT JOIN job j ON j.id = n.job "
            "WHERE n.job IS NULL OR j.venue = ? ORDER BY n.id DESC LIMIT ?",
            (venue_id, limit),
        )
    else:
        rows = fetch_rows(
            db,
            "SELECT n.at, n.text FROM journal n WHERE n.job = (SELECT id FROM job WHERE venue = ? AND job_id = ?) "
            "ORDER BY n.id DESC LIMIT ?",
            (venue_id, str(job_id), limit),
        )
    return [(float(at), str(text)) for at, text in rows]


def count_of(number: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
