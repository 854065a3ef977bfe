"""From which block on a payment counts as earned: the setting's, as the chain names it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledger_support import HOST, attempt, bytes32, count, opened, payment

from fabstir_desktop.errors import RpcRefused, RpcUnreachable
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import Payment
from fabstir_desktop.jobs.events import EarningsChanged
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.chain_client import BlockRef
from fabstir_desktop.settlement.payments import PaymentReader


class Chain:
    """A chain whose safe block lies 10 below its head, its final one 30; job 1 is paid in block 95, job 2 in block 60."""

    def __init__(self) -> None:
        self.head = 100
        self.asked: list[str] = []
        self.is_away = False
        self.most_blocks = 1000

    async def settled_number(self, tag: str, head: BlockRef) -> int:
        self.asked.append(tag)
        if self.is_away:
            raise RpcUnreachable("gone")
        return head.number - {"safe": 10, "finalized": 30}[tag]

    async def block(self, which: int | str) -> BlockRef:
        return self.ref(int(which))

    def ref(self, number: int) -> BlockRef:
        return BlockRef(number, bytes32(number), bytes(32), 0)

    async def logs(self, _address: str, _topics: object, first: int, last: int) -> list[Payment]:
        if last - first >= self.most_blocks:
            raise RpcRefused("refused", code=-32005, detail="block range is too wide")
        paid = [payment(1, attempt(1), 95), payment(2, attempt(2), 60)]
        return [one for one in paid if first <= one.block_number <= last]


class Contract:
    """One that reports payments, as they are."""

    address = "0x" + "22" * 20
    has_events = True
    rules = SimpleNamespace(events_name_host=True)

    def payment_topics(self, _host: str) -> list[object]:
        return [None]

    async def payments(self, logs: list[Payment]) -> list[Payment]:
        return list(logs)


def reader(ledger: Ledger, chain: Chain, feed: Feed, depth: Any) -> PaymentReader:
    parts: tuple[Any, ...] = (ledger, chain, Contract(), feed)
    return PaymentReader(*parts, host=HOST, confirmations=1, earnings_from=depth)


async def pending(ledger: Ledger) -> list[int]:
    return sorted(view.job_id for view in await ledger.job_views() if view.pending)


@pytest.mark.parametrize(("depth", "expected"), [("included", []), ("safe", [1]), ("final", [1])])
async def test_payments_above_the_depth_of_the_setting_are_pending(
    tmp_path: Path, depth: str, expected: list[int]
) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        for job_id in (1, 2):
            await count(ledger, job_id, 10)
        chain = Chain()
        assert await reader(ledger, chain, Feed(), depth).poll(chain.ref(100)) == 2
        assert await pending(ledger) == expected
        assert [view.earned[0].amount for view in await ledger.job_views()] == [90, 90], "credited all the same"
        assert len(chain.asked) == (depth != "included"), "nothing is asked that is not needed"


async def test_what_becomes_deep_enough_is_told_with_its_job(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        for job_id in (1, 2):
            await count(ledger, job_id, 10)
        chain, feed, told = Chain(), Feed(), []
        feed.subscribe(EarningsChanged, told.append)
        payments = reader(ledger, chain, feed, "safe")
        await payments.poll(chain.ref(100))
        told.clear()
        await payments.poll(chain.ref(104))
        assert (await pending(ledger), told) == ([1], [])
        chain.is_away = True
        await payments.poll(chain.ref(106))
        assert await pending(ledger) == [1], "unknown is not deep"
        chain.is_away = False
        await payments.poll(chain.ref(106))
        assert (await pending(ledger), told) == ([], [EarningsChanged(frozenset({1}))])


async def test_a_payment_of_a_receipt_is_pending_until_a_depth_was_read(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 10)
        chain = Chain()
        chain.is_away = True
        await reader(ledger, chain, Feed(), "safe").poll(chain.ref(100), [payment(1, attempt(9), 50)])
        assert await pending(ledger) == [1]
        chain.is_away = False
        await reader(ledger, chain, Feed(), "safe").poll(chain.ref(100))
        assert (await ledger.earnings()).pending[0].amount == 90, "block 50 is safe, block 95 is not"


async def test_another_setting_at_the_next_start_holds_for_what_is_stored(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 10)
        chain = Chain()
        await reader(ledger, chain, Feed(), "final").poll(chain.ref(100))
        assert await pending(ledger) == [1]
        await reader(ledger, chain, Feed(), "included").poll(chain.ref(100))
        assert await pending(ledger) == []


async def test_what_one_look_has_no_questions_left_for_is_read_at_the_next_turn(tmp_path: Path) -> None:
    """With a node that gives two blocks at a time; to wait a minute for each look would take hours."""
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 10)
        chain = Chain()
        chain.most_blocks = 2
        payments = reader(ledger, chain, Feed(), "included")
        polls = 0
        while payments.is_stale:
            await payments.poll(chain.ref(100))
            polls += 1
            assert polls < 10
        assert polls > 1
        assert [view.earned[0].amount for view in await ledger.job_views()] == [90]
