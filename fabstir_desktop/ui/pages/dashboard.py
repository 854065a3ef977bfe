"""The dashboard: earning or not, what was earned, what needs doing; then the ladder and the plot."""

from __future__ import annotations

import time

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QButtonGroup, QPushButton, QWidget

from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.status import NodeStatus, ServingState
from fabstir_desktop.jobs.views import EarningsPoint, EarningsView, without
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.files import save_text
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.reasons import submit_all_refusal
from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.widgets.basics import Card, ElidedLabel, button, label, row, set_text, set_tone
from fabstir_desktop.ui.widgets.earnings_plot import EarningsPlot
from fabstir_desktop.ui.widgets.flow import flow, tiles
from fabstir_desktop.ui.widgets.ladder import Ladder
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import Tone, serving_word, severity_tone, shape_tone, tray_shape

_DAY_S = 86_400
_RANGES = (("24h", _DAY_S, 3600), ("7d", 7 * _DAY_S, _DAY_S), ("30d", 30 * _DAY_S, _DAY_S), ("all", 0, 0))
_BARS = 90
_SERIES_EVERY_S = 5.0


class Tile(Card):
    """One of the three big answers."""

    def __init__(self, title: str, on_click: object = None) -> None:
        super().__init__(title, on_click if callable(on_click) else None)
        self.lamp = Lamp(scale=1.8)
        self.value = label("", "hero")
        self.detail = ElidedLabel("muted")
        line = row(self.lamp, self.value, None, spacing=10)
        self.body.addLayout(line)
        self.body.addWidget(self.detail)

    def show_answer(self, tone: Tone | None, value: str, detail: str) -> None:
        """Show the answer; without a tone there is no lamp."""
        self.lamp.setVisible(tone is not None)
        if tone is not None:
            self.lamp.show_tone(tone, value)
        set_text(self.value, value)
        self.detail.show_text(detail)
        self.setAccessibleName(f"{self.title.text()}: {value}. {detail}")


class DashboardPage(Page):
    """Everything at a glance."""

    submitRequested = Signal()

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge)
        self._series_read_at = 0.0
        self._range = 0
        layout = self.lay_out(self.tr("Dashboard"))
        self.now = Tile(self.tr("EARNING NOW?"), lambda: self.pageRequested.emit("jobs", ""))
        self.earned = Tile(self.tr("EARNED"), lambda: self.pageRequested.emit("transactions", ""))
        self.todo = Tile(self.tr("TO DO"), self._go_to_worst)
        least = self.fontMetrics().averageCharWidth() * 34
        layout.addLayout(tiles(self.now, self.earned, self.todo, spacing=12, least=least))
        layout.addWidget(self._make_ladder())
        layout.addWidget(self._make_plot(), 1)
        bridge.statusChanged.connect(self._show_status)
        bridge.problemsChanged.connect(lambda _: self._show_todo())
        bridge.earningsChanged.connect(self._show_earnings)
        bridge.tick.connect(self._read_series_if_due)
        self._show_status(bridge.status)
        self._show_earnings(bridge.earnings)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _make_ladder(self) -> Card:
        card = Card()
        self.submit_button = button(self.tr("Submit checkpoints now"), self.submitRequested.emit, icon="checkpoint")
        self.submit_reason = label("", "muted", wrap=True)
        self.ladder = Ladder()
        self.ladder.rungChosen.connect(self._open_rung)
        card.body.addLayout(
            flow(label(self.tr("From token to money"), "title"), None, self.submit_reason, self.submit_button)
        )
        card.body.addWidget(self.ladder)
        return card

    def _make_plot(self) -> Card:
        card = Card()
        self.plot = EarningsPlot()
        self._range_buttons = QButtonGroup(self)
        names = {"24h": self.tr("24 hours"), "7d": self.tr("7 days"), "30d": self.tr("30 days"), "all": self.tr("All")}
        buttons: list[QWidget] = []
        for place, (name, _, _) in enumerate(_RANGES):
            made = _checkable(names[name])
            made.setChecked(place == 0)
            self._range_buttons.addButton(made, place)
            buttons.append(made)
        self._range_buttons.idClicked.connect(self._choose_range)
        self.table_button = _checkable(self.tr("As table"))
        self.table_button.toggled.connect(self.plot.show_table)
        export = button(self.tr("Save as CSV…"), self._export)
        card.body.addLayout(
            flow(label(self.tr("Tokens over time"), "title"), None, *buttons, self.table_button, export)
        )
        card.body.addWidget(self.plot, 1)
        return card

    # --- showing ------------------------------------------------------------------------------------------------------

    def _show_status(self, status: NodeStatus | None) -> None:
        tone = shape_tone(tray_shape(status, self.bridge.problems))
        word, detail = self._activity(status)
        self.now.show_answer(tone, word, detail)
        self._show_todo()
        reason = submit_all_refusal(self.bridge.waiting, status)
        self.submit_button.setEnabled(reason is None)
        set_text(self.submit_reason, reason or "")
        if self._series_read_at == 0.0:
            self._read_series_if_due()

    def _activity(self, status: NodeStatus | None) -> tuple[str, str]:
        """The answer to "earning now?", and a line about it."""
        if status is None:
            return serving_word(None), self.tr("The host is starting.")
        stopping = next((problem for problem in self.bridge.problems if problem.severity is Severity.ERROR), None)
        if stopping is not None:
            return self.tr("No"), say(stopping.message)
        if status.server.active_requests:
            return self._busy(status)
        if status.engine.state is EngineState.LOADING:
            return self.tr("Soon"), say(status.sentence)
        return (self.tr("Ready") if status.state is ServingState.SERVING else serving_word(status)), say(
            status.sentence
        )

    def _busy(self, status: NodeStatus) -> tuple[str, str]:
        running = status.server.active_requests
        if not status.chain.submitting:
            return self.tr("Counting only"), self.tr("{count} running · nothing is claimed yet").format(count=running)
        model = status.engine.model.name if status.engine.model else fmt.UNKNOWN
        rate = fmt.rate(status.engine.tokens_per_second)
        pace = (
            self.tr("waiting for the next token")
            if rate == fmt.UNKNOWN
            else self.tr("{rate} tokens/s").format(rate=rate)
        )
        return self.tr("Yes"), self.tr("{count} running · {pace} · {model}").format(
            count=running, pace=pace, model=model
        )

    def _show_todo(self) -> None:
        problems = [problem for problem in self.bridge.problems if problem.severity > Severity.INFORMATION]
        if self.bridge.status is None:
            self.todo.show_answer(Tone.QUIET, fmt.UNKNOWN, self.tr("Looking at model, key and chain."))
        elif not problems:
            self.todo.show_answer(Tone.OK, self.tr("Nothing"), self.tr("Model, key and chain are in order."))
        else:
            worst: Problem = problems[0]
            count = self.tr("%n problem(s)", "", len(problems))
            self.todo.show_answer(severity_tone(worst.severity), count, say(worst.action or worst.message))

    def _show_earnings(self, earnings: EarningsView | None) -> None:
        status = self.bridge.status
        self.ladder.show_earnings(earnings, status)
        if earnings is None:
            self.earned.show_answer(None, fmt.UNKNOWN, self.tr("Not read yet."))
            return
        counted = without(earnings.earned, earnings.pending)
        amount = fmt.amounts(counted) if counted else self.tr("Nothing yet")
        spent = self.tr("for {tokens} tokens · gas {gas}").format(
            tokens=fmt.count(earnings.settled), gas=fmt.wei(earnings.gas_wei)
        )
        if earnings.pending:
            spent = self.tr("and {amounts} pending · gas {gas}").format(
                amounts=fmt.amounts(earnings.pending), gas=fmt.wei(earnings.gas_wei)
            )
        self.earned.show_answer(None, amount, spent)
        self.earned.value.setToolTip(fmt.amounts(counted, exact=True))
        self.earned.setToolTip(self._exactly(earnings))
        set_tone(self.earned.value, Tone.OK if counted else Tone.QUIET)

    def _exactly(self, earnings: EarningsView) -> str:
        gas = self.tr("gas {gas}").format(gas=fmt.wei(earnings.gas_wei, exact=True))
        if not earnings.pending:
            return gas
        pending = self.tr("{amounts} were paid in blocks that are not yet deep enough to count as earned.").format(
            amounts=fmt.amounts(earnings.pending, exact=True)
        )
        return f"{pending}\n{gas}"

    # --- the series ---------------------------------------------------------------------------------------------------

    def _choose_range(self, place: int) -> None:
        self._range = place
        self._series_read_at = 0.0
        self._read_series_if_due()

    def _read_series_if_due(self) -> None:
        node, now = self.bridge.node, time.monotonic()
        if node is None or not self.isVisible() or now - self._series_read_at < _SERIES_EVERY_S:
            return
        self._series_read_at = now
        _, span_s, bucket_s = _RANGES[self._range]
        if not span_s:
            span_s, bucket_s = self._whole_span()
        since = (time.time() // bucket_s + 1) * bucket_s - span_s

        def show(points: list[EarningsPoint]) -> None:
            self.plot.show_points(points, bucket_s)

        self.bridge.run(node.earnings_series(since=since, bucket_seconds=bucket_s), done=show)

    def _whole_span(self) -> tuple[int, int]:
        """Since the first job, in bars of so many days that they can still be told apart."""
        first = min((job.created_at for job in self.bridge.job_by_id.values()), default=time.time())
        days = int((time.time() - first) // _DAY_S) + 2
        bucket_s = -(-days // _BARS) * _DAY_S
        return -(-days * _DAY_S // bucket_s) * bucket_s, bucket_s

    def _export(self) -> None:
        save_text(self, self.tr("Save the series"), "fabstir-earnings.csv", self.plot.as_csv(), self.bridge)

    # --- links --------------------------------------------------------------------------------------------------------

    def _open_rung(self, rung: str) -> None:
        page, wanted = {
            "generated": ("jobs", "all"),
            "claimed": ("transactions", "claimed"),
            "proven": ("transactions", "confirmed"),
            "settled": ("jobs", "paid"),
            "withdrawn": ("transactions", "confirmed" if self.ladder.pays_directly else "withdrawals"),
        }[rung]
        self.pageRequested.emit(page, wanted)

    def _go_to_worst(self) -> None:
        for problem in self.bridge.problems:
            if problem.page:
                self.pageRequested.emit(problem.page, problem.subject)
                return


def _checkable(text: str) -> QPushButton:
    made = button(text)
    made.setCheckable(True)
    return made
