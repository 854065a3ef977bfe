"""What windows and scripts are shown."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ledger_support import HOST, attempt, bytes32, count, fact, opened, payment, plan

from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.views import TokenAmount
from fabstir_desktop.ledger import series
from fabstir_desktop.ledger.ledger import Ledger


async def state_of(ledger: Ledger, job_id: int = 1) -> str:
    view = await ledger.job_view(job_id)
    assert view is not None
    return view.state


async def test_a_job_shows_what_it_is_doing(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        assert await ledger.job_view(1) is None
        ticket = await ledger.open_ticket(1, "s")
        await ledger.add_tokens(ticket, range(200))
        assert await state_of(ledger) == "running"
        await ledger.close_ticket(ticket, "stop")
        assert await state_of(ledger) == "idle"
        claim = await plan(ledger, 1, 0, 100)
        slot = await ledger.bind([claim.claim_id], sender=HOST, nonce=0, attempt=attempt(1))
        assert await state_of(ledger) == "claiming"
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 1))
        await ledger.mark_confirmed(slot.slot_id)
        assert await state_of(ledger) == "idle"
        await ledger.end_session("s")
        assert await state_of(ledger) == "closing"
        rest = await plan(ledger, 1, 100, 200)
        await ledger.move_claim(rest.claim_id, ClaimState.HELD, "the contract is paused")
        assert await state_of(ledger) == "claim_failed"
        view = await ledger.job_view(1)
        assert view is not None
        assert view.note == "the contract is paused"
        await ledger.move_claim(rest.claim_id, ClaimState.VOID, "withdrawn")
        assert await state_of(ledger) == "claim_failed"
        again = await plan(ledger, 1, 100, 200)
        await ledger.move_claim(again.claim_id, ClaimState.WRITTEN_OFF, "the job has ended")
        assert await state_of(ledger) == "settled"


async def test_jobs_come_most_recently_changed_first_and_no_more_than_asked(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        for job_id in (1, 2, 3):
            await count(ledger, job_id, 1)
        await ledger.note_job(1, "looked at")
        assert [view.job_id for view in await ledger.job_views()] == [1, 3, 2]
        assert [view.job_id for view in await ledger.job_views(limit=1)] == [1]


async def test_a_transaction_shows_how_far_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim = await plan(ledger, 1, 0, 100)
        slot = await ledger.bind([claim.claim_id], sender=HOST, nonce=5, attempt=attempt(1))
        seen = []

        async def look() -> None:
            view = (await ledger.transaction_views())[0]
            seen.append((view.state, view.error, view.block, view.fee_wei))

        await look()
        await ledger.note_send(slot.attempts[0].tx_hash, "the RPC did not answer")
        await look()
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 9))
        await look()
        await ledger.mark_confirmed(slot.slot_id)
        await look()
        await ledger.mark_final(slot.slot_id)
        await look()
    assert seen == [
        ("signed", None, None, None),
        ("sent", "the RPC did not answer", None, None),
        ("included", None, 9, 10**12),
        ("confirmed", None, 9, 10**12),
        ("final", None, 9, 10**12),
    ]


async def test_amounts_beyond_64_bits_are_exact_and_never_mixed(tmp_path: Path) -> None:
    large = 2**100 + 1
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 1)
        paid = [
            payment(1, attempt(1), 5, host=large, treasury=large),
            payment(1, attempt(2), 5, host=large, treasury=1),
        ]
        usdc = type(paid[0])(1, attempt(3).tx_hash, 0, 5, "0xUSDC", 7, 3)
        assert await ledger.record_payments([*paid, usdc], cursor_block=5, cursor_hash=bytes32(5)) == 3
        earnings = await ledger.earnings()
        view = await ledger.job_view(1)
        views = await ledger.job_views()
        points = await ledger.earnings_series(since=time.time(), bucket_seconds=86_400)
    expected = (TokenAmount("0xUSDC", 7), TokenAmount("ETH", 2 * large))
    assert view is not None
    assert earnings.earned == view.earned == views[0].earned == points[-1].earned == expected
    assert earnings.treasury == (TokenAmount("0xUSDC", 3), TokenAmount("ETH", large + 1))


async def test_the_plot_has_gaps_where_the_app_did_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        now = time.time()
        monkeypatch.setattr(series.time, "time", lambda: now + 3 * 3600)
        await ledger.note_running()
        monkeypatch.setattr(series.time, "time", lambda: now + 3 * 3600 + 60)
        await ledger.note_running()
        points = await ledger.earnings_series(since=now - 3600, bucket_seconds=3600)
        rows = await ledger._engine.read(lambda db: db.execute("SELECT started_at, last_at FROM running").fetchall())
        with pytest.raises(ValueError, match="second"):
            await ledger.earnings_series(since=now, bucket_seconds=0)
    assert len(rows) == 2, "the third hour begins a new stretch; the minute after prolongs it"
    assert points[0].generated is None
    assert points[1].generated == 0, "the hour in which the ledger was opened"
    assert points[2].generated is None
    assert points[2].proven is None
    assert points[-1].generated == 0


async def test_the_plot_adds_up_to_what_was_generated_and_proven(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 120)
        claim = await plan(ledger, 1, 0, 100)
        slot = await ledger.bind([claim.claim_id], sender=HOST, nonce=0, attempt=attempt(1))
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 1))
        await ledger.mark_confirmed(slot.slot_id)
        await ledger.record_foreign(2, 30, bytes32("x"), "")
        await ledger.record_payments([payment(1, attempt(1), 1)], cursor_block=1, cursor_hash=bytes32(1))
    async with opened(path) as ledger:
        points = await ledger.earnings_series(since=time.time() - 7200, bucket_seconds=600)
        earnings = await ledger.earnings()
    assert sum(point.generated or 0 for point in points) == earnings.generated == 150
    assert sum(point.proven or 0 for point in points) == earnings.proven == 130
    assert sum(amount.amount for point in points for amount in point.earned) == 90


async def test_the_journal_tells_the_story_of_a_job(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100, "alice")
        claim = await plan(ledger, 1, 0, 100)
        slot = await ledger.bind([claim.claim_id], sender=HOST, nonce=0, attempt=attempt(1))
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 12))
        await ledger.mark_confirmed(slot.slot_id)
        await ledger.end_session("alice")
        await count(ledger, 2, 5, "bob")
        story = [text for _at, text in reversed(await ledger.journal(1))]
        everything = await ledger.journal(limit=3)
    tx_hash = "0x" + slot.attempts[0].tx_hash.hex()
    assert story == [
        "Session alice began.",
        "Checkpoint over tokens 0 to 100 (100 tokens): enough tokens gathered.",
        f"Transaction {tx_hash} was signed with nonce 0 and stored.",
        f"Transaction {tx_hash} is in block 12.",
        f"Transaction {tx_hash} is confirmed.",
        "Session alice ended.",
    ]
    assert everything[0][1] == "Session bob began."
    assert len(everything) == 3
