"""Closing the window and quitting: ask once, say what is still open, lose nothing either way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from fabstir_desktop.errors import EnvironmentFault, FabstirError
from fabstir_desktop.jobs.events import RequestChanged
from fabstir_desktop.jobs.status import PauseKind, ServingState
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.prompts import Question
from fabstir_desktop.ui.main_window import MainWindow

if TYPE_CHECKING:
    from fabstir_desktop.node import HostNode

_FINISH_LIMIT_S = 1800.0


class Leaving(QObject):
    """Decides what closing and quitting mean. `quitNow` ends the application."""

    quitNow = Signal()

    def __init__(self, bridge: Bridge, window: MainWindow, has_tray: Callable[[], bool]) -> None:
        super().__init__(window)
        self._bridge = bridge
        self._window = window
        self._has_tray = has_tray
        self.close_action = "ask"
        self.question: Question | None = None
        self._is_close_question = False
        self._finishing: asyncio.Task[None] | None = None
        window.closing.connect(self.close_window)
        window.quitRequested.connect(self.ask_to_quit)

    # --- closing ------------------------------------------------------------------------------------------------------

    def close_window(self) -> None:
        """Keep serving in the background, quit, or ask which."""
        self._window.remember_place()
        if self.close_action == "tray":
            self._put_away()
        elif self.close_action == "quit":
            self.ask_to_quit()
        else:
            self._ask_how_to_close()

    def _ask_how_to_close(self) -> None:
        if self.question is not None:
            return
        keep = self.tr("Keep serving in the tray") if self._has_tray() else self.tr("Keep serving, minimised")
        hint = (
            self.tr("The ring in your panel brings the window back. Some desktops hide new icons behind an arrow.")
            if self._has_tray()
            else self.tr("This desktop shows no tray; the window stays in the taskbar.")
        )
        self.question = Question(
            self._window,
            self.tr("Close the window"),
            self.tr("Keep serving while the window is closed?"),
            [("tray", keep), ("quit", self.tr("Quit and stop serving")), ("cancel", self.tr("Cancel"))],
            self._close_as,
            remember=self.tr("Do not ask again"),
            detail=hint,
        )
        self._is_close_question = True
        self.question.open()

    def _close_as(self, answer: str, remembered: bool) -> None:
        self.question = None
        if answer == "cancel":
            return
        if remembered:
            self.close_action = answer
            if self._bridge.node is not None:
                self._bridge.run(self._bridge.node.save_setting("close_action", answer))
        if answer == "tray":
            self._put_away()
        else:
            self.ask_to_quit()

    def _put_away(self) -> None:
        if self._has_tray():
            self._window.hide()
        else:
            self._window.showMinimized()

    # --- quitting -----------------------------------------------------------------------------------------------------

    def ask_to_quit(self) -> None:
        """Quit at once if nothing is open; else say what is, and ask. A wish to quit is stronger than one to close."""
        if self.question is not None and self._is_close_question:
            self.question.reject()
        if self._finishing is not None:
            self._ask_while_finishing()
            return
        open_work = self.open_work()
        if open_work is None:
            self.quitNow.emit()
            return
        self._window.bring_up()
        if self.question is not None:
            return
        self._is_close_question = False
        self.question = Question(
            self._window,
            self.tr("Quit and stop serving"),
            open_work,
            [
                ("finish", self.tr("Finish the running requests, claim, then quit")),
                ("claim", self.tr("Claim now and quit")),
                ("quit", self.tr("Quit anyway")),
                ("cancel", self.tr("Cancel")),
            ],
            self._quit_as,
            detail=self.tr("Nothing is lost: what is not claimed waits in the ledger for the next start."),
        )
        self.question.open()

    def open_work(self) -> str | None:
        """What is still open, as a sentence; None if nothing is."""
        status, earnings = self._bridge.status, self._bridge.earnings
        running = status.server.active_requests if status else 0
        claims = status.chain.open_claims if status else 0
        unproven = max(earnings.generated - earnings.proven - earnings.written_off, 0) if earnings else 0
        if not (running or claims or unproven):
            return None
        parts = []
        if running:
            parts.append(self.tr("%n request(s) running", "", running))
        if unproven:
            parts.append(self.tr("{tokens} tokens unproven").format(tokens=fmt.count(unproven)))
        if claims:
            parts.append(self.tr("%n claim(s) on the way", "", claims))
        return ", ".join(parts) + "."

    def _quit_as(self, answer: str, _: bool) -> None:
        self.question = None
        match answer:
            case "finish":
                self._finishing = self._bridge.run(self._finish(), done=self._quit_if_finished)
                self._finishing.add_done_callback(lambda _: self._end_finishing())
            case "claim":
                self._bridge.run(self._claim(), done=lambda _: self.quitNow.emit())
            case "quit":
                self.quitNow.emit()

    def _ask_while_finishing(self) -> None:
        """The host wants to quit although the app already does: it may be in a hurry, or have changed its mind."""
        self._window.bring_up()
        if self.question is not None:
            return
        self._is_close_question = False
        self.question = Question(
            self._window,
            self.tr("Quit and stop serving"),
            self.open_work() or self.tr("The last claim is being sent."),
            [
                ("wait", self.tr("Go on finishing, then quit")),
                ("quit", self.tr("Stop now and quit")),
                ("serve", self.tr("Do not quit; serve on")),
            ],
            self._answer_while_finishing,
            detail=self.tr("The app finishes the running requests and then quits."),
            otherwise="wait",
        )
        self.question.open()

    def _answer_while_finishing(self, answer: str, _: bool) -> None:
        self.question = None
        if answer == "quit":
            self.quitNow.emit()
        elif answer == "serve":
            self._window.resume()

    def _quit_if_finished(self, is_finished: bool) -> None:
        if is_finished:
            self.quitNow.emit()

    def _end_finishing(self) -> None:
        self._finishing = None

    async def _finish(self) -> bool:
        """Let the running requests end, then claim. False: the host has resumed serving, nothing is quit.

        Raises EnvironmentFault after half an hour; the host serves on then.
        """
        node = self._bridge.node
        if node is None:
            return True
        await node.pause(kind=PauseKind.TO_STOP)
        self._bridge.noticed.emit(self.tr("Finishing the running requests; then the app claims and quits."))
        try:
            async with asyncio.timeout(_FINISH_LIMIT_S):
                is_finished = await self._until_idle(node)
        except TimeoutError:
            await node.resume()
            raise EnvironmentFault(self.tr("The requests still run after half an hour. The host serves on.")) from None
        if is_finished:
            await self._claim()
        return is_finished

    async def _until_idle(self, node: HostNode) -> bool:
        """Returns whether nothing runs any more; False as soon as the host takes prompts again."""
        idle = asyncio.Event()

        def look() -> None:
            server = node.status.server
            is_idle = not (server.active_requests or server.queued_requests)
            if is_idle or node.status.state is ServingState.SERVING:
                idle.set()

        forget = node.feed.subscribe(RequestChanged, lambda _: look())
        self._bridge.tick.connect(look)
        try:
            look()
            await idle.wait()
            return node.status.state is not ServingState.SERVING
        finally:
            forget()
            self._bridge.tick.disconnect(look)

    async def _claim(self) -> None:
        """Send what can be sent; what cannot stays in the ledger, and quitting goes on."""
        if self._bridge.node is not None:
            try:
                await self._bridge.node.checkpoint()
            except FabstirError as error:
                self._bridge.failed.emit(str(error))
