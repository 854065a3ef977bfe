"""The columns of the transactions table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QObject
from PySide6.QtGui import QColor

from fabstir_desktop.jobs.views import TransactionView
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.models.keyed_table import Column, KeyedTableModel
from fabstir_desktop.ui.theme import colours
from fabstir_desktop.ui.words import kind_word, transaction_sign, transaction_tone, transaction_word

PENDING_STATES = frozenset({"signed", "sent"})


class TransactionsModel(KeyedTableModel[TransactionView]):
    """Attempts by hash."""

    TIME, KIND, JOB, TOKENS, STATE, GAS, FEE, HASH = range(8)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__((), parent)
        self._newest_by_hash: dict[str, float] = {}
        self._columns = self._make_columns()

    def show(self, rows: Mapping[Any, TransactionView]) -> None:
        """Become these rows; what was replaced stays below what took its place, however late that was signed."""
        self._newest_by_hash = _newest_of_each(rows)
        super().show(rows)

    def grow_older(self) -> None:
        """Write the ages of waiting transactions anew."""
        self.tell_changed([key for key, row in self._row_by_key.items() if row.state in PENDING_STATES])

    def _make_columns(self) -> tuple[Column[TransactionView], ...]:
        return (
            Column(
                self.tr("Time"),
                lambda row: fmt.clock(row.created_at),
                self._age,
                tip=lambda row: fmt.full_time(row.created_at),
            ),
            Column(self.tr("Kind"), lambda row: kind_word(row.kind), lambda row: kind_word(row.kind)),
            Column(
                self.tr("Job"),
                self._jobs,
                lambda row: row.claims[0].job_id if row.claims else None,
                tip=lambda row: ", ".join(str(claim.job_id) for claim in row.claims),
            ),
            Column(self.tr("Tokens"), lambda row: fmt.count(tokens_of(row)), tokens_of, is_number=True),
            Column(
                self.tr("State"),
                self._state,
                lambda row: transaction_word(row.state),
                tip=lambda row: row.error or transaction_word(row.state),
                spoken=self._state,
                colour=_state_colour,
            ),
            Column(self.tr("Gas used"), lambda row: fmt.count(row.gas_used), lambda row: row.gas_used, is_number=True),
            Column(
                self.tr("Fee"),
                lambda row: fmt.wei(row.fee_wei),
                lambda row: row.fee_wei,
                is_number=True,
                tip=lambda row: fmt.wei(row.fee_wei, exact=True),
            ),
            Column(
                self.tr("Hash"),
                _hash,
                lambda row: row.tx_hash,
                tip=lambda row: row.tx_hash,
            ),
        )

    def _age(self, row: TransactionView) -> tuple[float, float]:
        return self._newest_by_hash.get(row.tx_hash, row.created_at), row.created_at

    def _jobs(self, row: TransactionView) -> str:
        if not row.claims:
            return fmt.UNKNOWN
        first = fmt.short_job(row.claims[0].job_id)
        more = len({claim.job_id for claim in row.claims}) - 1
        return self.tr("{job} and {more} more").format(job=first, more=more) if more else first

    def _state(self, row: TransactionView) -> str:
        text = f"{transaction_sign(row.state)}  {transaction_word(row.state)}"
        if row.state in PENDING_STATES:
            return f"{text} {fmt.duration(time.time() - row.created_at)}"
        return f"{text}: {row.error}" if row.error and row.state == "reverted" else text


def _hash(row: TransactionView) -> str:
    return f"↳ {fmt.short_hash(row.tx_hash)}" if row.state == "replaced" else fmt.short_hash(row.tx_hash)


def _newest_of_each(rows: Mapping[Any, TransactionView]) -> dict[str, float]:
    """By hash when the newest transaction of its nonce was signed: the one that in the end took its place."""
    replaced_by = {row.replaces: row for row in rows.values() if row.replaces is not None}
    newest: dict[str, float] = {}
    for row in rows.values():
        last = row
        while last.tx_hash in replaced_by:
            last = replaced_by[last.tx_hash]
        newest[row.tx_hash] = last.created_at
    return newest


def tokens_of(row: TransactionView) -> int | None:
    """Tokens that the transaction claims; None if it claims none."""
    return sum(claim.end - claim.start for claim in row.claims) if row.claims else None


def _state_colour(row: TransactionView) -> QColor | None:
    return colours().tones[transaction_tone(row.state)]
