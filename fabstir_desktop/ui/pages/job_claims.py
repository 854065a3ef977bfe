"""The claims of one job: which tokens, how far, in which transaction."""

from __future__ import annotations

from PySide6.QtCore import QObject, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QStackedWidget, QVBoxLayout, QWidget

from fabstir_desktop.jobs.views import ClaimView
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.models.keyed_table import Column, KeyedTableModel
from fabstir_desktop.ui.models.sorting import ValueSortProxy
from fabstir_desktop.ui.widgets.basics import button, label, row
from fabstir_desktop.ui.widgets.tables import chosen_row, make_table, sort_newest_first
from fabstir_desktop.ui.words import claim_word


class ClaimsModel(KeyedTableModel[ClaimView]):
    """Claims by the ledger's row."""

    TOKENS, COUNT, STATE, TRANSACTION, TIME = range(5)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__((), parent)
        self._columns = (
            Column(
                self.tr("Tokens"),
                lambda one: self.tr("{start} to {end}").format(start=fmt.count(one.start), end=fmt.count(one.end)),
                lambda one: one.start,
            ),
            Column(self.tr("Count"), lambda one: fmt.count(one.end - one.start), lambda one: one.end - one.start, True),
            Column(
                self.tr("State"),
                lambda one: claim_word(one.state),
                lambda one: claim_word(one.state),
                tip=lambda one: one.note or claim_word(one.state),
                spoken=lambda one: f"{claim_word(one.state)} {one.note}".strip(),
            ),
            Column(
                self.tr("Transaction"),
                lambda one: fmt.short_hash(one.tx_hash) if one.tx_hash else self.tr("none yet"),
                lambda one: one.tx_hash or "",
                tip=lambda one: one.tx_hash or self.tr("Nothing of this claim was signed yet."),
            ),
            Column(
                self.tr("Planned"),
                lambda one: fmt.clock(one.created_at),
                lambda one: (one.created_at, one.claim_id),
                tip=lambda one: fmt.full_time(one.created_at),
            ),
        )


class JobClaims(QWidget):
    """A table of them, with the way to each transaction."""

    transactionRequested = Signal(str)

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self.model = ClaimsModel(self)
        proxy = ValueSortProxy(self)
        proxy.setSourceModel(self.model)
        self.table = make_table(proxy, self.tr("Claims of this job"), (14, 6, 14, 12, 12), stretch=2)
        sort_newest_first(self.table, ClaimsModel.TIME)
        self.show_button = button(self.tr("Show transaction"), self._show_transaction)
        self.open_button = button(self.tr("Open in explorer"), self.open_in_explorer, icon="open")
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._choose())
        self.table.doubleClicked.connect(lambda _: self._show_transaction())
        self.empty = label(self.tr("Nothing of this job was claimed yet."), "muted")
        self.body = QStackedWidget()
        self.body.addWidget(self.empty)
        self.body.addWidget(self.table)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.addWidget(self.body, 1)
        layout.addLayout(row(None, self.show_button, self.open_button))
        self._choose()

    def show_claims(self, claims: list[ClaimView]) -> None:
        """Show these and no others."""
        self.model.show({claim.claim_id: claim for claim in claims})
        self.body.setCurrentIndex(1 if claims else 0)
        self._choose()

    def _choose(self) -> None:
        self.show_button.setEnabled(bool(self._tx_hash()))
        self.open_button.setEnabled(self.link() is not None)

    def _tx_hash(self) -> str:
        chosen: ClaimView | None = chosen_row(self.table)
        return (chosen.tx_hash or "") if chosen is not None else ""

    def link(self) -> str | None:
        """The explorer's page of the chosen claim's transaction, where the chain has an explorer."""
        status, tx_hash = self._bridge.status, self._tx_hash()
        return fmt.explorer_link(status.chain.chain_id, "tx", tx_hash) if status and tx_hash else None

    def open_in_explorer(self) -> None:
        """Open that page in the browser."""
        link = self.link()
        if link is not None:
            QDesktopServices.openUrl(QUrl(link))

    def _show_transaction(self) -> None:
        if self._tx_hash():
            self.transactionRequested.emit(self._tx_hash())
