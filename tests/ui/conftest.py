"""Windows without a screen: Qt's offscreen platform, a qasync loop under the test's own Qt loop, a scripted node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["QT_QPA_PLATFORM"] = "offscreen"

import pytest
import qasync
from PySide6.QtCore import QCoreApplication, QSettings
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from ui_support import FakeNode, fill_with_life

from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.log_store import LogStore
from fabstir_desktop.ui.main_window import MainWindow


@pytest.fixture(autouse=True)
def _own_settings(qapp: QApplication, tmp_path: Path) -> None:
    QCoreApplication.setOrganizationName("fabstir-test")
    QCoreApplication.setApplicationName("fabstir-test")
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path / "geometry"))


@pytest.fixture
def loop(qapp: QApplication) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs whenever the test waits with qtbot."""
    made = qasync.QEventLoop(qapp, already_running=True)
    yield made
    pending = asyncio.all_tasks(made)
    for task in pending:
        task.cancel()
    for _ in range(100):
        if all(task.done() for task in pending):
            break
        qapp.processEvents()
    asyncio.events._set_running_loop(None)
    # Not stop(): that tells Qt to leave every later event loop of this thread at once.
    made._QEventLoop__is_running = False
    made.close()


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path)


@pytest.fixture
def busy_node(node: FakeNode) -> FakeNode:
    fill_with_life(node)
    return node


@pytest.fixture
def bridge(loop: asyncio.AbstractEventLoop) -> Iterator[Bridge]:
    made = Bridge()
    yield made
    made._timer.stop()


@pytest.fixture
def store() -> LogStore:
    return LogStore()


@pytest.fixture
def make_window(
    qtbot: QtBot, bridge: Bridge, store: LogStore, loop: asyncio.AbstractEventLoop
) -> Callable[[Any], MainWindow]:
    """Open the window over a node and wait until it shows what the node says."""

    def make(node: Any) -> MainWindow:
        window = MainWindow(bridge, store)
        qtbot.addWidget(window)
        window.show()
        bridge.attach(node)
        qtbot.waitUntil(lambda: bridge.earnings is not None, timeout=5000)
        return window

    return make
