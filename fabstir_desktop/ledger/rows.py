"""Reads in the shape their callers need: SQLite's types are known from the statement, not from the library."""

from __future__ import annotations

from typing import Any

import apsw


def fetch_rows(db: apsw.Connection, sql: str, values: Any = ()) -> list[Any]:
    """All rows, as tuples."""
    return db.execute(sql, values).fetchall()


def fetch_row(db: apsw.Connection, sql: str, values: Any = ()) -> Any:
    """The first row, None if there is none."""
    return db.execute(sql, values).fetchone()


def fetch_value(db: apsw.Connection, sql: str, values: Any = ()) -> Any:
    """The first column of the first row, None if there is none."""
    row = db.execute(sql, values).fetchone()
    return None if row is None else row[0]
