"""The window: strip, rail, problems, page, footer. Everything the app can do is reachable here; the tray is a convenience."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSettings, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QCloseEvent, QKeySequence, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMainWindow,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.states import state_of
from fabstir_desktop.jobs.status import CheckpointOutcome, NodeStatus, PauseKind
from fabstir_desktop.ui import icons
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.log_store import LogStore
from fabstir_desktop.ui.notice import Notice
from fabstir_desktop.ui.pages.dashboard import DashboardPage
from fabstir_desktop.ui.pages.jobs import JobsPage
from fabstir_desktop.ui.pages.logs import LogsPage
from fabstir_desktop.ui.pages.models import ModelsPage
from fabstir_desktop.ui.pages.page import PAGES, Page
from fabstir_desktop.ui.pages.settings import SettingsPage
from fabstir_desktop.ui.pages.transactions import TransactionsPage
from fabstir_desktop.ui.pages.wallet import WalletPage
from fabstir_desktop.ui.problem_list import ProblemList
from fabstir_desktop.ui.rail import Rail
from fabstir_desktop.ui.strip import Footer, StatusStrip, pause_seconds
from fabstir_desktop.ui.wizard import Wizard
from fabstir_desktop.ui.words import Tone

_LEAST_SIZE = (640, 340)
"""A 1366 x 768 screen at 200 % has 683 x 384."""
_NARROW_CHARACTERS = 126
"""Below this width pictures stand for words: about 900 pixels."""


class MainWindow(QMainWindow):
    """The main window."""

    closing = Signal()
    """The window was asked to close; whoever owns it decides what that means."""
    quitRequested = Signal()
    shown = Signal()
    """It came on screen, at the start or from the tray."""

    def __init__(self, bridge: Bridge, store: LogStore) -> None:
        super().__init__()
        self.bridge = bridge
        self.setWindowTitle(self.tr("Fabstir host"))
        self.setWindowIcon(icons.app_icon())
        self.strip, self.footer, self.notice, self.problems = StatusStrip(), Footer(), Notice(), ProblemList()
        self.rail = Rail()
        self.dashboard = DashboardPage(bridge)
        self.jobs = JobsPage(bridge)
        self.models = ModelsPage(bridge)
        self.wallet = WalletPage(bridge)
        self.settings_page = SettingsPage(bridge)
        self.page_by_name: dict[str, Page] = {
            "dashboard": self.dashboard,
            "jobs": self.jobs,
            "transactions": TransactionsPage(bridge),
            "models": self.models,
            "wallet": self.wallet,
            "logs": LogsPage(bridge, store),
            "settings": self.settings_page,
        }
        self.stack = QStackedWidget()
        for name in PAGES:
            self.stack.addWidget(self.page_by_name[name])
        self.setCentralWidget(self._lay_out())
        self._add_actions()
        self._connect()
        self._restore_place()
        self.show_page("dashboard")
        self.stack.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setFocus()

    # --- layout -------------------------------------------------------------------------------------------------------

    def _lay_out(self) -> QWidget:
        middle = QVBoxLayout()
        middle.setContentsMargins(0, 0, 0, 0)
        middle.setSpacing(0)
        notices = QVBoxLayout()
        notices.setContentsMargins(24, 12, 24, 0)
        notices.setSpacing(8)
        notices.addWidget(self.problems)
        middle.addLayout(notices)
        middle.addWidget(self.stack, 1)
        body = QHBoxLayout()
        body.setContentsMargins(0, 0, 0, 0)
        body.setSpacing(0)
        body.addWidget(self.rail)
        body.addLayout(middle, 1)
        central = QWidget()
        outer = QVBoxLayout(central)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(self.strip)
        outer.addLayout(body, 1)
        outer.addWidget(self.footer)
        self.notice.float_over(self.stack)
        return central

    def _add_actions(self) -> None:
        for place, name in enumerate(PAGES, start=1):
            self._add_action(f"Ctrl+{place}", lambda name=name: self.show_page(name))
        self._add_action("Ctrl+W", self.close)
        self._add_action("Ctrl+Q", self.quitRequested.emit)
        self._add_action("F5", self._refresh)
        self._add_action("Ctrl+Shift+P", self._toggle_pause)
        self._add_action("Ctrl+Shift+C", self.submit)

    def _add_action(self, keys: str, do: object) -> None:
        action = QAction(self)
        action.setShortcut(QKeySequence(keys))
        if callable(do):
            action.triggered.connect(lambda _checked=False: do())
        self.addAction(action)

    def _connect(self) -> None:
        bridge = self.bridge
        bridge.statusChanged.connect(self._show_status)
        bridge.problemsChanged.connect(lambda _: self._show_problems())
        bridge.noticed.connect(lambda text: self.notice.say(text, Tone.OK))
        bridge.failed.connect(lambda text: self.notice.say(text, Tone.ERROR))
        self.rail.pageRequested.connect(self.show_page)
        self.strip.pauseRequested.connect(self.pause)
        self.strip.resumeRequested.connect(self.resume)
        self.problems.actionRequested.connect(self._mend)
        self.problems.dismissRequested.connect(self._dismiss)
        for page in self.page_by_name.values():
            page.pageRequested.connect(self.show_page)
        self.settings_page.firstStepsRequested.connect(self.open_first_steps)
        self.dashboard.submitRequested.connect(self.submit)
        self.jobs.submitRequested.connect(self.submit)
        self.jobs.submitJobRequested.connect(self.submit)

    # --- showing ------------------------------------------------------------------------------------------------------

    def show_page(self, name: str, wanted: str = "") -> None:
        """Show the page; `wanted` is a filter or a row there."""
        if name not in self.page_by_name:
            return
        self.rail.button_by_page[name].setChecked(True)
        self.stack.setCurrentWidget(self.page_by_name[name])
        if wanted:
            self.page_by_name[name].open_with(wanted)
        self._show_problems()

    @property
    def page_name(self) -> str:
        """The page that is shown."""
        return PAGES[self.stack.currentIndex()]

    def bring_up(self) -> None:
        """Show and raise the window; where the desktop refuses, ask for attention."""
        self.setWindowState(self.windowState() & ~Qt.WindowState.WindowMinimized)
        self.show()
        self.raise_()
        self.activateWindow()
        QTimer.singleShot(300, self, self._alert_if_inactive)

    def _alert_if_inactive(self) -> None:
        if not self.isActiveWindow():
            QApplication.alert(self)

    def _show_status(self, status: NodeStatus) -> None:
        self.strip.show_status(status, self.bridge.problems)
        self.footer.show_status(status)

    def _show_problems(self) -> None:
        """All problems on the dashboard; elsewhere those that are mended there."""
        page = self.page_name
        shown = tuple(problem for problem in self.bridge.problems if page in {"dashboard", problem.page})
        self.problems.show_problems(shown)
        self.strip.show_status(self.bridge.status, self.bridge.problems)

    def _mend(self, problem: Problem) -> None:
        """Lead to the very setting or row, and do what the button says where that is one step."""
        state = state_of(problem)
        self.show_page(problem.page, state.target or problem.subject)
        command = self._commands().get(state.command)
        if command is not None:
            command(problem)

    def _commands(self) -> dict[str, Callable[[Problem], object]]:
        """What the table of states names, by its name there."""
        node = self.bridge.node
        return {
            "add_key": lambda _: self.wallet.keys.lead_to("import"),
            "unlock_key": lambda _: self.wallet.keys.lead_to("unlock"),
            "choose_place": lambda _: self.wallet.keys.lead_to("place"),
            "review_key": lambda _: self.wallet.keys.lead_to("review"),
            "choose_model": lambda _: self.models.choose(),
            "load_again": lambda _: self.bridge.run(node.load_again()) if node else None,
            "resume": lambda _: self.resume(),
            "stop_now": lambda _: self.quitRequested.emit(),
            "claim_job": lambda problem: self.submit(int(problem.subject) if problem.subject.isdecimal() else None),
            "open_folder": lambda _: self.settings_page.open_folder(),
        }

    def _dismiss(self, problems: tuple[Problem, ...]) -> None:
        if self.bridge.node is not None:
            self.bridge.node.dismiss(problems)

    # --- commands -----------------------------------------------------------------------------------------------------

    def submit(self, job_id: int | None = None) -> None:
        """Claim now what one job, or every job, has unclaimed; say per job what was done or why not."""
        if self.bridge.node is not None:
            self.bridge.run(self.bridge.node.checkpoint(job_id), done=self._tell_outcomes)

    def _tell_outcomes(self, outcomes: list[CheckpointOutcome]) -> None:
        lines = [
            self.tr("Job {job}: {tokens} tokens submitted").format(job=outcome.job_id, tokens=outcome.tokens)
            if outcome.submitted
            else self.tr("Job {job}: {why}").format(job=outcome.job_id, why=outcome.why)
            for outcome in outcomes
        ]
        more = len(lines) - 5
        text = "\n".join(lines[:5]) + (self.tr("\nand {more} more").format(more=more) if more > 0 else "")
        is_good = any(outcome.submitted for outcome in outcomes)
        self.notice.say(text or self.tr("There is nothing to claim."), Tone.OK if is_good else Tone.QUIET)

    def pause(self, how: str) -> None:
        """Pause `now`, for an `hour`, or `after_jobs`."""
        if self.bridge.node is not None:
            kind = PauseKind.AFTER_JOBS if how == "after_jobs" else PauseKind.NOW
            self.bridge.run(self.bridge.node.pause(pause_seconds(how), kind=kind))

    def resume(self) -> None:
        """Serve again."""
        if self.bridge.node is not None:
            self.bridge.run(self.bridge.node.resume())

    def _toggle_pause(self) -> None:
        if self.strip.button.isEnabled():
            self.resume() if self.strip.is_paused else self.pause("now")

    def _refresh(self) -> None:
        if self.bridge.node is not None:
            self.bridge.run(self.bridge.node.refresh_chain())

    def open_first_steps(self) -> Wizard:
        """Open the first steps, or bring them back if they are open."""
        for open_one in self.findChildren(Wizard):
            open_one.raise_()
            return open_one
        wizard = Wizard(self.bridge, self)
        wizard.pageRequested.connect(self.show_page)
        wizard.settingStored.connect(self.settings_page.settingStored)
        wizard.open()
        return wizard

    # --- narrow windows -----------------------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Give the page the room that words beside pictures would take."""
        super().resizeEvent(event)
        self._fit_width()

    def _fit_width(self) -> None:
        is_narrow = self.width() < self.fontMetrics().averageCharWidth() * _NARROW_CHARACTERS
        self.strip.show_narrow(is_narrow)
        self.rail.show_narrow(is_narrow)

    # --- the window itself --------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Tell those who waited for the window."""
        super().showEvent(event)
        self.shown.emit()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Leave the decision to the application."""
        event.ignore()
        self.closing.emit()

    def remember_place(self) -> None:
        """Keep size and place for the next start."""
        QSettings().setValue("window/geometry", self.saveGeometry())

    def _restore_place(self) -> None:
        self.setMinimumSize(*_LEAST_SIZE)
        geometry = QSettings().value("window/geometry")
        if geometry is None or not self.restoreGeometry(geometry):
            room = self.screen().availableSize()
            self.resize(min(1240, round(room.width() * 0.94)), min(840, round(room.height() * 0.92)))
