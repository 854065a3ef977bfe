"""Earnings over time, and when the app ran at all."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

import apsw

from fabstir_desktop.jobs.views import EarningsPoint
from fabstir_desktop.ledger.rows import fetch_rows, fetch_value
from fabstir_desktop.ledger.views import amounts

MAXIMUM_POINTS = 10_000
SAME_STRETCH_S = 150.0
"""Marks come once a minute; a longer silence (a suspended machine) begins a new stretch."""


def begin_running(db: apsw.Connection) -> None:
    """A process starts: a new stretch."""
    now = time.time()
    db.execute("INSERT INTO running (started_at, last_at) VALUES (?, ?)", (now, now))


def note_running(db: apsw.Connection) -> None:
    """Prolong the current stretch, or begin another if there was a silence."""
    now = time.time()
    db.execute(
        "UPDATE running SET last_at = ?1 WHERE id = (SELECT max(id) FROM running) AND ?1 - last_at BETWEEN 0 AND ?2",
        (now, SAME_STRETCH_S),
    )
    if not db.changes():
        begin_running(db)


def mend_activity(db: apsw.Connection, venue_id: int) -> None:
    """Tokens whose minute was not written before a crash belong to the last minute in which the app ran."""
    missing = fetch_value(
        db,
        "SELECT coalesce((SELECT sum(generated) FROM job WHERE venue = ?1), 0) - "
        "coalesce((SELECT sum(generated) FROM activity WHERE venue = ?1), 0)",
        (venue_id,),
    )
    if missing > 0:
        last = fetch_value(db, "SELECT coalesce(max(last_at), unixepoch('subsec')) FROM running")
        db.execute(
            "INSERT INTO activity (venue, minute, generated) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET generated = generated + excluded.generated",
            (venue_id, int(last // 60), missing),
        )


def read_series(db: apsw.Connection, venue_id: int, since: float, bucket_seconds: int) -> list[EarningsPoint]:
    """One point a bucket from `since` until now, the newest `MAXIMUM_POINTS` of them. Raises ValueError."""
    if bucket_seconds <= 0:
        raise ValueError("a bucket has at least one second")
    last = int(time.time() // bucket_seconds)
    first = max(int(since // bucket_seconds), last - MAXIMUM_POINTS + 1)
    key = {"venue": venue_id, "since": first * bucket_seconds, "size": bucket_seconds}
    generated, proven, earned = _generated(db, key), _proven(db, key), _earned(db, key)
    ran = _buckets_that_ran(db, first, last, bucket_seconds) | generated.keys() | proven.keys() | earned.keys()
    return [
        EarningsPoint(
            start=float(bucket * bucket_seconds),
            generated=generated.get(bucket, 0) if bucket in ran else None,
            proven=proven.get(bucket, 0) if bucket in ran else None,
            earned=amounts(earned.get(bucket, {})),
        )
        for bucket in range(first, last + 1)
    ]


def _generated(db: apsw.Connection, key: Mapping[str, int]) -> dict[int, int]:
    return dict(
        fetch_rows(
            db,
            "SELECT (minute * 60) / :size, sum(generated) FROM activity WHERE venue = :venue AND minute >= :since / 60 "
            "GROUP BY 1",
            key,
        )
    )


def _proven(db: apsw.Connection, key: Mapping[str, int]) -> dict[int, int]:
    return dict(
        fetch_rows(
            db,
            "SELECT CAST(c.proven_at / :size AS INTEGER), sum(c.range_end - c.range_start) FROM claim c "
            "JOIN job j ON j.id = c.job WHERE j.venue = :venue AND c.proven_at >= :since GROUP BY 1",
            key,
        )
    )


def _earned(db: apsw.Connection, key: Mapping[str, int]) -> dict[int, dict[str, int]]:
    earned: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for bucket, token, amount in fetch_rows(
        db,
        "SELECT CAST(recorded_at / :size AS INTEGER), token, host_amount FROM payment WHERE venue = :venue "
        "AND recorded_at >= :since",
        key,
    ):
        earned[bucket][token] += int(amount)
    return earned


def _buckets_that_ran(db: apsw.Connection, first: int, last: int, bucket_seconds: int) -> set[int]:
    ran: set[int] = set()
    for started_at, last_at in fetch_rows(
        db, "SELECT started_at, last_at FROM running WHERE last_at >= ?", (first * bucket_seconds,)
    ):
        ran.update(range(max(first, int(started_at // bucket_seconds)), min(last, int(last_at // bucket_seconds)) + 1))
    return ran
