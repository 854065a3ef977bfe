"""What windows and scripts are shown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import apsw

from fabstir_desktop.jobs.claims import SlotState
from fabstir_desktop.jobs.views import ClaimedRange, ClaimView, EarningsView, JobView, TokenAmount, TransactionView
from fabstir_desktop.ledger.rows import fetch_row, fetch_rows, fetch_value
from fabstir_desktop.ledger.schema import DIGITS_OF_A_LIMB

_JOB = """
SELECT j.job_id, j.session_id, j.generated, j.claimed, j.proven, j.settled, j.generated - j.claimed - j.written_off,
       j.note, j.created_at, j.updated_at, j.session_open, j.open_claims,
       EXISTS (SELECT 1 FROM ticket t WHERE t.job = j.id AND t.closed_at IS NULL),
       c.state, c.note
FROM job j LEFT JOIN claim c ON c.job = j.id AND c.sequence = (SELECT max(n.sequence) FROM claim n WHERE n.job = j.id)
"""
_PAID = """
SELECT p.job_id, p.token, p.host_amount, coalesce(p.block_number > v.counted_block, 0)
FROM payment p JOIN venue v ON v.id = p.venue
"""


def read_job_views(
    db: apsw.Connection, venue_id: int, limit: int | None, job_ids: Collection[int] | None = None
) -> list[JobView]:
    """Jobs, most recently changed first; only those of `job_ids` if any are named."""
    named = None if job_ids is None else json.dumps([str(job_id) for job_id in job_ids])
    key = {"venue": venue_id, "limit": -1 if limit is None else limit, "named": named}
    paid: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for job_id, *payment in fetch_rows(db, f"{_PAID} WHERE p.venue = :venue {_only('p', named)}", key):
        paid[job_id].append(payment)
    rows = fetch_rows(
        db, f"{_JOB} WHERE j.venue = :venue {_only('j', named)} ORDER BY j.updated_at DESC, j.id DESC LIMIT :limit", key
    )
    return [_job_view(row, paid.get(row[0], ())) for row in rows]


def _only(table: str, named: str | None) -> str:
    return "" if named is None else f"AND {table}.job_id IN (SELECT value FROM json_each(:named))"


def read_job_view(db: apsw.Connection, venue_id: int, job_id: int) -> JobView | None:
    """One job's row."""
    return next(iter(read_job_views(db, venue_id, 1, (job_id,))), None)


def _job_view(row: Sequence[Any], paid: Sequence[Sequence[Any]]) -> JobView:
    job_id, session_id, generated, claimed, proven, settled, unclaimed, note, created_at, updated_at, *facts = row
    session_open, open_claims, running, claim_state, claim_note = facts
    return JobView(
        job_id=int(job_id),
        session_id=session_id,
        state=_job_state(bool(running), bool(session_open), open_claims, claim_state, unclaimed),
        generated=generated,
        claimed=claimed,
        proven=proven,
        settled=settled,
        unclaimed=unclaimed,
        earned=amounts(_sum((token, amount) for token, amount, _pending in paid)),
        pending=amounts(_sum((token, amount) for token, amount, pending in paid if pending)),
        note=note or (claim_note if claim_state in ("held", "void", "written_off") else "") or "",
        created_at=created_at,
        updated_at=updated_at,
    )


def _job_state(running: bool, session_open: bool, open_claims: int, claim_state: str | None, unclaimed: int) -> str:
    if running:
        return "running"
    if claim_state in ("held", "void"):
        return "claim_failed"
    if open_claims:
        return "claiming"
    if session_open:
        return "idle"
    return "closing" if unclaimed else "settled"


def read_transaction_views(
    db: apsw.Connection, chain_id: int, limit: int | None, slot_id: int | None
) -> list[TransactionView]:
    """Attempts, newest first; all of them without a limit."""
    rows = fetch_rows(
        db,
        "SELECT a.tx_hash, a.sends, a.last_error, a.created_at, s.id, s.kind, s.nonce, s.state, s.mined_hash, s.block_number, "
        "s.succeeded, s.gas_used, s.fee_wei, "
        "(SELECT p.tx_hash FROM attempt p WHERE p.slot = a.slot AND p.number = a.number - 1) "
        "FROM attempt a JOIN slot s ON s.id = a.slot WHERE s.chain_id = ?1 AND (?2 IS NULL OR s.id = ?2) "
        "ORDER BY a.id DESC LIMIT ?3",
        (chain_id, slot_id, -1 if limit is None else limit),
    )
    claims = _claims_of(db, {row[4] for row in rows})
    return [_transaction_view(row, *claims.get(row[4], ((), "", ""))) for row in rows]


def count_transactions(db: apsw.Connection, chain_id: int) -> int:
    """How many attempts there are."""
    return int(
        fetch_value(db, "SELECT count(*) FROM attempt a JOIN slot s ON s.id = a.slot WHERE s.chain_id = ?", (chain_id,))
    )


def _claims_of(db: apsw.Connection, slot_ids: Collection[int]) -> dict[int, tuple[tuple[ClaimedRange, ...], str, str]]:
    """By slot the ranges it carries or carried, the first note among its claims, and what became of those it let go.

    One question for all of them: a page has a thousand.
    """
    found: dict[int, list[Sequence[Any]]] = defaultdict(list)
    for slot_id, *claim in fetch_rows(
        db,
        "SELECT b.slot, j.job_id, c.range_start, c.range_end, c.note, b.released FROM json_each(?) e "
        "JOIN binding b ON b.slot = e.value JOIN claim c ON c.id = b.claim JOIN job j ON j.id = c.job ORDER BY b.slot, c.id",
        (json.dumps(list(slot_ids)),),
    ):
        found[slot_id].append(claim)
    return {slot_id: _told_of_claims(rows) for slot_id, rows in found.items()}


def _told_of_claims(rows: Sequence[Sequence[Any]]) -> tuple[tuple[ClaimedRange, ...], str, str]:
    ranges = tuple(ClaimedRange(int(job_id), start, end) for job_id, start, end, _note, _released in rows)
    failed = [released for *_range, released in rows if released is not None]
    told = f"{len(failed)} of {len(rows)} claims failed: {failed[0]}" if failed else ""
    return ranges, next((note for *_range, note, _released in rows if note), ""), told


def _transaction_view(row: Sequence[Any], claims: tuple[ClaimedRange, ...], note: str, failed: str) -> TransactionView:
    (
        tx_hash,
        sends,
        error,
        created_at,
        _slot,
        kind,
        nonce,
        slot_state,
        mined_hash,
        block,
        succeeded,
        gas,
        fee,
        replaces,
    ) = row
    is_mined = mined_hash == tx_hash
    state = _transaction_state(slot_state, bool(sends), mined_hash, is_mined, succeeded)
    return TransactionView(
        tx_hash=f"0x{tx_hash.hex()}",
        kind=kind,
        nonce=nonce,
        state=state,
        claims=claims,
        block=block if is_mined else None,
        gas_used=gas if is_mined else None,
        fee_wei=int(fee) if is_mined and fee is not None else None,
        replaces=None if replaces is None else f"0x{replaces.hex()}",
        error=(note or "reverted by the contract") if state == "reverted" else (failed or None) if is_mined else error,
        created_at=created_at,
    )


def _transaction_state(
    slot_state: str, sent: bool, mined_hash: bytes | None, is_mined: bool, succeeded: int | None
) -> str:
    if slot_state in (SlotState.BURNED, SlotState.FOREIGN):
        return "dropped"
    if mined_hash is None:
        return "sent" if sent else "signed"
    if not is_mined:
        return "replaced"
    return slot_state if succeeded else "reverted"


def read_claim_views(db: apsw.Connection, venue_id: int, job_id: int, limit: int) -> list[ClaimView]:
    """The job's claims, newest first, each with the transaction that carries it: the mined one, else the newest attempt."""
    rows = fetch_rows(
        db,
        "SELECT c.id, c.range_start, c.range_end, c.state, coalesce(c.foreign_hash, s.mined_hash, "
        "(SELECT a.tx_hash FROM attempt a WHERE a.slot = s.id ORDER BY a.number DESC LIMIT 1)), c.note, c.created_at "
        "FROM claim c JOIN job j ON j.id = c.job LEFT JOIN slot s ON s.id = "
        "(SELECT b.slot FROM binding b WHERE b.claim = c.id ORDER BY b.released IS NULL DESC, b.slot DESC LIMIT 1) "
        "WHERE j.venue = ? AND j.job_id = ? ORDER BY c.sequence DESC LIMIT ?",
        (venue_id, str(job_id), limit),
    )
    return [
        ClaimView(claim_id, start, end, state, None if tx_hash is None else f"0x{tx_hash.hex()}", note, created_at)
        for claim_id, start, end, state, tx_hash, note, created_at in rows
    ]


def read_earnings(db: apsw.Connection, venue_id: int, chain_id: int) -> EarningsView:
    """The ladder over all jobs of the venue; gas is that of the chain."""
    generated, claimed, proven, settled, written_off = fetch_row(
        db,
        "SELECT coalesce(sum(generated), 0), coalesce(sum(claimed), 0), coalesce(sum(proven), 0), "
        "coalesce(sum(settled), 0), coalesce(sum(written_off), 0) FROM job WHERE venue = ?",
        (venue_id,),
    )
    pending = fetch_rows(
        db,
        "SELECT p.token, p.host_amount FROM payment p JOIN venue v ON v.id = p.venue "
        "WHERE p.venue = ? AND p.block_number > v.counted_block",
        (venue_id,),
    )
    return EarningsView(
        generated=generated,
        claimed=claimed,
        proven=proven,
        settled=settled,
        written_off=written_off,
        earned=amounts(_running_total(db, "host", venue_id)),
        pending=amounts(_sum(pending)),
        treasury=amounts(_running_total(db, "treasury", venue_id)),
        gas_wei=sum(_running_total(db, "fee", chain_id).values()),
    )


def _running_total(db: apsw.Connection, kind: str, scope: int) -> dict[str, int]:
    """The sum by token, put together from its pieces: the table is as small as it was on the first day."""
    total: dict[str, int] = defaultdict(int)
    for token, place, amount in fetch_rows(
        db, "SELECT token, place, amount FROM total WHERE kind = ? AND scope = ?", (kind, scope)
    ):
        total[token] += amount * 10 ** (DIGITS_OF_A_LIMB * place)
    return {token: amount for token, amount in total.items() if amount}


def _sum(rows: Iterable[Sequence[Any]]) -> dict[str, int]:
    """Amounts per token; in Python, because 64 bits do not hold them."""
    total: dict[str, int] = defaultdict(int)
    for token, amount in rows:
        total[token] += int(amount)
    return total


def amounts(by_token: dict[str, int]) -> tuple[TokenAmount, ...]:
    """In the order of the tokens' names."""
    return tuple(TokenAmount(token, by_token[token]) for token in sorted(by_token))
