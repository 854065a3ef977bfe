"""The jobs: live counts, and a drawer with everything about the chosen one."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QButtonGroup, QLineEdit, QSizePolicy, QSplitter, QStackedWidget

from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.jobs.views import JobView
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.models.jobs_table import JobsModel
from fabstir_desktop.ui.models.sorting import ValueSortProxy
from fabstir_desktop.ui.pages.job_drawer import JobDrawer
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.reasons import submit_all_refusal
from fabstir_desktop.ui.widgets.basics import EmptyState, button, label, set_text
from fabstir_desktop.ui.widgets.flow import Flow, flow
from fabstir_desktop.ui.widgets.tables import choose_row, chosen_row, make_table, sort_newest_first

_RUNNING = frozenset({"running", "claiming", "closing"})

_FILTERS: dict[str, Callable[[JobView], bool]] = {
    "all": lambda _: True,
    "running": lambda job: job.state in _RUNNING,
    "unclaimed": lambda job: job.unclaimed > 0,
    "paid": lambda job: job.settled > 0,
    "problem": lambda job: job.state == "claim_failed" or bool(job.note),
}


class JobsPage(Page):
    """All jobs this host has served."""

    submitRequested = Signal()
    submitJobRequested = Signal(object)

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge)
        self._filter = "all"
        self._selected: int | None = None
        self.submit_button = button(
            self.tr("Submit checkpoints now"), self.submitRequested.emit, kind="primary", icon="checkpoint"
        )
        self.submit_reason = label("", "muted", wrap=True)
        layout = self.lay_out(self.tr("Jobs"), self.submit_reason, self.submit_button)
        self.model = JobsModel(self)
        self.proxy = ValueSortProxy(self)
        self.proxy.setSourceModel(self.model)
        self.table = make_table(self.proxy, self.tr("Jobs"), (11, 13, 7, 7, 7, 7, 6, 12, 13), stretch=7)
        sort_newest_first(self.table, JobsModel.JOB)  # a key that does not change: rows stay where they are
        self.drawer = JobDrawer(bridge)
        self.drawer.submitRequested.connect(self.submitJobRequested)
        self.drawer.closed.connect(self._close_drawer)
        self.drawer.transactionRequested.connect(lambda tx_hash: self.pageRequested.emit("transactions", tx_hash))
        self.drawer.setVisible(False)
        layout.addLayout(self._make_filters())
        layout.addWidget(self._make_body(), 1)
        self._connect(bridge)

    def _connect(self, bridge: Bridge) -> None:
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._choose())
        bridge.jobsReplaced.connect(self._replace_jobs)
        bridge.jobsChanged.connect(self._change_jobs)
        bridge.ratesChanged.connect(self.model.show_rates)
        bridge.journalChanged.connect(self.drawer.refresh_if_about)
        bridge.tick.connect(self.drawer.grow_older)
        bridge.statusChanged.connect(self._show_status)
        self._replace_jobs(bridge.job_by_id)
        self._show_status(bridge.status)

    def _make_filters(self) -> Flow:
        names = {
            "all": self.tr("All"),
            "running": self.tr("Running"),
            "unclaimed": self.tr("Unclaimed"),
            "paid": self.tr("Paid"),
            "problem": self.tr("With a problem"),
        }
        self._filter_buttons = QButtonGroup(self)
        line = flow(spacing=6)
        self.button_by_filter = {}
        for name, text in names.items():
            made = button(text)
            made.setCheckable(True)
            made.setChecked(name == "all")
            made.clicked.connect(lambda _checked=False, name=name: self.choose_filter(name))
            self._filter_buttons.addButton(made)
            self.button_by_filter[name] = made
            line.addWidget(made)
        line.add_spring()
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Find a job or session"))
        self.search.setAccessibleName(self.search.placeholderText())
        self.search.setClearButtonEnabled(True)
        self.search.setMinimumWidth(self.fontMetrics().averageCharWidth() * 28)
        self.search.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.search.textChanged.connect(lambda _: self._apply_filter())
        line.addWidget(self.search)
        return line

    def _make_body(self) -> QStackedWidget:
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.addWidget(self.table)
        self.splitter.addWidget(self.drawer)
        self.splitter.setStretchFactor(0, 1)
        self.splitter.setStretchFactor(1, 0)
        self.splitter.setHandleWidth(10)
        self.splitter.setChildrenCollapsible(False)
        self.empty = EmptyState(
            "jobs",
            self.tr("No jobs yet"),
            self.tr(
                "When a customer's prompt comes in, its job appears here with every token counted. "
                "Nothing needs doing: the host is found through its address."
            ),
        )
        self.body = QStackedWidget()
        self.body.addWidget(self.empty)
        self.body.addWidget(self.splitter)
        return self.body

    # --- showing ------------------------------------------------------------------------------------------------------

    def _replace_jobs(self, job_by_id: dict[int, JobView]) -> None:
        self.model.show(job_by_id)
        self._after_change()

    def _change_jobs(self, changed: dict[int, JobView]) -> None:
        self.model.update(changed)
        self._after_change()

    def _after_change(self) -> None:
        self.body.setCurrentIndex(1 if self.model.rowCount() else 0)
        if self._selected is not None:
            self.drawer.show_job(self.model.row(self._selected))

    def _show_status(self, status: NodeStatus | None) -> None:
        reason = submit_all_refusal(self.bridge.waiting, status)
        self.submit_button.setEnabled(reason is None)
        set_text(self.submit_reason, reason or "")

    # --- choosing -----------------------------------------------------------------------------------------------------

    def open_with(self, wanted: str) -> None:
        """Show a filter by its name, or a job by its id."""
        if wanted in _FILTERS:
            self.choose_filter(wanted)
        elif wanted.isdecimal():
            self.show_job(int(wanted))

    def choose_filter(self, name: str) -> None:
        """Show only the jobs of this filter."""
        self._filter = name
        self.button_by_filter[name].setChecked(True)
        self._apply_filter()

    def show_job(self, job_id: int) -> None:
        """Select the job and open its drawer."""
        self.search.clear()
        self.choose_filter("all")
        choose_row(self.table, self.model.index_of(job_id))

    def _apply_filter(self) -> None:
        accepts, text = _FILTERS[self._filter], self.search.text().strip().lower()
        self.proxy.choose(
            lambda job: accepts(job) and (not text or text in str(job.job_id) or text in job.session_id.lower())
        )

    def _choose(self) -> None:
        job = chosen_row(self.table)
        self._selected = job.job_id if job is not None else None
        self.drawer.setVisible(job is not None)
        if job is not None:
            self.drawer.show_job(job)

    def _close_drawer(self) -> None:
        self.table.clearSelection()
        self.table.setFocus()
