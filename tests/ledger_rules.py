"""What must be true of a ledger's file at any moment, computed anew from its rows."""

from __future__ import annotations

from pathlib import Path

import apsw

from fabstir_desktop.jobs.claims import OPEN_STATES, PROVEN_STATES, SENT_STATES, ClaimState


def check_file(path: Path, *, thorough: bool = True) -> dict[int, int]:
    """Check everything; returns what each job has generated."""
    connection = apsw.Connection(str(path))
    try:
        return check_rows(connection, thorough=thorough)
    finally:
        connection.close()


def check_rows(connection: apsw.Connection, *, thorough: bool = True) -> dict[int, int]:
    """Check everything; returns what each job has generated."""
    if thorough:
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    generated = {}
    columns = "id, job_id, generated, claimed, proven, settled, written_off, reserved, open_claims, next_start"
    for row, job_id, *counts in connection.execute(f"SELECT {columns} FROM job").fetchall():
        check_job(connection, row, counts)
        generated[int(job_id)] = counts[0]
    check_outbox(connection)
    check_totals(connection)
    return generated


def check_totals(connection: apsw.Connection) -> None:
    """The running totals are the sums of the rows they stand for."""
    rows = [
        *connection.execute("SELECT 'host', venue, token, host_amount FROM payment"),
        *connection.execute("SELECT 'treasury', venue, token, treasury_amount FROM payment"),
        *connection.execute("SELECT 'fee', chain_id, '', fee_wei FROM slot WHERE fee_wei IS NOT NULL"),
    ]
    expected: dict[tuple[str, int, str], int] = {}
    for *key, amount in rows:
        expected[tuple(key)] = expected.get(tuple(key), 0) + int(amount)
    kept: dict[tuple[str, int, str], int] = {}
    for *key, place, amount in connection.execute("SELECT kind, scope, token, place, amount FROM total"):
        kept[tuple(key)] = kept.get(tuple(key), 0) + amount * 10 ** (9 * place)
    assert {key: value for key, value in kept.items() if value} == {
        key: value for key, value in expected.items() if value
    }


def check_job(connection: apsw.Connection, row: int, counts: list[int]) -> None:
    """Tokens without a gap, claims disjoint, every count what the rows say."""
    position = 0
    tokens = "SELECT start, count, length(ids), ticket FROM token WHERE job = ? ORDER BY start"
    for start, count, size, ticket in connection.execute(tokens, (row,)):
        assert start == position, "tokens leave a gap"
        assert size == (4 * count if ticket is not None else 0)
        position += count
    rows = connection.execute(
        "SELECT range_start, range_end, state, paid FROM claim WHERE job = ? ORDER BY range_start", (row,)
    ).fetchall()
    live = [(start, end, ClaimState(state), paid) for start, end, state, paid in rows if state != "void"]
    end_of_last, gap = 0, None
    for start, end, _state, _paid in live:
        assert start >= end_of_last, "a token belongs to two claims"
        if start > end_of_last and gap is None:
            gap = end_of_last
        end_of_last = end

    def tokens_in(*states: ClaimState, paid: bool = False) -> int:
        return sum(end - start for start, end, state, is_paid in live if state in states and (is_paid or not paid))

    assert counts == [
        position,
        tokens_in(*SENT_STATES),
        tokens_in(*PROVEN_STATES),
        tokens_in(*PROVEN_STATES, paid=True),
        tokens_in(ClaimState.WRITTEN_OFF),
        tokens_in(ClaimState.PLANNED, ClaimState.HELD),
        sum(state in OPEN_STATES for _start, _end, state, _paid in live),
        end_of_last if gap is None else gap,
    ]
    assert end_of_last <= position, "more is claimed than generated"


def check_outbox(connection: apsw.Connection) -> None:
    """A nonce is given once, a claim owns at most one, and what is bound has its bytes."""
    assert (
        connection.execute(
            "SELECT count(*) FROM claim c WHERE c.kind = 'claim' AND c.state IN ('bound', 'included', 'confirmed', 'final', "
            "'reopened') AND (SELECT count(*) FROM binding b JOIN attempt a ON a.slot = b.slot "
            "WHERE b.claim = c.id AND b.released IS NULL AND length(a.raw) > 0) = 0"
        ).get
        == 0
    )
    assert (
        connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM slot GROUP BY chain_id, sender, nonce HAVING count(*) > 1)"
        ).get
        == 0
    )
    assert (
        connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM binding WHERE released IS NULL GROUP BY claim HAVING count(*) > 1)"
        ).get
        == 0
    )
    assert (
        connection.execute(
            "SELECT count(*) FROM claim c JOIN binding b ON b.claim = c.id AND b.released IS NULL JOIN slot s ON s.id = b.slot "
            "WHERE c.state IN ('included', 'confirmed', 'final') AND (s.state <> c.state OR s.succeeded <> 1)"
        ).get
        == 0
    )
