"""The transactions: every attempt that was ever signed, with its state, gas and whole hash."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Callable, Iterable

from PySide6.QtCore import QPoint, Qt, QUrl
from PySide6.QtGui import QAction, QDesktopServices, QGuiApplication, QKeySequence
from PySide6.QtWidgets import QButtonGroup, QMenu, QPushButton, QStackedWidget

from fabstir_desktop.jobs.inspections import ChainTransaction
from fabstir_desktop.jobs.views import TransactionView
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.files import save_text
from fabstir_desktop.ui.models.sorting import ValueSortProxy
from fabstir_desktop.ui.models.transactions_table import TransactionsModel, tokens_of
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.widgets.basics import EmptyState, button, label, set_text
from fabstir_desktop.ui.widgets.flow import Flow, flow
from fabstir_desktop.ui.widgets.tables import choose_row, chosen_row, make_table, sort_newest_first

_FILTERS: dict[str, Callable[[TransactionView], bool]] = {
    "all": lambda _: True,
    "claimed": lambda view: bool(view.claims) and view.state in {"signed", "sent", "included", "confirmed", "final"},
    "waiting": lambda view: view.state in {"signed", "sent", "included"},
    "confirmed": lambda view: view.state in {"confirmed", "final"},
    "withdrawals": lambda view: view.kind == "withdraw",
    "failed": lambda view: view.state in {"reverted", "dropped"},
}


class TransactionsPage(Page):
    """All transactions of this host."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge)
        layout = self.lay_out(self.tr("Transactions"), *self._make_tools())
        self.model = TransactionsModel(self)
        self.proxy = ValueSortProxy(self)
        self.proxy.setSourceModel(self.model)
        self.table = make_table(self.proxy, self.tr("Transactions"), (12, 5, 9, 6, 30, 7, 19, 17), stretch=4)
        sort_newest_first(self.table, TransactionsModel.TIME)
        self.detail = label("", "muted", wrap=True, selectable=True)
        self.empty = EmptyState(
            "transactions",
            self.tr("No transactions yet"),
            self.tr(
                "A checkpoint is sent when a job has gathered enough tokens or its session ends. It then appears here."
            ),
        )
        self.body = QStackedWidget()
        self.body.addWidget(self.empty)
        self.body.addWidget(self.table)
        layout.addLayout(self._make_filters())
        layout.addWidget(self.body, 1)
        layout.addLayout(self._make_more())
        layout.addWidget(self.detail)
        self._connect(bridge)

    def _make_tools(self) -> tuple[QPushButton, ...]:
        self.copy_button = button(self.tr("Copy hash"), self.copy_hash, icon="copy")
        self.open_button = button(self.tr("Open in explorer"), self.open_in_explorer, icon="open")
        self.speed_up_button = button(self.tr("Speed up"), self.speed_up, icon="play")
        self.speed_up_button.setToolTip(
            self.tr("Send the same claim again with an eighth more in fees and the same nonce: only one is ever mined.")
        )
        self.recheck_button = button(self.tr("Check chain now"), self.recheck, icon="refresh")
        self.recheck_button.setToolTip(
            self.tr("Asks every endpoint for the chosen transaction; without one, looks at the chain as a whole.")
        )
        self.export_button = button(self.tr("Save as CSV…"), self._export, icon="download")
        return (
            self.speed_up_button,
            self.copy_button,
            self.open_button,
            self.recheck_button,
            self.export_button,
        )

    def _connect(self, bridge: Bridge) -> None:
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._choose())
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(self._open_menu)
        copy = QAction(self.tr("Copy hash"), self.table)
        copy.setShortcut(QKeySequence.StandardKey.Copy)
        copy.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        copy.triggered.connect(lambda _checked=False: self.copy_hash())
        self.table.addAction(copy)
        bridge.transactionsChanged.connect(self._show)
        bridge.transactionsChanged.connect(lambda _: self._choose())
        bridge.tick.connect(self.model.grow_older)
        self._show(bridge.transactions)
        self._choose()

    def _make_filters(self) -> Flow:
        names = {
            "all": self.tr("All"),
            "claimed": self.tr("Claims"),
            "waiting": self.tr("Waiting"),
            "confirmed": self.tr("Confirmed"),
            "withdrawals": self.tr("Withdrawals"),
            "failed": self.tr("Failed"),
        }
        group = QButtonGroup(self)
        line = flow(spacing=6)
        self.button_by_filter = {}
        for name, text in names.items():
            made = button(text)
            made.setCheckable(True)
            made.setChecked(name == "all")
            made.clicked.connect(lambda _checked=False, name=name: self.choose_filter(name))
            group.addButton(made)
            self.button_by_filter[name] = made
            line.addWidget(made)
        return line

    def _make_more(self) -> Flow:
        self.shown_of = label("", "muted")
        self.more_button = button(self.tr("Show older ones"), self.bridge.show_more_transactions)
        return flow(self.shown_of, self.more_button)

    def open_with(self, wanted: str) -> None:
        """Show a filter by its name, or a transaction by its hash."""
        if wanted in _FILTERS:
            self.choose_filter(wanted)
        elif wanted.startswith("0x"):
            self.choose_filter("all")
            choose_row(self.table, self.model.index_of(wanted))

    def choose_filter(self, name: str) -> None:
        """Show only the transactions of this filter."""
        self.button_by_filter[name].setChecked(True)
        self.proxy.choose(_FILTERS[name])

    def _show(self, transactions: list[TransactionView]) -> None:
        self.model.show({view.tx_hash: view for view in transactions})
        self.body.setCurrentIndex(1 if transactions else 0)
        self.export_button.setEnabled(bool(transactions))
        is_cut = self.bridge.transaction_count > len(transactions)
        shown = self.tr("The newest {shown} of {all} are shown.").format(
            shown=fmt.count(len(transactions)), all=fmt.count(self.bridge.transaction_count)
        )
        set_text(self.shown_of, shown)
        self.shown_of.setVisible(is_cut)
        self.more_button.setVisible(is_cut)

    # --- the chosen one -----------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        view: TransactionView | None = chosen_row(self.table)
        self.copy_button.setEnabled(view is not None)
        self.speed_up_button.setEnabled(view is not None and _can_speed_up(view))
        self.recheck_button.setText(self.tr("Check chain now") if view is None else self.tr("Check this one now"))
        self.open_button.setEnabled(view is not None and self._link(view) is not None)
        set_text(self.detail, self._describe(view) if view else self.tr("Choose a transaction to see all of it."))

    def _describe(self, view: TransactionView) -> str:
        parts = [view.tx_hash, self.tr("nonce {nonce}").format(nonce=view.nonce)]
        if view.block is not None:
            parts.append(self.tr("block {block}").format(block=view.block))
        if view.fee_wei is not None:
            parts.append(self.tr("fee {fee}").format(fee=fmt.wei(view.fee_wei, exact=True)))
        claims = [
            self.tr("job {job}: tokens {start} to {end}").format(job=claim.job_id, start=claim.start, end=claim.end)
            for claim in view.claims
        ]
        replaces = [self.tr("replaces {hash}").format(hash=view.replaces)] if view.replaces else []
        return "  ·  ".join([*parts, *claims, *replaces, *([view.error] if view.error else [])])

    def _link(self, view: TransactionView) -> str | None:
        status = self.bridge.status
        return fmt.explorer_link(status.chain.chain_id, "tx", view.tx_hash) if status else None

    def copy_hash(self) -> None:
        """Put the chosen transaction's whole hash on the clipboard."""
        view = chosen_row(self.table)
        if view is not None:
            QGuiApplication.clipboard().setText(view.tx_hash)
            self.bridge.noticed.emit(self.tr("Copied {hash}").format(hash=fmt.short_hash(view.tx_hash)))

    def open_in_explorer(self) -> None:
        """Open the chosen transaction's page in the browser."""
        view = chosen_row(self.table)
        link = self._link(view) if view is not None else None
        if link is not None:
            QDesktopServices.openUrl(QUrl(link))

    def speed_up(self) -> None:
        """Offer a higher fee for the chosen claim."""
        view: TransactionView | None = chosen_row(self.table)
        if view is not None and self.bridge.node is not None:
            done = self.tr("Sent again with a higher fee: {hash}")
            self.bridge.run(
                self.bridge.node.speed_up(view.tx_hash),
                done=lambda made: self.bridge.noticed.emit(done.format(hash=fmt.short_hash(made))),
            )

    def _open_menu(self, position: QPoint) -> None:
        view = chosen_row(self.table)
        if view is None:
            return
        menu = QMenu(self.table)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self.tr("Copy hash"), self.copy_hash)
        opening = menu.addAction(self.tr("Open in explorer"), self.open_in_explorer)
        opening.setEnabled(self._link(view) is not None)
        menu.addAction(self.tr("Check this one now"), self.recheck)
        faster = menu.addAction(self.tr("Speed up"), self.speed_up)
        faster.setEnabled(_can_speed_up(view))
        for claim in view.claims:
            going = menu.addAction(self.tr("Show job {job}").format(job=fmt.short_job(claim.job_id)))
            wanted = str(claim.job_id)
            going.triggered.connect(lambda _checked=False, wanted=wanted: self.pageRequested.emit("jobs", wanted))
        menu.popup(self.table.viewport().mapToGlobal(position))

    def recheck(self) -> None:
        """Ask every endpoint for the chosen transaction, or look at the chain if none is chosen."""
        node, view = self.bridge.node, chosen_row(self.table)
        if node is None:
            return
        if view is None:
            done = self.tr("The chain was read again.")
            self.bridge.run(
                node.refresh_chain(), done=lambda _: self.bridge.noticed.emit(done), busy=self.recheck_button
            )
            return

        def tell(found: ChainTransaction) -> None:
            self.bridge.noticed.emit(f"{fmt.short_hash(view.tx_hash)}: {self._found(found)}")

        self.bridge.run(node.look_up(view.tx_hash), done=tell, busy=self.recheck_button)

    def _found(self, found: ChainTransaction) -> str:
        asked = self.tr("%n endpoint(s) answered", "", found.asked)
        if found.block is None:
            return self.tr("in no block that they know of; {asked}").format(asked=asked)
        said = (
            self.tr("in block {block}, {deep} deep")
            if found.succeeded
            else self.tr("reverted in block {block}, {deep} deep")
        )
        return f"{said.format(block=found.block, deep=fmt.count(found.deep))}; {asked}"

    def _export(self) -> None:
        save_text(self, self.tr("Save the transactions"), "fabstir-transactions.csv", self._all_as_csv, self.bridge)

    async def _all_as_csv(self) -> str:
        """Every transaction there is, whatever the page shows; written off the loop, because there may be very many."""
        node = self.bridge.node
        return await asyncio.to_thread(write_csv, await node.transactions() if node else [])


def _can_speed_up(view: TransactionView) -> bool:
    return view.kind in {"claim", "batch"} and view.state in {"signed", "sent"}


def write_csv(transactions: Iterable[TransactionView]) -> str:
    """Transactions as text: UTC times, exact integers, whole hashes."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["time_utc", "kind", "jobs", "tokens", "state", "nonce", "block", "gas_used", "fee_wei", "tx_hash", "error"]
    )
    for view in transactions:
        writer.writerow(
            [
                time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(view.created_at)),
                view.kind,
                " ".join(f"{claim.job_id}:{claim.start}-{claim.end}" for claim in view.claims),
                _or_blank(tokens_of(view)),
                view.state,
                view.nonce,
                _or_blank(view.block),
                _or_blank(view.gas_used),
                _or_blank(view.fee_wei),
                view.tx_hash,
                view.error or "",
            ]
        )
    return text.getvalue()


def _or_blank(value: int | None) -> int | str:
    return "" if value is None else value
