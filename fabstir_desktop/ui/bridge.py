"""Between the node and the widgets: events mark what is stale, one task reads it again, at most ten times a second.

Widgets subscribe to the signals and call `run` for commands; they never touch the node's parts. All tasks of the window
belong to the bridge and end with `close`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import shiboken6
from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtWidgets import QWidget

from fabstir_desktop.errors import FabstirError
from fabstir_desktop.jobs.events import (
    ClaimChanged,
    EarningsChanged,
    Event,
    JobChanged,
    TokensCounted,
    TransactionChanged,
)
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.jobs.views import EarningsView, JobView, TransactionView
from fabstir_desktop.ui.rates import RateMeter
from fabstir_desktop.ui.waiting_jobs import WaitingJobs

if TYPE_CHECKING:
    from fabstir_desktop.node import HostNode

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_REFRESH_S = 0.1
_SLOW_READ_S = 0.5
_JOBS_A_READ = 500
"""Of the changed jobs so many are read at once; the rest a moment later."""
_JOBS_A_TURN = 200
"""So many rows are handed to the tables before the loop gets a turn: a frame of 16 ms holds them."""
TRANSACTIONS_A_PAGE = 1000


class Bridge(QObject):
    """The window's view of the node."""

    statusChanged = Signal(object)
    problemsChanged = Signal(object)
    jobsReplaced = Signal(object)
    """The jobs by id, at the beginning; where there are many, the others follow as changed ones."""
    jobsChanged = Signal(object)
    """The changed ones by id."""
    ratesChanged = Signal(object)
    transactionsChanged = Signal(object)
    earningsChanged = Signal(object)
    journalChanged = Signal(object)
    tick = Signal()
    noticed = Signal(str)
    failed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.node: HostNode | None = None
        self.status: NodeStatus | None = None
        self.problems: tuple[Problem, ...] = ()
        self.job_by_id: dict[int, JobView] = {}
        self.waiting = WaitingJobs()
        self.transactions: list[TransactionView] = []
        self.transaction_count = 0
        """How many there are in the ledger; `transactions` has the newest of them."""
        self._transactions_wanted = TRANSACTIONS_A_PAGE
        self.earnings: EarningsView | None = None
        self.rates: dict[int, float] = {}
        self._meter = RateMeter()
        self._totals: dict[int, int] = {}
        self._stale_jobs: set[int] = set()
        self._stale: set[str] = set()
        self._read_at: dict[str, float] = {}
        self._wake: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unsubscribe: Callable[[], None] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(1000)
        self._timer.timeout.connect(self._beat)

    # --- life ---------------------------------------------------------------------------------------------------------

    def attach(self, node: HostNode) -> None:
        """Follow this node from now on. Call it once the node has started."""
        self.node = node
        self._wake = asyncio.Event()
        self._unsubscribe = node.feed.subscribe(Event, self._take)
        self._stale = {"jobs", "transactions", "earnings"}
        self._wake.set()
        self._own(self._refresh_forever(), "refresh")
        self._timer.start()

    def tell(self, *problems: Problem) -> None:
        """Show what stands in the way before there is a node; once one is followed, its problems take their place."""
        self.problems = problems
        self.problemsChanged.emit(problems)

    async def close(self) -> None:
        """Stop following and end every task of the window. Safe to call twice."""
        self._timer.stop()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- commands -----------------------------------------------------------------------------------------------------

    def run(
        self,
        work: Coroutine[Any, Any, Result],
        *,
        done: Callable[[Result], None] | None = None,
        failed: Callable[[str], None] | None = None,
        busy: QWidget | None = None,
    ) -> asyncio.Task[None]:
        """Run a command; `busy` is disabled while it runs; what fails is told to `failed`, else shown in the window."""
        if busy is not None:
            busy.setEnabled(False)
        task = self._own(self._guard(work, done, failed or self.failed.emit), "command")

        def tidy(_: asyncio.Task[None]) -> None:
            work.close()  # a command that was cancelled before it began
            if busy is not None and shiboken6.isValid(busy):
                busy.setEnabled(True)

        task.add_done_callback(tidy)
        return task

    async def _guard(
        self,
        work: Coroutine[Any, Any, Result],
        done: Callable[[Result], None] | None,
        failed: Callable[[str], None],
    ) -> None:
        try:
            result = await work
            if done is not None and not _is_gone(done):
                done(result)
        except FabstirError as error:
            if not _is_gone(failed):
                failed(str(error))
        except Exception:
            log.exception("a command of the window failed")
            if not _is_gone(failed):
                failed(self.tr("That did not work, for a reason this version does not know. The log has the details."))
        finally:
            self.refresh_soon()

    def refresh_soon(self) -> None:
        """Read the state again at the next opportunity."""
        if self._wake is not None:
            self._wake.set()

    # --- following ----------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case TokensCounted():
                self._meter.add(event.job_id, event.count, time.monotonic())
                self._totals[event.job_id] = event.total
                self._stale.add("earnings")
            case JobChanged():
                self._stale_jobs.add(event.job_id)
            case ClaimChanged():
                self._stale_jobs.add(event.job_id)
                self._stale |= {"transactions", "earnings"}
            case TransactionChanged():
                self._stale.add("transactions")
            case EarningsChanged():
                self._stale_jobs |= event.job_ids
                self._stale |= {"earnings"} if event.job_ids else {"jobs", "earnings"}
        self.refresh_soon()

    async def _refresh_forever(self) -> None:
        wake = self._wake
        while wake is not None:
            await wake.wait()
            wake.clear()
            try:
                await self._refresh()
            except FabstirError as error:
                log.warning("the window could not read the node's state: %s", error)
            except Exception:
                log.exception("the window could not read the node's state")
            await asyncio.sleep(_REFRESH_S)

    async def _refresh(self) -> None:
        node = self.node
        if node is None:
            return
        self._show_status(node)
        await self._give_way()
        self._show_rates()
        await self._give_way()
        await self._refresh_jobs(node)
        if self._is_due("transactions"):
            await self._give_way()
            await self._read_transactions(node)
        if self._is_due("earnings"):
            await self._give_way()
            self.earnings = await node.earnings()
            self.earningsChanged.emit(self.earnings)
        if self._stale:
            self.refresh_soon()

    async def _give_way(self) -> None:
        """Let others have the loop between two steps: together they would be longer than a frame. The first picture is
        shown at once."""
        if self.earnings is not None:
            await asyncio.sleep(0)

    def _show_status(self, node: HostNode) -> None:
        self.status = node.status
        self.statusChanged.emit(self.status)
        problems = tuple(node.problems)
        if problems != self.problems:
            self.problems = problems
            self.problemsChanged.emit(problems)

    def _show_rates(self) -> None:
        rates = self._meter.rates(time.monotonic())
        if rates or self.rates:
            self.rates = rates
            self.ratesChanged.emit(rates)

    async def _read_transactions(self, node: HostNode) -> None:
        wanted = self._transactions_wanted
        self.transactions = await node.transactions(wanted)
        count = len(self.transactions)
        self.transaction_count = await node.transaction_count() if count == wanted else count
        self.transactionsChanged.emit(self.transactions)

    def show_more_transactions(self) -> None:
        """Read further back than until now."""
        self._transactions_wanted += TRANSACTIONS_A_PAGE
        self._stale.add("transactions")
        self._read_at.pop("transactions", None)
        self.refresh_soon()

    async def _refresh_jobs(self, node: HostNode) -> None:
        """Take totals from the events, and read the jobs that changed otherwise; all of them if it may be any."""
        totals, self._totals = self._totals, {}
        changed = {job_id: self._with_total(job_id, total) for job_id, total in totals.items()}
        self._stale_jobs |= {job_id for job_id, view in changed.items() if view is None}
        if self._is_due("jobs"):
            self._stale_jobs.clear()
            await self._show_jobs({view.job_id: view for view in await node.jobs()})
            return
        stale = set(list(self._stale_jobs)[:_JOBS_A_READ])
        self._stale_jobs -= stale
        if stale:
            changed.update({view.job_id: view for view in await node.jobs(stale)})
            self.journalChanged.emit(stale)
        await self._show_jobs({job_id: view for job_id, view in changed.items() if view is not None})
        if self._stale_jobs:
            self.refresh_soon()

    async def _show_jobs(self, views: dict[int, JobView]) -> None:
        """Hand what differs to the tables, in pieces that a frame holds."""
        is_first = not self.job_by_id
        changed = [view for job_id, view in views.items() if self.job_by_id.get(job_id) != view]
        self.job_by_id.update(views)
        for start in range(0, len(changed), _JOBS_A_TURN):
            if start:
                await asyncio.sleep(0)
            piece = {view.job_id: view for view in changed[start : start + _JOBS_A_TURN]}
            self.waiting.update(piece.values())
            (self.jobsReplaced if is_first and start == 0 else self.jobsChanged).emit(piece)

    def _with_total(self, job_id: int, total: int) -> JobView | None:
        view = self.job_by_id.get(job_id)
        if view is None:
            return None
        state = "running" if view.state == "idle" else view.state
        unclaimed = max(view.unclaimed + total - view.generated, 0)
        return replace(view, generated=total, unclaimed=unclaimed, state=state, updated_at=time.time())

    def _is_due(self, name: str) -> bool:
        now = time.monotonic()
        if name not in self._stale or now - self._read_at.get(name, 0.0) < _SLOW_READ_S:
            return False
        self._stale.discard(name)
        self._read_at[name] = now
        return True

    def _beat(self) -> None:
        self.refresh_soon()
        self.tick.emit()

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"window {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _is_gone(callback: Callable[..., object]) -> bool:
    """Whether it belongs to a widget that was closed while its command ran."""
    owner = getattr(callback, "__self__", None)
    return isinstance(owner, QObject) and not shiboken6.isValid(owner)
