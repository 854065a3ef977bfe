"""Everything about one job: counts, its claims, what happened when, and the claim button with its reason."""

from __future__ import annotations

import time

import shiboken6
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QFrame, QGridLayout, QLabel, QListWidget, QTabWidget, QVBoxLayout, QWidget

from fabstir_desktop.jobs.inspections import ChainJob
from fabstir_desktop.jobs.views import ClaimView, JobView
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.pages.job_claims import JobClaims
from fabstir_desktop.ui.reasons import claim_refusal
from fabstir_desktop.ui.widgets.basics import (
    CopyField,
    button,
    column,
    icon_button,
    label,
    row,
    rule,
    scroll_page,
    set_text,
    set_tone,
)
from fabstir_desktop.ui.widgets.flow import flow, together
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import Tone, job_tone, job_word

_CHAIN_AGE_S = 30.0
_SIDE_BY_SIDE = 100
"""Characters."""


class JobDrawer(QFrame):
    """The detail of the selected job."""

    submitRequested = Signal(object)
    closed = Signal()
    transactionRequested = Signal(str)
    """By its hash."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.setObjectName("drawer")
        self._bridge = bridge
        self._job: JobView | None = None
        self._lines: list[tuple[float, str]] = []
        self._chain: ChainJob | None = None
        self._is_asking = False
        self._asked: int | None = None
        self._lamp = Lamp(scale=1.2)
        self.state = label("", "title")
        self.note = label("", wrap=True, selectable=True)
        self.job_id = CopyField(self.tr("job id"), lambda text: fmt.short_job(int(text)))
        self.session = CopyField(self.tr("session id"), lambda text: text if len(text) < 28 else f"{text[:25]}…")
        self.submit_button = button(self.tr("Submit checkpoint"), self._submit, kind="primary", icon="checkpoint")
        self.submit_reason = label("", "muted", wrap=True)
        copy = button(self.tr("Copy details"), self._copy, icon="copy")
        close = icon_button("close", self.tr("Close the details"), self.closed.emit)
        content = QWidget()
        self._area = scroll_page(content)
        self._area.setAccessibleName(self.tr("Details of the job"))
        content.setObjectName("details")
        self._area.setMinimumHeight(self.fontMetrics().height() * 14)
        layout = QVBoxLayout(content)
        layout.setContentsMargins(17, 9, 11, 11)
        layout.setSpacing(8)
        state = together(self._lamp, self.state)
        head = row()
        head.addLayout(flow(state, self.note, None, self.submit_reason, self.submit_button, copy), 1)
        head.addWidget(close, 0, Qt.AlignmentFlag.AlignTop)
        layout.addLayout(head)
        layout.addWidget(rule())
        self._body = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._body.setSpacing(24)
        self._body.addWidget(self._make_counts(), 2)
        self._body.addWidget(self._make_tabs(), 3)
        layout.addLayout(self._body, 1)
        outer = column(self._area, spacing=0)
        outer.setContentsMargins(1, 1, 1, 1)
        self.setLayout(outer)

    def _make_tabs(self) -> QTabWidget:
        self.timeline = QListWidget()
        self.timeline.setFrameShape(QFrame.Shape.NoFrame)
        self.timeline.setWordWrap(True)
        self.timeline.setMinimumHeight(self.fontMetrics().height() * 6)
        self.timeline.setSpacing(1)
        self.timeline.setAccessibleName(self.tr("What happened to this job, newest first"))
        self.timeline.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.claims = JobClaims(self._bridge)
        self.claims.transactionRequested.connect(self.transactionRequested)
        tabs = QTabWidget()
        tabs.setDocumentMode(True)
        tabs.setAccessibleName(self.tr("What happened to this job, and its claims"))
        tabs.addTab(self.timeline, self.tr("What happened"))
        tabs.addTab(self.claims, self.tr("Claims"))
        return tabs

    def _make_counts(self) -> QWidget:
        counts = QWidget()
        grid = QGridLayout(counts)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(18)
        grid.setVerticalSpacing(5)
        self.values: dict[str, QLabel] = {}
        grid.addWidget(label(self.tr("Job"), "muted"), 0, 0)
        grid.addWidget(self.job_id, 0, 1)
        grid.addWidget(label(self.tr("Session"), "muted"), 1, 0)
        grid.addWidget(self.session, 1, 1)
        names = {
            "generated": self.tr("Generated here"),
            "claimed": self.tr("Claimed"),
            "proven": self.tr("Proven on chain"),
            "settled": self.tr("Settled"),
            "unclaimed": self.tr("Unclaimed"),
            "earned": self.tr("Earned"),
            "chain": self.tr("Local against chain"),
            "created": self.tr("First seen"),
        }
        for place, (name, text) in enumerate(names.items(), start=2):
            self.values[name] = label("", wrap=True, selectable=True)
            grid.addWidget(label(text, "muted"), place, 0)
            grid.addWidget(self.values[name], place, 1)
        grid.setColumnStretch(1, 1)
        grid.setRowStretch(len(names) + 2, 1)
        return counts

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Put the claims below the counts where both have no room side by side."""
        super().resizeEvent(event)
        is_narrow = self.width() < self.fontMetrics().averageCharWidth() * _SIDE_BY_SIDE
        way = QBoxLayout.Direction.TopToBottom if is_narrow else QBoxLayout.Direction.LeftToRight
        if self._body.direction() != way:
            self._body.setDirection(way)

    def show_job(self, job: JobView | None) -> None:
        """Show this job; another job's timeline is read anew."""
        if job is None:
            return
        is_other = self._job is None or self._job.job_id != job.job_id
        self._job = job
        word = job_word(job.state)
        self._lamp.show_tone(job_tone(job.state), word)
        set_text(self.state, word)
        self.job_id.show_value(str(job.job_id))
        self.session.show_value(job.session_id)
        for name in ("generated", "claimed", "proven", "settled", "unclaimed"):
            set_text(self.values[name], fmt.count(getattr(job, name)))
        earned = fmt.amounts(job.earned, exact=True)
        if job.pending:
            earned = self.tr("{earned}, of which {pending} pending").format(
                earned=earned, pending=fmt.amounts(job.pending, exact=True)
            )
        set_text(self.values["earned"], earned)
        set_text(self.values["created"], fmt.full_time(job.created_at))
        set_text(self.note, job.note)
        self.note.setVisible(bool(job.note))
        reason = claim_refusal(job, self._bridge.status)
        self.submit_button.setEnabled(reason is None)
        claimed = self.tr("Claims {tokens} tokens now.").format(tokens=fmt.count(job.unclaimed))
        set_text(self.submit_reason, reason or claimed)
        if is_other:
            self.timeline.clear()
            self.claims.show_claims([])
            self._chain = None
            self._read_journal()
            self._ask_chain()
        self._show_chain()

    def grow_older(self) -> None:
        """Another second has passed: the comparison with the chain has an age, and is made anew when it is old."""
        if self._job is None or not self.isVisible():
            return
        if self._chain is not None and time.time() - self._chain.read_at > _CHAIN_AGE_S:
            self._ask_chain()
        self._show_chain()

    def _ask_chain(self) -> None:
        node, job = self._bridge.node, self._job
        if node is None or job is None or self._is_asking:
            return
        self._is_asking, self._asked = True, job.job_id
        self._bridge.run(node.chain_job(job.job_id), done=self._take_chain).add_done_callback(self._end_asking)

    def _take_chain(self, found: ChainJob) -> None:
        if self._job is not None and self._job.job_id == found.job_id:
            self._chain = found
            self._show_chain()

    def _end_asking(self, _: object) -> None:
        if not shiboken6.isValid(self):
            return
        self._is_asking = False
        if self._chain is None and self._job is not None and self.isVisible() and self._asked != self._job.job_id:
            self._ask_chain()  # another job was opened meanwhile

    def _show_chain(self) -> None:
        job, found = self._job, self._chain
        if job is None:
            return
        tone, text = Tone.QUIET, fmt.UNKNOWN
        if found is not None and found.tokens is None:
            text = self.tr("unknown: {why}, asked {age}").format(why=found.why, age=fmt.age(found.read_at))
        elif found is not None and found.tokens is not None:
            tone, word = self._compare(job, found.tokens)
            text = self.tr("local {local} / chain {chain}: {word}, checked {age}").format(
                local=fmt.count(job.claimed), chain=fmt.count(found.tokens), word=word, age=fmt.age(found.read_at)
            )
        set_text(self.values["chain"], text)
        set_tone(self.values["chain"], tone)

    def _compare(self, job: JobView, tokens: int) -> tuple[Tone, str]:
        if tokens == job.claimed:
            return Tone.OK, self.tr("matches")
        if job.proven <= tokens < job.claimed:
            return Tone.BUSY, self.tr("{tokens} on their way").format(tokens=fmt.count(job.claimed - tokens))
        return Tone.WARNING, self.tr("differs")

    def refresh_if_about(self, job_ids: set[int]) -> None:
        """Read the timeline again if the job shown is among these."""
        if self._job is not None and self._job.job_id in job_ids and self.isVisible():
            self._read_journal()

    def _read_journal(self) -> None:
        node, job = self._bridge.node, self._job
        if node is None or job is None:
            return

        def show(lines: list[tuple[float, str]]) -> None:
            if self._job is not None and self._job.job_id == job.job_id:
                self._show_lines(lines)

        def show_claims(claims: list[ClaimView]) -> None:
            if self._job is not None and self._job.job_id == job.job_id:
                self.claims.show_claims(claims)

        self._bridge.run(node.journal(job.job_id), done=show)
        self._bridge.run(node.claims(job.job_id), done=show_claims)

    def _show_lines(self, lines: list[tuple[float, str]]) -> None:
        if lines == self._lines and self.timeline.count() == len(lines):
            return
        self._lines = lines
        texts = [f"{fmt.clock(when)}   {sentence}" for when, sentence in lines]
        for place, text in enumerate(texts):
            if place < self.timeline.count():
                self.timeline.item(place).setText(text)
            else:
                self.timeline.addItem(text)
        while self.timeline.count() > len(texts):
            self.timeline.takeItem(self.timeline.count() - 1)

    def _submit(self) -> None:
        if self._job is not None:
            self.submitRequested.emit(self._job.job_id)

    def _copy(self) -> None:
        job = self._job
        if job is None:
            return
        lines = [
            f"job_id {job.job_id}",
            f"session_id {job.session_id}",
            f"state {job.state}",
            f"generated {job.generated} claimed {job.claimed} proven {job.proven} settled {job.settled}",
            f"earned {fmt.amounts(job.earned, exact=True)}",
            *(f"{fmt.full_time(when)} {sentence}" for when, sentence in self._lines),
        ]
        QGuiApplication.clipboard().setText("\n".join(lines))
