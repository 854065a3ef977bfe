"""Running totals: what was earned and spent in all is known without reading every row, and is exact."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from ledger_rules import check_file
from ledger_support import HOST, VENUE, attempt, bytes32, count, fact, opened, payment, plan

from fabstir_desktop.jobs.views import TokenAmount, without
from fabstir_desktop.ledger.migrate import migrate
from fabstir_desktop.ledger.schema import APPLICATION_ID, MIGRATIONS

LARGEST = 2**256 - 1


def eth(amount: int) -> tuple[TokenAmount, ...]:
    return (TokenAmount("ETH", amount),)


async def test_totals_of_amounts_of_256_bits_are_exact(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        paid = [payment(1, attempt(number), number, host=LARGEST, treasury=10**9) for number in range(40)]
        await ledger.record_payments(paid)
        await ledger.record_payments(paid)
        earnings = await ledger.earnings()
        assert earnings.earned == eth(40 * LARGEST)
        assert earnings.treasury == eth(40 * 10**9)
    check_file(tmp_path / "ledger.db")


async def test_what_a_reorganisation_takes_back_leaves_the_totals(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim = await plan(ledger, 1, 0, 100)
        slot = await ledger.bind([claim.claim_id], sender=HOST, nonce=0, attempt=attempt(1))
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 7))
        await ledger.record_payments([payment(1, attempt(0), 5), payment(1, slot.attempts[0], 7)])
        assert ((await ledger.earnings()).earned, (await ledger.earnings()).gas_wei) == (eth(180), 10**12)
        await ledger.forget_payments_from(7)
        await ledger.mark_reorged(slot.slot_id)
        assert ((await ledger.earnings()).earned, (await ledger.earnings()).gas_wei) == (eth(90), 0)
        await ledger.forget_payments_from(0)
        assert (await ledger.earnings()).earned == ()
    check_file(tmp_path / "ledger.db")


async def test_payments_above_the_counted_block_are_pending_until_it_rises(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        for job_id in (1, 2, 3):
            await count(ledger, job_id, 10)
        assert await ledger.count_payments_up_to(100) == []
        await ledger.record_payments([payment(job_id, attempt(job_id), 99 + job_id) for job_id in (1, 2, 3)])
        earnings = await ledger.earnings()
        assert (earnings.earned, earnings.pending) == (eth(270), eth(180))
        assert without(earnings.earned, earnings.pending) == eth(90)
        assert [view.pending for view in await ledger.job_views(job_ids=[1, 2])] == [eth(90), ()]
        assert await ledger.count_payments_up_to(101) == [2], "only the job for which something changed"
        assert await ledger.count_payments_up_to(101) == []
        assert (await ledger.earnings()).pending == eth(90)
        assert await ledger.count_payments_up_to(None) == [3], "every block counts"
        assert (await ledger.earnings()).pending == ()
        assert sorted(await ledger.count_payments_up_to(100)) == [2, 3]


async def test_every_transaction_is_read_unless_fewer_are_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        for number in range(30):
            await count(ledger, number, 100)
            claim = await plan(ledger, number, 0, 100)
            await ledger.bind([claim.claim_id], sender=HOST, nonce=number, attempt=attempt(number))
        views = await ledger.transaction_views()
        assert len(views) == await ledger.transaction_count() == 30
        assert [view.claims[0].job_id for view in views] == list(range(29, -1, -1))
        assert await ledger.transaction_views(limit=10) == views[:10]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_an_older_ledger_gets_its_totals_from_its_rows(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.db"
    connection = apsw.Connection(str(path))
    migrate(connection, path, MIGRATIONS[:version])
    connection.close()
    connection = apsw.Connection(str(path))
    for name in [
        name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    ]:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(
        "INSERT INTO venue (chain_id, contract, interface) VALUES (?, ?, ?)",
        (VENUE.chain_id, VENUE.contract, VENUE.interface),
    )
    connection.execute("INSERT INTO payment VALUES (?, 0, 1, '1', 5, 'ETH', ?, '10', 1.0)", (bytes32(1), str(LARGEST)))
    connection.execute("INSERT INTO payment VALUES (?, 1, 1, '1', 5, 'ETH', '7', '10', 1.0)", (bytes32(1),))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}")
    connection.close()
    async with opened(path) as ledger:
        earnings = await ledger.earnings()
        assert (earnings.earned, earnings.treasury) == (eth(LARGEST + 7), eth(20))
    check_file(path)


async def test_the_claims_of_a_job_have_the_transaction_that_carries_them(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 200)
        first = await plan(ledger, 1, 0, 100)
        slot = await ledger.bind([first.claim_id], sender=HOST, nonce=0, attempt=attempt(1))
        await ledger.add_attempt(slot.slot_id, attempt(2))
        assert [view.tx_hash for view in await ledger.claim_views(1)] == ["0x" + attempt(2).tx_hash.hex()]
        await ledger.mark_included(slot.slot_id, fact(attempt(1), 5))
        await ledger.mark_confirmed(slot.slot_id)
        await plan(ledger, 1, 100, 200)
        views = await ledger.claim_views(1)
        assert [(view.start, view.end, view.state) for view in views] == [(100, 200, "planned"), (0, 100, "confirmed")]
        assert [view.tx_hash for view in views] == [None, "0x" + attempt(1).tx_hash.hex()]
        assert await ledger.claim_views(2) == []
