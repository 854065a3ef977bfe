"""How fast the ledger is: microseconds a token and a claim, and the start with 10,000 jobs and 1,000,000 tokens.

Run it by itself: `python tests/benchmarks/ledger.py [FOLDER]`; it prints one line of JSON for each figure. CPU time is that
of the whole process, over all its threads, with what asyncio spends on the futures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ledger_support import HOST, VENUE, attempt, fact, payment, plan

from fabstir_desktop.ledger import tokens
from fabstir_desktop.ledger.ledger import Ledger

JOBS = 10_000
PIECES_PER_JOB = 100


def say(what: str, **figures: float) -> None:
    print(json.dumps({"benchmark": what, **{name: round(figure, 3) for name, figure in figures.items()}}), flush=True)


async def per_token(folder: Path, streams: int, turns: int) -> None:
    """Each turn every stream adds one token, as a decode step does, and waits for it."""
    ledger = await Ledger.open(folder / f"tokens-{streams}.db", VENUE)
    tickets = [await ledger.open_ticket(job, "s") for job in range(streams)]
    wall, cpu = time.perf_counter(), time.process_time()
    for turn in range(turns):
        for future in [ledger.add_tokens(ticket, (turn,)) for ticket in tickets]:
            await future
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await ledger.close()
    count = streams * turns
    say("ledger token", streams=streams, microseconds=wall / count * 1e6, cpu_microseconds=cpu / count * 1e6)


async def per_claim(folder: Path, jobs: int) -> None:
    """Plan, bind (both with a full sync), include, confirm: one job after the other, then all at once."""
    ledger = await Ledger.open(folder / "claims.db", VENUE)
    for job in range(2 * jobs):
        await ledger.add_tokens(await ledger.open_ticket(job, "s"), range(100))

    async def claim(job: int) -> None:
        planned = await plan(ledger, job, 0, 100)
        slot = await ledger.bind([planned.claim_id], sender=HOST, nonce=job, attempt=attempt(job))
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 1))
        await ledger.mark_confirmed(slot.slot_id)

    started = time.perf_counter()
    for job in range(jobs):
        await claim(job)
    alone = time.perf_counter() - started
    started = time.perf_counter()
    await asyncio.gather(*(claim(job) for job in range(jobs, 2 * jobs)))
    together = time.perf_counter() - started
    await ledger.close()
    say(
        "ledger claim, 4 durable steps",
        alone_microseconds=alone / jobs * 1e6,
        together_microseconds=together / jobs * 1e6,
    )


async def fill(path: Path) -> None:
    """10,000 jobs of 100 tokens in as many rows; half of them claimed, a tenth paid."""
    ledger = await Ledger.open(path, VENUE)

    def write(first: int) -> Callable[..., None]:
        def rows(db: object) -> None:
            for job in range(first, first + 100):
                ticket = tokens.open_ticket(db, 1, job, f"session-{job}")  # type: ignore[arg-type]
                for piece in range(PIECES_PER_JOB):
                    tokens.count_tokens(db, ticket, (piece,))  # type: ignore[arg-type]
                tokens.close_ticket(db, ticket, "stop")  # type: ignore[arg-type]

        return rows

    for first in range(0, JOBS, 100):
        await ledger._engine.write(write(first), durable=False)

    async def claim(job: int) -> None:
        planned = await plan(ledger, job, 0, 100)
        slot = await ledger.bind([planned.claim_id], sender=HOST, nonce=job, attempt=attempt(job))
        if job % 5:
            await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], job))
            await ledger.mark_confirmed(slot.slot_id)

    for first in range(0, JOBS // 2, 500):
        await asyncio.gather(*(claim(job) for job in range(first, first + 500)))
    paid = [payment(job, attempt(job), job) for job in range(JOBS // 2)]
    await ledger.record_payments(paid, cursor_block=1, cursor_hash=b"")
    await ledger.end_all_sessions()
    await ledger.close()


async def timed(what: Awaitable[object]) -> tuple[float, object]:
    started = time.perf_counter()
    answer = await what
    return (time.perf_counter() - started) * 1e3, answer


async def start_up(folder: Path) -> None:
    """What happens between the start and the first prompt, and what the window asks then."""
    path = folder / "large.db"
    await fill(path)
    for label in ("ledger start, clean", "ledger start, again"):
        opened_ms, ledger = await timed(Ledger.open(path, VENUE))
        assert isinstance(ledger, Ledger)
        sessions_ms, _jobs = await timed(ledger.end_all_sessions())
        unclaimed_ms, waiting = await timed(ledger.accounts_with_unclaimed())
        slots_ms, _slots = await timed(ledger.slots(HOST))
        views_ms, _views = await timed(ledger.job_views())
        earnings_ms, _earnings = await timed(ledger.earnings())
        series_ms, _points = await timed(ledger.earnings_series(since=time.time() - 86_400, bucket_seconds=3600))
        assert len(waiting) == JOBS // 2  # type: ignore[arg-type]
        say(
            label,
            megabytes=path.stat().st_size / 1e6,
            to_serving_ms=opened_ms + sessions_ms,
            open_ms=opened_ms,
            unclaimed_ms=unclaimed_ms,
            slots_ms=slots_ms,
            job_views_ms=views_ms,
            earnings_ms=earnings_ms,
            series_ms=series_ms,
        )
        await ledger.close()


async def main(folder: Path) -> None:
    """All figures."""
    for streams, turns in ((1, 3_000), (8, 1_000), (64, 150)):
        await per_token(folder, streams, turns)
    await per_claim(folder, 200)
    await start_up(folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        asyncio.run(main(Path(temporary)))
