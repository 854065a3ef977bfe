"""The tray: a picture, a status line, and the few things one wants without opening the window.

Texts are changed in place, at most once a second, and never while nobody could see a difference. The menu is filled once:
desktops that mirror menus over D-Bus do not follow rebuilt ones. No amounts and no addresses stand in the tool tip.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtWidgets import QMenu, QSystemTrayIcon

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.status import NodeStatus, ServingState
from fabstir_desktop.jobs.views import EarningsPoint, JobView, TokenAmount
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui import icons
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.panel import PanelWatch
from fabstir_desktop.ui.reasons import claim_refusal, ready_to_claim, submit_all_refusal
from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.strip import pause_choices
from fabstir_desktop.ui.words import TrayShape, serving_word, severity_word, tray_shape

JOBS_SHOWN = 5
_UPDATE_MS = 1000
_ONE_CLICK_S = 0.4
"""A double click arrives as a click and a double click; the second half within this time is no other wish."""
_TODAY_EVERY_S = 30.0
_MESSAGE_MS = 10_000
_DAY_S = 86_400
_LINE_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Line:
    """A menu line as it should look."""

    text: str
    is_enabled: bool = True
    is_visible: bool = True


class Tray(QObject):
    """Icon and menu."""

    openRequested = Signal()
    toggleRequested = Signal()
    """The icon was clicked: open the window, or put it away."""
    pageRequested = Signal(str, str)
    submitRequested = Signal(object)
    pauseRequested = Signal(str)
    resumeRequested = Signal()
    quitRequested = Signal()

    def __init__(self, bridge: Bridge, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._bridge = bridge
        self._shape: TrayShape | None = None
        self._job_ids: list[int | None] = [None] * JOBS_SHOWN
        self._clicked_at = 0.0
        self._today_read_at: float | None = None
        self._today = ""
        self.scheme = "auto"
        """`light` or `dark` for panels that are not in the desktop's scheme."""
        self.shows_amounts = True
        self.is_kept_awake: Callable[[], bool] = lambda: False
        self.menu = QMenu()
        self.icon = QSystemTrayIcon(self)
        self._fill_menu()
        self.icon.setContextMenu(self.menu)
        self.icon.activated.connect(self._activate)
        self._timer = QTimer(self)
        self._timer.setInterval(_UPDATE_MS)
        self._timer.timeout.connect(self.update)
        self.panel = PanelWatch(self)
        self.panel.appeared.connect(self._show_in_panel)
        QGuiApplication.styleHints().colorSchemeChanged.connect(self.repaint)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Show the icon, now or when a panel appears."""
        self.update()
        self.icon.show()
        self.icon.setToolTip(self.tooltip())
        self._timer.start()
        self.panel.start()

    def stop(self) -> None:
        """Take the icon away."""
        self._timer.stop()
        self.panel.stop()
        self.icon.hide()

    @property
    def is_available(self) -> bool:
        """Whether a panel shows the icon. (`isVisible` would be true even if nothing did.)"""
        return QSystemTrayIcon.isSystemTrayAvailable()

    def _show_in_panel(self) -> None:
        """A panel that came, or came back: it is given the icon anew, with a tool tip set after it is shown."""
        self.icon.hide()
        self.icon.show()
        self.icon.setToolTip("")
        self.icon.setToolTip(self.tooltip())

    def _activate(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if sys.platform == "darwin":
            return  # a click opens the menu there
        now = time.monotonic()
        is_click = reason in {QSystemTrayIcon.ActivationReason.Trigger, QSystemTrayIcon.ActivationReason.DoubleClick}
        if is_click and now - self._clicked_at > _ONE_CLICK_S:
            self._clicked_at = now
            self.toggleRequested.emit()

    def repaint(self) -> None:
        """The scheme has changed: draw the icon in its tints."""
        self._shape = None
        self.update()

    def tell(self, text: str) -> None:
        """Show a notification beside the icon."""
        self.icon.showMessage(self.tr("Fabstir host"), text, icons.app_icon(), _MESSAGE_MS)

    # --- the menu -----------------------------------------------------------------------------------------------------

    def _fill_menu(self) -> None:
        self.head = self._add("")
        self.network = self._add("")
        self.problem = self._add("", self._open_problem)
        self.menu.addSeparator()
        self.open = self._add(self.tr("Open window"), self.openRequested.emit)
        self.open_logs = self._add(self.tr("Open logs"), partial(self.pageRequested.emit, "logs", ""))
        self.menu.addSeparator()
        self.submit = self._add("", partial(self.submitRequested.emit, None))
        self.submit_reason = self._add("")
        self.job_lines = [self._add("", partial(self._submit_job, place)) for place in range(JOBS_SHOWN)]
        self.more_jobs = self._add("", partial(self.pageRequested.emit, "jobs", "unclaimed"))
        self.today = self._add("")
        self.awake = self._add("")
        self.menu.addSeparator()
        self.pause_menu = self.menu.addMenu(self.tr("Pause serving"))
        for text, how in pause_choices():
            self.pause_menu.addAction(text, partial(self.pauseRequested.emit, how))
        self.resume = self._add(self.tr("Resume serving"), self.resumeRequested.emit)
        self.menu.addSeparator()
        self.quit = self._add(self.tr("Quit and stop serving…"), self.quitRequested.emit)

    def _add(self, text: str, do: Callable[[], object] | None = None) -> QAction:
        action = QAction(text, self.menu)
        action.setEnabled(do is not None)
        if do is not None:
            action.triggered.connect(lambda _checked=False: do())
        self.menu.addAction(action)
        return action

    def update(self) -> None:
        """Bring icon, tool tip and menu up to date, touching only what changed."""
        status, problems = self._bridge.status, self._bridge.problems
        shape = tray_shape(status, problems)
        if shape is not self._shape:
            self._shape = shape
            self.icon.setIcon(icons.tray_icon(shape, dark_panel=self._is_panel_dark()))
        if self.icon.toolTip() != self.tooltip():
            self.icon.setToolTip(self.tooltip())
        if self.menu.isVisible():
            return  # a line that came or went would move another one under the hand that is about to click
        _write(self.head, Line(self.tooltip(), is_enabled=False))
        _write(self.network, self._network_line(status))
        _write(self.problem, self._problem_line(problems))
        self._write_jobs(status)
        self._write_today(status)
        self._write_pause(status)

    def _is_panel_dark(self) -> bool:
        if self.scheme in {"light", "dark"}:
            return self.scheme == "dark"
        return QGuiApplication.styleHints().colorScheme() is not Qt.ColorScheme.Light

    @property
    def shape(self) -> TrayShape | None:
        """The shape shown now."""
        return self._shape

    def tooltip(self) -> str:
        """State and number of running requests, nothing private."""
        status = self._bridge.status
        word = serving_word(status)
        running = status.server.active_requests if status else 0
        if not running:
            return self.tr("Fabstir host – {state}").format(state=word)
        requests = self.tr("%n request(s) running", "", running)
        return self.tr("Fabstir host – {state}, {requests}").format(state=word, requests=requests)

    def _network_line(self, status: NodeStatus | None) -> Line:
        if status is None or not (status.chain.is_testnet or status.demo):
            return Line("", is_enabled=False, is_visible=False)
        if status.demo:
            return Line(self.tr("DEMO · no monetary value"), is_enabled=False)
        return Line(self.tr("TESTNET · {chain}").format(chain=status.chain.chain_name), is_enabled=False)

    def _problem_line(self, problems: tuple[Problem, ...]) -> Line:
        worst = next((problem for problem in problems if problem.severity > Severity.INFORMATION), None)
        if worst is None:
            return Line("", is_visible=False)
        text = say(worst.message)
        if len(text) > _LINE_CHARACTERS:  # a menu is as wide as its longest line
            text = text[:_LINE_CHARACTERS].rsplit(" ", 1)[0] + "…"
        return Line(f"{severity_word(worst.severity)} {worst.code}: {text}")

    def _open_problem(self) -> None:
        for problem in self._bridge.problems:
            self.pageRequested.emit(problem.page or "dashboard", problem.subject)
            return

    # --- claims -------------------------------------------------------------------------------------------------------

    def _write_jobs(self, status: NodeStatus | None) -> None:
        waiting = self._bridge.waiting
        reason = submit_all_refusal(waiting, status)
        ready = ready_to_claim(waiting, status)
        text = self.tr("Submit checkpoints now")
        _write(self.submit, Line(f"{text} ({ready})" if ready else text, is_enabled=reason is None))
        _write(self.submit_reason, Line(reason or "", is_enabled=False, is_visible=reason is not None))
        shown = waiting.largest(JOBS_SHOWN)
        for place, action in enumerate(self.job_lines):
            job = shown[place] if place < len(shown) else None
            self._job_ids[place] = job.job_id if job else None
            _write(action, self._job_line(job, status))
        more = len(waiting) - JOBS_SHOWN
        _write(self.more_jobs, Line(self.tr("… and {more} more jobs").format(more=more), is_visible=more > 0))

    def _job_line(self, job: JobView | None, status: NodeStatus | None) -> Line:
        if job is None:
            return Line("", is_visible=False)
        text = self.tr("Submit job {job}: {unclaimed} of {generated} tokens unclaimed").format(
            job=fmt.short_job(job.job_id), unclaimed=fmt.count(job.unclaimed), generated=fmt.count(job.generated)
        )
        return Line(text, is_enabled=claim_refusal(job, status) is None)

    def _submit_job(self, place: int) -> None:
        job_id = self._job_ids[place]
        if job_id is not None:
            self.submitRequested.emit(job_id)

    # --- today --------------------------------------------------------------------------------------------------------

    def _write_today(self, status: NodeStatus | None) -> None:
        self._read_today()
        is_told = self.shows_amounts and bool(self._today)
        _write(self.today, Line(self._today, is_enabled=False, is_visible=is_told))
        running = status.server.active_requests if status else 0
        told = self.tr("Keeping the computer awake: %n request(s) running", "", running)
        _write(self.awake, Line(told, is_enabled=False, is_visible=bool(running) and self.is_kept_awake()))

    def _read_today(self) -> None:
        """What was settled since midnight, asked for twice a minute: the menu is a glance, not a meter."""
        node, now = self._bridge.node, time.monotonic()
        is_fresh = self._today_read_at is not None and now - self._today_read_at < _TODAY_EVERY_S
        if node is None or not self.shows_amounts or is_fresh:
            return
        self._today_read_at = now
        midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        work = node.earnings_series(since=midnight, bucket_seconds=_DAY_S)
        self._bridge.run(work, done=self._take_today, failed=lambda _: None)

    def _take_today(self, points: list[EarningsPoint]) -> None:
        total: dict[str, int] = {}
        for point in points:
            for amount in point.earned:
                total[amount.token] = total.get(amount.token, 0) + amount.amount
        amounts = [TokenAmount(token, value) for token, value in sorted(total.items())]
        self._today = self.tr("Today: {amounts} settled").format(amounts=fmt.amounts(amounts)) if amounts else ""

    # --- pausing ------------------------------------------------------------------------------------------------------

    def _write_pause(self, status: NodeStatus | None) -> None:
        state = status.state if status else None
        can_resume = state in {ServingState.PAUSED, ServingState.DRAINING}
        pausing = self.pause_menu.menuAction()
        _write(pausing, Line(pausing.text(), state is ServingState.SERVING, not can_resume))
        _write(self.resume, Line(self.resume.text(), is_visible=can_resume))


def _write(action: QAction, line: Line) -> None:
    text = line.text.replace("&", "&&")
    if action.text() != text:
        action.setText(text)
    if action.isEnabled() != line.is_enabled:
        action.setEnabled(line.is_enabled)
    if action.isVisible() != line.is_visible:
        action.setVisible(line.is_visible)
