"""Thousands of jobs and transactions: counted as they change, handed over in pieces, and never silently cut."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot
from ui_support import CHAIN, FakeNode, make_job, make_status, make_transaction

from fabstir_desktop.jobs.events import EarningsChanged
from fabstir_desktop.jobs.views import JobView, TokenAmount
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import TRANSACTIONS_A_PAGE
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.reasons import claim_refusal, ready_to_claim
from fabstir_desktop.ui.waiting_jobs import WaitingJobs

STATES = ("running", "claiming", "idle", "settled")


def test_what_waits_is_counted_as_if_all_jobs_were_looked_at(qtbot: QtBot) -> None:
    chance = random.Random(5)
    waiting, jobs = WaitingJobs(), {}
    for _ in range(2000):
        job_id, tokens = chance.randrange(300), chance.randrange(300)
        state, claimed = chance.choice(STATES), chance.choice((0, tokens))
        jobs[job_id] = make_job(job_id, state, generated=tokens, claimed=claimed)
        waiting.update([jobs[job_id]])
    for name in ("ProofSystem", "JobMarketplace"):
        status = make_status(chain=replace(CHAIN, contract_name=name))
        expected = [job for job in jobs.values() if job.unclaimed and claim_refusal(job, status) is None]
        assert ready_to_claim(waiting, status) == len(expected)
    most = sorted((job.unclaimed for job in jobs.values()), reverse=True)[:5]
    assert [job.unclaimed for job in waiting.largest(5)] == most


def test_a_payment_reads_its_own_job_and_a_reorganisation_all_of_them(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode
) -> None:
    node.set_jobs(*(make_job(number, generated=10) for number in range(1000)))
    window = make_window(node)
    qtbot.waitUntil(lambda: window.jobs.model.rowCount() == 1000, timeout=20_000)
    asked: list[object] = []
    original = node.jobs

    async def watched(job_ids: Any = None) -> list[JobView]:
        asked.append(job_ids)
        return await original(job_ids)

    node.jobs = watched  # type: ignore[method-assign]
    node.job_by_id[7] = make_job(7, generated=10, claimed=10)
    node.feed.publish(EarningsChanged(frozenset({7})))
    qtbot.waitUntil(lambda: window.jobs.model.row(7).claimed == 10)
    assert asked == [{7}]
    node.feed.publish(EarningsChanged())
    qtbot.waitUntil(lambda: None in asked, timeout=10_000)


def test_older_transactions_are_a_click_away_and_all_of_them_in_the_file(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode, tmp_path: Path
) -> None:
    count = TRANSACTIONS_A_PAGE + 50
    node.transaction_rows = [make_transaction(number) for number in range(count, 0, -1)]
    window = make_window(node)
    window.show_page("transactions")
    page: Any = window.page_by_name["transactions"]
    qtbot.waitUntil(lambda: page.model.rowCount() == TRANSACTIONS_A_PAGE, timeout=20_000)
    qtbot.waitUntil(page.more_button.isVisible)
    assert page.shown_of.text() == f"The newest {fmt.count(1000)} of {fmt.count(1050)} are shown."
    page.export_button.click()
    target = tmp_path / "all.csv"
    page.findChild(QFileDialog).fileSelected.emit(str(target))
    qtbot.waitUntil(lambda: target.exists() and target.read_text().count("\n") == count + 1, timeout=20_000)
    assert len(list(csv.DictReader(io.StringIO(target.read_text())))) == count
    page.more_button.click()
    qtbot.waitUntil(lambda: page.model.rowCount() == count, timeout=20_000)
    assert not page.more_button.isVisible()


def test_what_is_not_deep_enough_stands_apart_from_what_is_earned(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode
) -> None:
    paid, above = TokenAmount("ETH", 3 * 10**18), TokenAmount("ETH", 10**18)
    node.set_jobs(make_job(1, "settled", generated=300, claimed=300, earned=(paid,), pending=(above,)))
    window = make_window(node)
    qtbot.waitUntil(lambda: window.dashboard.earned.value.text() == "2 ETH")
    assert "1 ETH pending" in window.dashboard.earned.detail.toolTip() + window.dashboard.earned.accessibleName()
    assert "not yet deep enough" in window.dashboard.earned.toolTip()
    settled = window.dashboard.ladder.rung_by_name["settled"]
    assert (settled.money.full_text, settled.note.text()) == ("2 ETH", "1 ETH pending")
    window.jobs.show_job(1)
    qtbot.waitUntil(lambda: "of which 1 ETH pending" in window.jobs.drawer.values["earned"].text())
    node.set_jobs(make_job(1, "settled", generated=300, claimed=300, earned=(paid,)))
    node.feed.publish(EarningsChanged(frozenset({1})))
    qtbot.waitUntil(lambda: window.dashboard.earned.value.text() == "3 ETH")
    assert "pending" not in window.dashboard.earned.accessibleName()
