"""Ten thousand jobs on screen, a hundred of them streaming: the window's own work stays small.

Measured in processor time, not in waiting time, so that a busy machine does not decide the test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pytestqt.qtbot import QtBot
from ui_support import FakeNode, make_job

from fabstir_desktop.ui.main_window import MainWindow

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
