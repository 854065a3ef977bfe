"""The tray app: QApplication, one qasync loop, the HostNode and its face, put together here and nowhere else.

Order of a start: raise a running copy, or show the window; then import what is slow, start the node, follow it. Order of
an end: stop following, stop the control socket, stop the node within its limit; then the loop ends.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import qasync
from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtNetwork import QNetworkInformation
from PySide6.QtWidgets import QApplication

from fabstir_desktop.errors import ControlTaken, EnvironmentFault, FabstirError, LedgerLocked, UserError
from fabstir_desktop.jobs.diagnosis import describe_gap
from fabstir_desktop.jobs.events import GapNoticed, ProblemCleared, ProblemRaised
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.jobs.status import NodeStatus, WalletState
from fabstir_desktop.logs import LogWriter, start_logging
from fabstir_desktop.settings import Settings, load_settings
from fabstir_desktop.tasks import LeavingExecutor
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.prompts import Question
from fabstir_desktop.ui.leaving import Leaving
from fabstir_desktop.ui.log_store import LogStore
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.notifications import Notifier
from fabstir_desktop.ui.session_end import hold_session_end
from fabstir_desktop.ui.theme import Theme
from fabstir_desktop.ui.translation import install_translations
from fabstir_desktop.ui.tray import Tray
from fabstir_desktop.ui.wizard import needs_first_steps

if TYPE_CHECKING:
    from fabstir_desktop.demo import Demo
    from fabstir_desktop.habits import Habits
    from fabstir_desktop.node import HostNode
    from fabstir_desktop.server.control import ControlServer

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 4.5
_RAISE_LIMIT_S = 2.0
_RAISE_AGAIN_S = 0.3
_GIVE_WAY_S = 20.0
"""A copy that is still starting has this long to answer."""
_FIRST_PAINT_S = 0.05


def run_app(overrides: Mapping[str, Any], *, demo: bool = False, hidden: bool = False) -> int:
    """Run the tray app until it is quit; returns the exit code. Raises FabstirError if it cannot start as asked."""
    settings = load_settings(overrides)
    if not demo and _raise_running(settings):
        return 0
    _name_application()
    app = QApplication(sys.argv[:1])
    app.setQuitOnLastWindowClosed(False)
    translators = install_translations(app)
    desktop = DesktopApp(app, settings, overrides, demo=demo, hidden=hidden)
    loop = qasync.QEventLoop(app)
    loop.set_default_executor(LeavingExecutor(thread_name_prefix="aside"))
    with loop:
        task = loop.create_task(desktop.run())
        try:
            loop.run_until_complete(task)
        except RuntimeError:
            if task.done():
                raise
            desktop.end()  # the session manager ended Qt's loop; the node is still to be stopped
            try:
                loop.run_until_complete(task)
            except RuntimeError:  # the display itself is gone: the ledger has everything, the next start goes on
                log.error("the display went away; fabstir-desktop ends at once")
                return 1
    del translators
    return int(task.result())


def _raise_running(settings: Settings) -> bool:
    from fabstir_desktop.server.control import call_running_now  # noqa: PLC0415 - only when starting

    ends_at = time.monotonic() + _GIVE_WAY_S
    while True:
        try:
            return call_running_now(settings.data_dir, "raise_window", _activation(), _RAISE_LIMIT_S) is not None
        except EnvironmentFault:  # it is there, but busy starting
            if time.monotonic() > ends_at:
                raise


def _activation() -> dict[str, str]:
    """What Wayland gives the program that was clicked, for the window that is to be raised in its place."""
    return {"activation_token": os.environ.get("XDG_ACTIVATION_TOKEN", "")}


def _name_application() -> None:
    QCoreApplication.setOrganizationName("fabstir")
    QCoreApplication.setApplicationName("fabstir-desktop")
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415

        ctypes.windll.shell32.SetCurrentProcessExplicitAppUserModelID("fabstir.desktop")


class DesktopApp:
    """The running tray app."""

    def __init__(
        self, app: QApplication, settings: Settings, overrides: Mapping[str, Any], *, demo: bool, hidden: bool
    ) -> None:
        self._app = app
        self._settings = settings
        self._overrides = dict(overrides)
        self._is_demo = demo
        self._is_hidden = hidden or settings.start_hidden
        self._exit_code = 0
        self._ended: asyncio.Event | None = None
        self._is_stopped = False
        self._network: QNetworkInformation | None = None
        self._demo: Demo | None = None
        self._node: HostNode | None = None
        self._control: ControlServer | None = None
        self._habits: Habits | None = None
        self._log_writer: LogWriter | None = None
        self._store = LogStore()
        self._theme = Theme(app, settings.appearance)
        self.bridge = Bridge()
        self.window = MainWindow(self.bridge, self._store)
        self.tray = Tray(self.bridge)
        self.notifier = Notifier(self.bridge, settings, show=self._notify, is_window_seen=self._is_window_seen)
        self.leaving = Leaving(self.bridge, self.window, lambda: self.tray.is_available)
        self.leaving.close_action = settings.close_action
        self._connect()

    def _connect(self) -> None:
        window, tray = self.window, self.tray
        tray.openRequested.connect(window.bring_up)
        tray.toggleRequested.connect(self._toggle_window)
        tray.panel.appeared.connect(self._find_panel)
        tray.panel.missing.connect(self._miss_panel)
        tray.scheme, tray.shows_amounts = self._settings.tray_icon, self._settings.tray_amounts
        tray.is_kept_awake = lambda: self._habits is not None and self._habits.is_keeping_awake
        tray.pageRequested.connect(self._show_page)
        tray.submitRequested.connect(window.submit)
        tray.pauseRequested.connect(window.pause)
        tray.resumeRequested.connect(window.resume)
        tray.quitRequested.connect(self.leaving.ask_to_quit)
        self.leaving.quitNow.connect(self.end)
        self.notifier.openRequested.connect(self._show_page)
        tray.icon.messageClicked.connect(self.notifier.open_last)
        window.settings_page.settingStored.connect(self._take_setting)
        self._app.commitDataRequest.connect(lambda _: self.end_session())
        self._app.aboutToQuit.connect(self.window.remember_place)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Start, serve until the end is asked for, stop. Returns the exit code."""
        self._ended = asyncio.Event()
        logging.getLogger().addHandler(self._store)
        self._end_on_signals()
        self.tray.start()
        if not self._is_hidden:  # a hidden start waits for the panel: at login it often comes later
            self.window.show()
        await asyncio.sleep(_FIRST_PAINT_S)
        starting = asyncio.get_running_loop().create_task(self._start(), name="start")
        ending = asyncio.get_running_loop().create_task(self._ended.wait(), name="end")
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        await self._watch_start(starting)
        await ending
        await self._stop(starting)
        return self._exit_code

    async def _watch_start(self, starting: asyncio.Task[None]) -> None:
        """A start that failed stays on screen until it was read; one that met a running copy gives way to it."""
        if not starting.done() or starting.cancelled() or starting.exception() is None:
            return
        error = starting.exception()
        if isinstance(error, LedgerLocked | ControlTaken) and await self._give_way():
            self.end()
            return
        self._exit_code = 2
        if isinstance(error, LedgerLocked | ControlTaken):
            self._tell_other_copy(error)
            return
        if isinstance(error, FabstirError):
            text = str(error)
        else:
            log.error("the start failed", exc_info=error)
            text = self.window.tr("An unknown error; the log has the details.")
        log.error("fabstir-desktop cannot start: %s", text)
        self.window.show()
        question = Question(
            self.window,
            self.window.tr("Fabstir host cannot start"),
            self.window.tr("Fabstir host cannot start"),
            [("quit", self.window.tr("Quit"))],
            lambda *_: self.end(),
            detail=text,
        )
        question.open()

    def _tell_other_copy(self, error: FabstirError) -> None:
        """The running copy has no window to give way to (it is headless, or hangs): say so where problems stand."""
        log.error("fabstir-desktop cannot start: %s", error)
        self.bridge.tell(problem("D02", str(error)))
        self.window.show()

    async def _start(self) -> None:
        """Import what is slow off the loop, then start the node and follow it."""
        await asyncio.to_thread(importlib.import_module, "fabstir_desktop.control")
        if self._is_demo:
            await asyncio.to_thread(importlib.import_module, "fabstir_desktop.demo")
        elif self.window.isVisible():  # for the plot: a hidden window shows none
            await asyncio.to_thread(importlib.import_module, "numpy")
        from fabstir_desktop.control import serve_control  # noqa: PLC0415
        from fabstir_desktop.habits import Habits  # noqa: PLC0415
        from fabstir_desktop.node import HostNode  # noqa: PLC0415

        settings = await self._final_settings()
        self._log_writer = start_logging(settings.log_path, settings.log_level)
        node = HostNode(settings, overrides=self._overrides, demo=self._is_demo)
        self._node = node
        node.on_raise_window = self.window.bring_up
        node.on_quit = self.end
        self._control = await serve_control(
            node
        )  # before the start: who starts a second copy meanwhile raises this one
        await node.start()
        self._habits = Habits(node)
        self._habits.start()
        node.feed.subscribe(GapNoticed, lambda event: self.bridge.noticed.emit(describe_gap(event.gap, time.time())))
        self.bridge.attach(node)
        self._watch_network(node)
        self._tell_panel(is_missing=self.tray.panel.is_known is False)
        if not self._is_demo:
            self._offer_first_steps()

    def _offer_first_steps(self) -> None:
        """Once the first look at key and model is done, and only if there is neither."""

        def look(status: NodeStatus) -> None:
            if status.wallet.state is WalletState.LOADING:
                return
            self.bridge.statusChanged.disconnect(look)
            if needs_first_steps(status):
                self._open_first_steps()

        self.bridge.statusChanged.connect(look)

    def _open_first_steps(self) -> None:
        """Now, or after a hidden start when the window is opened for the first time."""
        if self.window.isVisible():
            self.window.open_first_steps()
        else:
            once = Qt.ConnectionType.SingleShotConnection
            self.window.shown.connect(self.window.open_first_steps, once)

    async def _give_way(self) -> bool:
        """Raise the window of the copy that was quicker; it may need a moment to be able to. False: it has none."""
        from fabstir_desktop.server.control import call_running  # noqa: PLC0415 - only when two starts met

        ends_at = time.monotonic() + _GIVE_WAY_S
        while time.monotonic() < ends_at:
            try:
                if (
                    await call_running(self._settings.data_dir, "raise_window", _activation(), _RAISE_LIMIT_S)
                    is not None
                ):
                    return True
            except UserError as error:
                log.info("the running copy does not show its window: %s", error)
                return False
            except FabstirError as error:
                log.debug("the running copy is busy starting: %s", error)
            await asyncio.sleep(_RAISE_AGAIN_S)
        return False

    def _watch_network(self, node: HostNode) -> None:
        """Where the system tells of another network, the chain is asked at once instead of at the next poll."""
        if QNetworkInformation.loadDefaultBackend():
            self._network = QNetworkInformation.instance()
            self._network.reachabilityChanged.connect(lambda _: self.bridge.run(node.refresh_chain()))

    async def _final_settings(self) -> Settings:
        if not self._is_demo:
            return self._settings
        from fabstir_desktop.demo import start_demo  # noqa: PLC0415

        self._demo = await start_demo(self._overrides, pick_port=True)
        return load_settings(self._demo.overrides)

    async def _stop(self, starting: asyncio.Task[None]) -> None:
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        self.tray.stop()
        self.window.remember_place()
        self.window.hide()
        await self.bridge.close()
        if self._habits is not None:
            await self._habits.stop()
        if self._control is not None:
            await self._control.stop()
        if self._node is not None:
            await self._node.stop(STOP_TIMEOUT_S)
        if self._demo is not None:
            await self._demo.stop()
        logging.getLogger().removeHandler(self._store)
        if self._log_writer is not None:
            await asyncio.to_thread(self._log_writer.stop)

        self._is_stopped = True

    def end_session(self) -> None:
        """The desktop's session ends: stop now, and hold its end for the seconds that the last claims need."""
        self.end()
        if self._node is not None:
            hold_session_end(self.window, self.window.tr("Signing the last claims"), lambda: self._is_stopped)

    def end(self) -> None:
        """Begin to stop: no more questions, nothing lost."""
        if self._ended is not None:
            self._ended.set()

    def _end_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(name, self.end)
            except (NotImplementedError, RuntimeError):  # Windows: Python's own handler runs at the next timer tick
                signal.signal(name, lambda *_: self.end())

    # --- reactions ----------------------------------------------------------------------------------------------------

    def _toggle_window(self) -> None:
        """By what is visible alone: which window lies on top, many desktops do not tell."""
        if self.window.isVisible() and not self.window.isMinimized():
            self.leaving.close_window()
        else:
            self.window.bring_up()

    def _find_panel(self) -> None:
        self._tell_panel(is_missing=False)

    def _miss_panel(self) -> None:
        """No tray: the window must not be hidden, there would be no way back to it."""
        self._tell_panel(is_missing=True)
        if not self.window.isVisible():
            self.window.show()

    def _tell_panel(self, *, is_missing: bool) -> None:
        if self._node is not None:
            told = self.window.tr("Your desktop shows no tray; the window stays in the taskbar.")
            self._node.feed.publish(ProblemRaised(problem("N01", told)) if is_missing else ProblemCleared("N01", ""))

    def _show_page(self, page: str, wanted: str) -> None:
        self.window.show_page(page, wanted)
        self.window.bring_up()

    def _is_window_seen(self) -> bool:
        return self.window.isVisible() and not self.window.isMinimized()

    def _notify(self, text: str) -> None:
        """Beside the tray; without one the window's place in the task bar asks for attention."""
        if self.tray.is_available:
            self.tray.tell(text)
        else:
            self.bridge.noticed.emit(text)
            QApplication.alert(self.window)

    def _take_setting(self, name: str, value: object) -> None:
        self.notifier.choose(name, value)
        if name == "appearance":
            self._theme.choose(str(value))
        elif name == "close_action":
            self.leaving.close_action = str(value)
        elif name == "tray_icon":
            self.tray.scheme = str(value)
            self.tray.repaint()
        elif name == "tray_amounts":
            self.tray.shows_amounts = bool(value)
