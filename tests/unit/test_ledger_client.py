"""Whose a job is, as the ledger keeps it; also in a file that was written before it did."""

from __future__ import annotations

from pathlib import Path

import apsw

from fabstir_desktop.ledger import tokens
from fabstir_desktop.ledger.migrate import migrate
from fabstir_desktop.ledger.schema import MIGRATIONS

ALICE, BOB = b"a" * 32, b"b" * 32


def old_ledger(path: Path) -> apsw.Connection:
    """A file of the first version, with a job and one answer of it."""
    connection = apsw.Connection(str(path))
    migrate(connection, path, MIGRATIONS[:1])
    connection.execute("INSERT INTO venue (id, chain_id, contract, interface) VALUES (1, 84532, '0x1', 'proof_system')")
    connection.execute(
        "INSERT INTO job (venue, job_id, session_id, session_open, created_at, updated_at) VALUES (1, '5', 's', 0, 0, 0)"
    )
    connection.execute("INSERT INTO ticket (job, session_id, opened_at, closed_at) VALUES (1, 's', 0, 1)")
    return connection


def test_the_job_of_an_older_file_is_its_next_clients(tmp_path: Path) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    migrate(connection, tmp_path / "ledger.db")
    assert not tokens.is_anothers(connection, 1, 5, "x", ALICE)
    tokens.open_ticket(connection, 1, 5, "t", ALICE)
    assert tokens.is_anothers(connection, 1, 5, "x", BOB)
    assert not tokens.is_anothers(connection, 1, 5, "x", ALICE)
    for session in ("s", "t"):
        assert not tokens.is_anothers(connection, 1, 5, session, BOB), "the session was used with it"


def test_who_knows_the_session_does_not_become_the_jobs_client(tmp_path: Path) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    migrate(connection, tmp_path / "ledger.db")
    tokens.open_ticket(connection, 1, 5, "s", ALICE)
    tokens.open_ticket(connection, 1, 5, "s", BOB)
    assert not tokens.is_anothers(connection, 1, 5, "new", ALICE)
    assert tokens.is_anothers(connection, 1, 5, "new", BOB)


def test_a_job_that_nobody_used_is_anyones(tmp_path: Path) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    migrate(connection, tmp_path / "ledger.db")
    assert not tokens.is_anothers(connection, 1, 6, "s", BOB)
    tokens.open_ticket(connection, 1, 6, "s")
    assert not tokens.is_anothers(connection, 1, 6, "t", BOB)
