"""Notifications by kind: what a host who does not look at the window wants to hear of, and no more often than bearable.

What is seen in the window is not told again. Several within a short time become one, with their number; payments are
gathered for longer. A click leads to the page of what was told last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from PySide6.QtCore import QObject, QTimer, Signal

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.status import NodeStatus, ServingState
from fabstir_desktop.jobs.views import EarningsView
from fabstir_desktop.settings import Settings
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.say import say

QUIET_S = 10.0
PAYMENTS_EVERY_S = 600.0


class Kind(StrEnum):
    """What is told, by the name of its setting."""

    ERROR = "notify_errors"
    WARNING = "notify_warnings"
    PAYMENT = "notify_payments"
    PAUSE = "notify_pauses"


class Notifier(QObject):
    """Watches the bridge. `show` puts a text before the host; `is_window_seen` tells whether that is needless."""

    openRequested = Signal(str, str)

    def __init__(
        self,
        bridge: Bridge,
        settings: Settings,
        *,
        show: Callable[[str], None],
        is_window_seen: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._bridge = bridge
        self._show = show
        self._is_window_seen = is_window_seen
        self._clock = clock
        self.wanted = {kind for kind in Kind if getattr(settings, kind.value) == "tray"}
        self._told: set[tuple[str, str]] = set()
        self._waiting: list[str] = []
        self._page = ("dashboard", "")
        self._quiet_until = self._payments_until = float("-inf")
        self._settled: int | None = None
        self._paused_by_itself = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.flush)
        bridge.problemsChanged.connect(self.take_problems)
        bridge.statusChanged.connect(self.take_status)
        bridge.earningsChanged.connect(self.take_earnings)

    def choose(self, name: str, value: object) -> None:
        """A setting was changed; names of others are ignored."""
        if name in set(Kind):
            (self.wanted.add if value == "tray" else self.wanted.discard)(Kind(name))

    def take_problems(self, problems: tuple[Problem, ...]) -> None:
        """Tell each once while it stands; what is seen meanwhile counts as told."""
        self._told &= {(problem.code, problem.subject) for problem in problems}
        kinds = {Severity.ERROR: Kind.ERROR, Severity.WARNING: Kind.WARNING}
        for problem in problems:
            key, kind = (problem.code, problem.subject), kinds.get(problem.severity)
            if kind is not None and key not in self._told:
                self._told.add(key)
                self._tell(kind, say(problem.message), problem.page, problem.subject)

    def take_status(self, status: NodeStatus) -> None:
        """Tell of pauses that nobody asked for by hand, and of their end."""
        node = self._bridge.node
        is_paused = status.state is ServingState.PAUSED
        by_itself = is_paused and node is not None and bool(node.pause_reason)
        if by_itself and not self._paused_by_itself:
            self._tell(Kind.PAUSE, say(status.sentence))
        elif self._paused_by_itself and status.state is ServingState.SERVING:
            self._tell(Kind.PAUSE, self.tr("Serving again"))
        self._paused_by_itself = by_itself

    def take_earnings(self, earnings: EarningsView) -> None:
        """Tell what was settled since it was told last; the first look tells nothing."""
        if self._settled is None or earnings.settled < self._settled:
            self._settled = earnings.settled
            return
        count = earnings.settled - self._settled
        if count and self._clock() >= self._payments_until:
            self._settled = earnings.settled
            self._payments_until = self._clock() + PAYMENTS_EVERY_S
            # no amount: it stands on the screen for whoever is in the room
            self._tell(Kind.PAYMENT, self.tr("{count} tokens were settled.").format(count=fmt.count(count)))

    def open_last(self) -> None:
        """The notification was clicked."""
        self.openRequested.emit(*self._page)

    def flush(self) -> None:
        """Tell what had to wait, as one."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self._is_window_seen():
            return
        more = len(waiting) - 1
        self._say(waiting[0] + ("\n" + self.tr("and {more} more").format(more=more) if more else ""))

    def _tell(self, kind: Kind, text: str, page: str = "", subject: str = "") -> None:
        if kind not in self.wanted or self._is_window_seen():
            return
        self._page = (page or "dashboard", subject)
        left_s = self._quiet_until - self._clock()
        if left_s > 0 or self._waiting:
            self._waiting.append(text)
            self._timer.start(max(1, round(left_s * 1000)))
        else:
            self._say(text)

    def _say(self, text: str) -> None:
        self._quiet_until = self._clock() + QUIET_S
        self._show(text)
