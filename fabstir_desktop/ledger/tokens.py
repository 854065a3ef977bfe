"""Jobs, answers and their tokens. Functions run on the writer's or the reader's thread, inside a transaction."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence

import apsw

from fabstir_desktop.errors import LedgerRefused
from fabstir_desktop.jobs.generation import FinishReason
from fabstir_desktop.ledger.journal import tell
from fabstir_desktop.ledger.records import TranscriptSegment
from fabstir_desktop.ledger.rows import fetch_row, fetch_rows, fetch_value

_FIND_END = "SELECT t.job, j.generated FROM ticket t JOIN job j ON j.id = t.job WHERE t.id = ?"
_INSERT_TOKENS = "INSERT INTO token (job, start, count, ticket, ids) VALUES (?, ?, ?, ?, ?)"
# Two plain statements take a fifth of the time of one INSERT ... SELECT ... RETURNING, which needs two tables in passing.


def job_row(db: apsw.Connection, venue_id: int, job_id: int) -> int | None:
    """The ledger's row of a job."""
    row: int | None = fetch_value(db, "SELECT id FROM job WHERE venue = ? AND job_id = ?", (venue_id, str(job_id)))
    return row


def ensure_job(db: apsw.Connection, venue_id: int, job_id: int) -> int:
    """The ledger's row of a job, made if it is new."""
    row = job_row(db, venue_id, job_id)
    if row is None:
        now = time.time()
        db.execute(
            "INSERT INTO job (venue, job_id, session_id, session_open, created_at, updated_at) VALUES (?, ?, '', 0, ?, ?)",
            (venue_id, str(job_id), now, now),
        )
        row = db.last_insert_rowid()
    return row


def open_ticket(db: apsw.Connection, venue_id: int, job_id: int, session_id: str, client: bytes | None = None) -> int:
    """Begin an answer; the job's session is open from now on. The first `client` of a job stays its client."""
    row, now = ensure_job(db, venue_id, job_id), time.time()
    before = fetch_value(db, "SELECT session_id, session_open FROM job WHERE id = ?", (row,))
    if before != (session_id, 1):
        db.execute(
            "UPDATE job SET session_id = ?, session_open = 1, updated_at = ? WHERE id = ?", (session_id, now, row)
        )
        tell(db, row, f"Session {session_id} began.")
    if client is not None:
        db.execute("UPDATE job SET client = ? WHERE id = ? AND client IS NULL", (client, row))
    db.execute("INSERT INTO ticket (job, session_id, opened_at) VALUES (?, ?, ?)", (row, session_id, now))
    return db.last_insert_rowid()


def is_anothers(db: apsw.Connection, venue_id: int, job_id: int, session_id: str, client: bytes) -> bool:
    """Whether the job was first used by another client, and never in a session of this name."""
    row = job_row(db, venue_id, job_id)
    first = None if row is None else fetch_value(db, "SELECT client FROM job WHERE id = ?", (row,))
    if first is None or first == client:
        return False
    known = fetch_value(db, "SELECT 1 FROM ticket WHERE job = ? AND session_id = ? LIMIT 1", (row, session_id))
    return known is None


def store_prompt(
    db: apsw.Connection, ticket_id: int, prompt_ids: Sequence[int], parameters: str, model_sha256: str
) -> None:
    """Store what the answer is generated from. Raises LedgerRefused if there is no such open ticket."""
    db.execute(
        "UPDATE ticket SET prompt_ids = ?, parameters = ?, model_sha256 = ? WHERE id = ? AND closed_at IS NULL",
        (pack(prompt_ids), parameters, model_sha256, ticket_id),
    )
    if not db.changes():
        raise LedgerRefused(f"ticket {ticket_id} is unknown or closed")


def count_tokens(db: apsw.Connection, ticket_id: int, token_ids: Sequence[int]) -> int:
    """Store tokens of an open ticket; returns the job's new total. Raises LedgerRefused, apsw.Error."""
    found = db.execute(_FIND_END, (ticket_id,)).fetchone()
    if found is None:
        raise LedgerRefused(f"ticket {ticket_id} is unknown")
    job, start = found
    count = len(token_ids)
    if count:
        db.execute(_INSERT_TOKENS, (job, start, count, ticket_id, pack(token_ids)))
    return int(start) + count


def close_ticket(db: apsw.Connection, ticket_id: int, finish_reason: FinishReason) -> None:
    """Mark the answer ended; nothing happens if it is."""
    now = time.time()
    job = fetch_value(
        db,
        "UPDATE ticket SET closed_at = ?, finish_reason = ? WHERE id = ? AND closed_at IS NULL RETURNING job",
        (now, finish_reason, ticket_id),
    )
    if job is not None:
        db.execute("UPDATE job SET updated_at = ? WHERE id = ?", (now, job))


def end_session(db: apsw.Connection, venue_id: int, session_id: str) -> list[int]:
    """Mark the session's jobs as without a session; returns their ids."""
    rows = fetch_rows(
        db,
        "UPDATE job SET session_open = 0, updated_at = ? WHERE session_id = ? AND session_open AND venue = ? "
        "RETURNING id, job_id",
        (time.time(), session_id, venue_id),
    )
    for row, _job_id in rows:
        tell(db, row, f"Session {session_id} ended.")
    return [int(job_id) for _row, job_id in rows]


def end_all_sessions(db: apsw.Connection, venue_id: int) -> list[int]:
    """No session and no answer survived the last process."""
    now = time.time()
    db.execute("UPDATE ticket SET closed_at = ?, finish_reason = 'error' WHERE closed_at IS NULL", (now,))
    rows = fetch_rows(
        db,
        "UPDATE job SET session_open = 0, updated_at = ? WHERE session_open RETURNING id, job_id, session_id, venue",
        (now,),
    )
    for row, _job_id, session_id, _venue in rows:
        tell(db, row, f"Session {session_id} ended, because the application was stopped.")
    return [int(job_id) for _row, job_id, _session, venue in rows if venue == venue_id]


def note_job(db: apsw.Connection, venue_id: int, job_id: int, note: str) -> None:
    """Set the job's remark for the host; empty clears it."""
    row = ensure_job(db, venue_id, job_id)
    changed = fetch_value(
        db,
        "UPDATE job SET note = ?, updated_at = ? WHERE id = ? AND note <> ? RETURNING id",
        (note, time.time(), row, note),
    )
    if changed is not None and note:
        tell(db, row, note)


def read_transcript(db: apsw.Connection, venue_id: int, job_id: int, start: int, end: int) -> list[TranscriptSegment]:
    """The tokens `[start, end)` in order; consecutive tokens of one answer are one segment."""
    row = job_row(db, venue_id, job_id)
    pieces = fetch_rows(
        db,
        "SELECT ticket, start, ids FROM token WHERE job = ?1 AND start < ?3 AND ticket IS NOT NULL AND start >= "
        "coalesce((SELECT max(start) FROM token WHERE job = ?1 AND start <= ?2), 0) ORDER BY start",
        (row, start, end),
    )
    joined: list[tuple[int, int, list[int]]] = []
    for ticket, first, blob in pieces:
        ids = unpack(blob)
        cut = ids[max(0, start - first) : end - first]
        position = max(start, first)
        if joined and joined[-1][0] == ticket and joined[-1][1] + len(joined[-1][2]) == position:
            joined[-1][2].extend(cut)
        elif cut:
            joined.append((ticket, position, list(cut)))
    return [_segment(db, ticket, position, ids) for ticket, position, ids in joined]


def _segment(db: apsw.Connection, ticket: int, start: int, ids: list[int]) -> TranscriptSegment:
    prompt, parameters, model = fetch_row(
        db, "SELECT prompt_ids, parameters, model_sha256 FROM ticket WHERE id = ?", (ticket,)
    )
    return TranscriptSegment(
        ticket_id=ticket,
        start=start,
        token_ids=tuple(ids),
        prompt_ids=unpack(prompt or b""),
        parameters=parameters or "",
        model_sha256=model or "",
    )


def note_activity(db: apsw.Connection, venue_id: int, tokens_by_minute: Mapping[int, int]) -> None:
    """Add to the tokens generated in each minute, for the plot."""
    db.executemany(
        "INSERT INTO activity (venue, minute, generated) VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET generated = generated + excluded.generated",
        [(venue_id, minute, tokens) for minute, tokens in tokens_by_minute.items()],
    )


def pack(token_ids: Sequence[int]) -> bytes:
    """Token ids as little-endian 32 bit numbers."""
    return struct.pack(f"<{len(token_ids)}i", *token_ids)


def unpack(blob: bytes) -> tuple[int, ...]:
    """The token ids of `pack`."""
    return struct.unpack(f"<{len(blob) // 4}i", blob)
