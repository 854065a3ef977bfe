"""Table models change rows in place; Qt's own tester watches every signal."""

from __future__ import annotations

import time
from typing import Any

import pytest
from PySide6.QtCore import QItemSelectionModel, Qt
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot
from ui_support import HUGE_JOB, make_job, make_transaction

from fabstir_desktop.jobs.views import ClaimedRange, TokenAmount
from fabstir_desktop.ui.models.jobs_table import JobsModel
from fabstir_desktop.ui.models.keyed_table import ROW_ROLE
from fabstir_desktop.ui.models.sorting import ValueSortProxy
from fabstir_desktop.ui.models.transactions_table import TransactionsModel
from fabstir_desktop.ui.widgets.tables import make_table


def _jobs(*numbers: int, **counts: Any) -> dict[int, Any]:
    return {number: make_job(number, **counts) for number in numbers}


@pytest.fixture
def model(qtbot: QtBot) -> JobsModel:
    made = JobsModel()
    made.tester = QAbstractItemModelTester(made, QAbstractItemModelTester.FailureReportingMode.Fatal)  # type: ignore[attr-defined]
    return made


def test_rows_come_go_and_change_without_a_reset(qtbot: QtBot, model: JobsModel) -> None:
    resets: list[int] = []
    model.modelReset.connect(lambda: resets.append(1))
    model.show(_jobs(1, 2, 3))
    model.show(_jobs(2, 3, 4, generated=50))
    model.update({3: make_job(3, generated=51), 5: make_job(5)})
    model.show({})
    assert model.rowCount() == 0
    assert resets == []


def test_only_rows_that_differ_are_told(qtbot: QtBot, model: JobsModel) -> None:
    rows = _jobs(1, 2, 3, 4)
    model.show(rows)
    told: list[tuple[int, int]] = []
    model.dataChanged.connect(lambda first, last: told.append((first.row(), last.row())))
    model.show({**rows, 2: make_job(2, generated=9), 3: make_job(3, generated=9)})
    assert told == [(1, 2)]


def test_job_ids_beyond_2_to_the_64_sort_by_value(qtbot: QtBot, model: JobsModel) -> None:
    proxy = ValueSortProxy()
    proxy.setSourceModel(model)
    proxy.tester = QAbstractItemModelTester(proxy, QAbstractItemModelTester.FailureReportingMode.Fatal)  # type: ignore[attr-defined]
    numbers = (HUGE_JOB, 9, HUGE_JOB + 1, 10, 2**64, 2**53 + 1, 2**53)
    model.show(_jobs(*numbers))
    proxy.sort(JobsModel.JOB)
    assert [proxy.index(place, 0).data(ROW_ROLE).job_id for place in range(7)] == sorted(numbers)


def test_unknown_sorts_below_everything_known(qtbot: QtBot) -> None:
    model = TransactionsModel()
    proxy = ValueSortProxy()
    proxy.setSourceModel(model)
    rows = [make_transaction(1, fee_wei=5), make_transaction(2, "sent"), make_transaction(3, fee_wei=3)]
    model.show({row.tx_hash: row for row in rows})
    proxy.sort(TransactionsModel.FEE)
    assert [proxy.index(place, 0).data(ROW_ROLE).nonce for place in range(3)] == [2, 3, 1]


def test_selection_scroll_and_sort_survive_while_rows_stream_in(qtbot: QtBot, model: JobsModel) -> None:
    proxy = ValueSortProxy()
    proxy.setSourceModel(model)
    table = make_table(proxy, "jobs", (10,) * 9, stretch=7)
    qtbot.addWidget(table)
    table.resize(900, 300)
    table.show()
    rows = _jobs(*range(200))
    model.show(rows)
    table.sortByColumn(JobsModel.JOB, Qt.SortOrder.AscendingOrder)
    chosen = proxy.mapFromSource(model.index_of(120))
    table.selectionModel().select(
        chosen, QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
    )
    qtbot.waitUntil(lambda: table.verticalScrollBar().maximum() > 777)
    table.verticalScrollBar().setValue(777)
    for step in range(20):
        model.update({number: make_job(number, generated=step) for number in range(0, 200, 7)})
        model.update({1000 + step: make_job(1000 + step)})
    assert table.verticalScrollBar().value() == 777
    assert [index.data(ROW_ROLE).job_id for index in table.selectionModel().selectedRows()] == [120]
    assert [proxy.index(place, 0).data(ROW_ROLE).job_id for place in range(3)] == [0, 1, 2]


def test_ten_thousand_jobs_are_shown_sorted_and_changed_quickly(qtbot: QtBot, model: JobsModel) -> None:
    plain = JobsModel()
    proxy = ValueSortProxy()
    proxy.setSourceModel(plain)
    rows = {number: make_job(number, generated=number % 977) for number in range(10_000)}
    plain.show(rows)
    proxy.sort(JobsModel.GENERATED)
    best = 10.0
    for step in range(3):
        began = time.perf_counter()
        plain.update({number: make_job(number, generated=step + 1) for number in range(100)})
        best = min(best, time.perf_counter() - began)
    assert proxy.rowCount() == 10_000
    assert best < 0.25, f"100 changed rows of 10,000 took {best:.3f} s"


def test_cells_have_spoken_texts_with_the_whole_value(qtbot: QtBot) -> None:
    model = TransactionsModel()
    row = make_transaction(7, claims=(ClaimedRange(HUGE_JOB, 0, 100),))
    model.show({row.tx_hash: row})

    def spoken(column: int) -> str:
        return str(model.index(0, column).data(Qt.ItemDataRole.AccessibleTextRole))

    assert row.tx_hash in spoken(TransactionsModel.HASH)
    assert str(HUGE_JOB) in spoken(TransactionsModel.JOB)
    assert "Confirmed" in spoken(TransactionsModel.STATE)


def test_an_unknown_fee_and_unknown_earnings_are_a_dash(qtbot: QtBot, model: JobsModel) -> None:
    transactions = TransactionsModel()
    row = make_transaction(1, "sent")
    transactions.show({row.tx_hash: row})
    assert transactions.index(0, TransactionsModel.FEE).data() == "–"
    assert transactions.index(0, TransactionsModel.GAS).data() == "–"
    model.show(_jobs(1))
    assert model.index(0, JobsModel.EARNED).data() == "–"


def test_the_tool_tip_of_an_amount_has_every_digit(qtbot: QtBot, model: JobsModel) -> None:
    model.show({1: make_job(1, earned=(TokenAmount("ETH", 123_456_789_012_345_678),))})
    cell = model.index(0, JobsModel.EARNED)
    assert cell.data() == "0.1234… ETH"
    assert cell.data(Qt.ItemDataRole.ToolTipRole) == "0.123456789012345678 ETH"


def test_rates_touch_only_the_rows_whose_rate_changed(qtbot: QtBot, model: JobsModel) -> None:
    model.show(_jobs(*range(50)))
    model.show_rates({3: 10.0, 4: 20.0})
    told: list[tuple[int, int]] = []
    model.dataChanged.connect(lambda first, last: told.append((first.row(), last.row())))
    model.show_rates({4: 20.0, 7: 1.0, 999: 5.0})
    assert told == [(3, 3), (7, 7)]
