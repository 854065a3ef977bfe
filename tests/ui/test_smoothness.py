"""Ten thousand jobs on screen, a hundred of them streaming: the window's own work stays small.

Measured in processor time, not in waiting time, so that a busy machine does not decide the test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from PySide6.QtCore import QEvent, QObject
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from ui_support import FakeNode, make_job

from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.pages.page import PAGES

STREAMING_S = 3.0
WORK_LIMIT = 0.5


def test_streaming_into_ten_thousand_jobs_leaves_the_processor_mostly_idle(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode
) -> None:
    node.job_by_id = {number: make_job(number, generated=number % 97) for number in range(10_000)}
    window = make_window(node)
    window.show_page("jobs")
    qtbot.waitUntil(lambda: window.jobs.proxy.rowCount() == 10_000, timeout=20_000)
    qtbot.wait(500)
    began, worked = time.monotonic(), time.process_time()
    while time.monotonic() - began < STREAMING_S:
        for number in range(0, 100, 10):
            node.count_tokens(number, 1)
        qtbot.wait(20)
    share = (time.process_time() - worked) / (time.monotonic() - began)
    assert share < WORK_LIMIT, f"{share:.0%} of the time was work"
    qtbot.waitUntil(lambda: window.jobs.model.row(10).generated == node.job_by_id[10].generated)


class LayoutCounter(QObject):
    """Counts how often anything is laid out anew."""

    count = 0

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - the name is Qt's
        self.count += event.type() == QEvent.Type.LayoutRequest
        return super().eventFilter(watched, event)


@pytest.mark.parametrize("height", [840, 384])
def test_a_window_in_which_nothing_happens_is_not_laid_out_again_and_again(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], node: FakeNode, height: int
) -> None:
    window = make_window(node)
    window.resize(900, height)
    application = QApplication.instance()
    assert application is not None
    for page in PAGES:
        window.show_page(page)
        qtbot.wait(300)
        counter = LayoutCounter()
        application.installEventFilter(counter)
        qtbot.wait(200)
        application.removeEventFilter(counter)
        assert counter.count < 50, f"{page}: one leads to the next"
