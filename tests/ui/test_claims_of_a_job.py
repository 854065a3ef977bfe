"""The claims of a job in its drawer; a transaction that is asked for by hand; what was replaced below what replaced it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from ui_support import FakeNode, make_job, make_transaction

from fabstir_desktop.jobs.events import JobChanged
from fabstir_desktop.jobs.inspections import ChainTransaction
from fabstir_desktop.jobs.views import ClaimView
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.models.transactions_table import TransactionsModel
from fabstir_desktop.ui.widgets.tables import choose_row


def texts(model: Any) -> list[list[str]]:
    columns = range(model.columnCount())
    return [[model.index(row, place).data() for place in columns] for row in range(model.rowCount())]


def test_the_drawer_lists_the_claims_and_leads_to_their_transactions(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode
) -> None:
    sent = make_transaction(5)
    node.set_jobs(make_job(1, generated=250, claimed=100))
    node.set_transactions(sent)
    node.claim_rows[1] = [
        ClaimView(2, 100, 200, "held", None, "the contract is paused", time.time()),
        ClaimView(1, 0, 100, "confirmed", sent.tx_hash, "", time.time() - 60),
    ]
    window = make_window(node)
    qtbot.waitUntil(lambda: window.jobs.model.rowCount() == 1)
    window.show_page("jobs", "1")
    claims = window.jobs.drawer.claims
    qtbot.waitUntil(lambda: claims.model.rowCount() == 2)
    rows = texts(claims.table.model())
    assert [row[:3] for row in rows] == [["100 to 200", "100", "Held back"], ["0 to 100", "100", "Confirmed"]]
    assert rows[0][3] == "none yet"
    assert claims.table.model().index(0, 2).data(Qt.ItemDataRole.ToolTipRole) == "the contract is paused"
    choose_row(claims.table, claims.model.index_of(2))
    assert not claims.show_button.isEnabled()
    assert not claims.open_button.isEnabled()
    choose_row(claims.table, claims.model.index_of(1))
    assert str(claims.link()).endswith(sent.tx_hash)
    claims.show_button.click()
    assert window.page_name == "transactions"
    assert sent.tx_hash in window.page_by_name["transactions"].detail.text()  # type: ignore[attr-defined]
    node.claim_rows[1] = node.claim_rows[1][:1]
    window.show_page("jobs")
    node.feed.publish(JobChanged(1))
    qtbot.waitUntil(lambda: claims.model.rowCount() == 1)


def test_a_transaction_is_asked_for_by_hand(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode
) -> None:
    sent = make_transaction(5)
    node.set_transactions(sent)
    window = make_window(node)
    said: list[str] = []
    window.bridge.noticed.connect(said.append)
    window.show_page("transactions", sent.tx_hash)
    page: Any = window.page_by_name["transactions"]
    qtbot.waitUntil(lambda: page.model.rowCount() == 1)
    choose_row(page.table, page.model.index_of(sent.tx_hash))
    assert page.recheck_button.text() == "Check this one now"
    page.recheck_button.click()
    qtbot.waitUntil(lambda: bool(said))
    assert ("look_up", sent.tx_hash) in node.calls
    assert said[-1].endswith("in block 21334001, 3 deep; 2 endpoint(s) answered")
    for found, words in (
        (ChainTransaction(7, 1, False, 1), "reverted in block 7, 1 deep; 1 endpoint(s) answered"),
        (ChainTransaction(None, None, None, 1), "in no block that they know of; 1 endpoint(s) answered"),
    ):
        node.chain_transaction = found
        qtbot.waitUntil(page.recheck_button.isEnabled)
        count = len(said)
        page.recheck_button.click()
        qtbot.waitUntil(lambda count=count: len(said) > count)
        assert said[-1].endswith(words)


def test_what_was_replaced_stays_below_what_took_its_place(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode
) -> None:
    now = time.time()
    first = make_transaction(1, "replaced", created_at=now - 300)
    second = make_transaction(2, "replaced", created_at=now - 200, replaces=first.tx_hash)
    third = make_transaction(3, created_at=now - 10, replaces=second.tx_hash)
    between = make_transaction(4, created_at=now - 100)
    node.set_transactions(third, between, second, first)
    window = make_window(node)
    page: Any = window.page_by_name["transactions"]
    qtbot.waitUntil(lambda: page.model.rowCount() == 4)
    hashes = [row[TransactionsModel.HASH] for row in texts(page.table.model())]
    assert [text.startswith("↳") for text in hashes] == [False, True, True, False]


def test_the_rungs_lead_to_the_rows_of_their_number(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode
) -> None:
    node.set_jobs(make_job(1, generated=250, claimed=100), make_job(2, "settled", generated=100, claimed=100))
    states = ("sent", "included", "confirmed", "final", "replaced", "reverted", "dropped")
    node.set_transactions(*(make_transaction(number, state) for number, state in enumerate(states)))
    window = make_window(node)
    page: Any = window.page_by_name["transactions"]
    qtbot.waitUntil(lambda: page.model.rowCount() == len(states))
    window.jobs.choose_filter("unclaimed")
    window.dashboard.ladder.rungChosen.emit("generated")
    assert window.jobs.proxy.rowCount() == 2, "every job that was generated for, also the claimed ones"
    window.dashboard.ladder.rungChosen.emit("claimed")
    assert page.proxy.rowCount() == 4, "what was claimed and stands, mined or not"
    window.dashboard.ladder.rungChosen.emit("proven")
    assert page.proxy.rowCount() == 2
