"""The bridge follows the node at its own pace and turns failures into words."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from PySide6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot
from ui_support import FakeNode, fill_with_life, make_job

from fabstir_desktop.errors import RpcUnreachable
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.rates import RateMeter


@pytest.fixture
def attached(qtbot: QtBot, bridge: Bridge, node: FakeNode) -> Bridge:
    fill_with_life(node)
    bridge.attach(node)  # type: ignore[arg-type]
    qtbot.waitUntil(lambda: bridge.earnings is not None)
    return bridge


def test_however_fast_tokens_come_the_window_hears_of_them_ten_times_a_second(
    qtbot: QtBot, attached: Bridge, node: FakeNode
) -> None:
    told: list[float] = []
    attached.jobsChanged.connect(lambda _: told.append(time.monotonic()))
    reads = node.reads
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        for _ in range(50):
            node.count_tokens(4711, 1)
        qtbot.wait(1)
    qtbot.waitUntil(lambda: attached.job_by_id[4711].generated == node.job_by_id[4711].generated)
    assert 3 <= len(told) <= 13
    assert node.reads == reads, "counting needs no reading of all jobs"


def test_a_token_count_changes_unclaimed_with_it(qtbot: QtBot, attached: Bridge, node: FakeNode) -> None:
    node.count_tokens(4711, 9)
    qtbot.waitUntil(lambda: attached.job_by_id[4711].generated == 1149)
    assert attached.job_by_id[4711].unclaimed == 149


def test_a_job_never_seen_before_appears(qtbot: QtBot, attached: Bridge, node: FakeNode) -> None:
    node.job_by_id[99] = make_job(99)
    node.count_tokens(99, 3)
    qtbot.waitUntil(lambda: 99 in attached.job_by_id)


def test_a_failed_command_is_told_in_its_own_words(qtbot: QtBot, attached: Bridge, node: FakeNode) -> None:
    node.fail_with = RpcUnreachable("no answer from sepolia.base.org")
    with qtbot.waitSignal(attached.failed) as told:
        attached.run(node.checkpoint())
    assert told.args == ["no answer from sepolia.base.org"]


def test_a_command_that_breaks_unexpectedly_is_logged_and_told_without_its_secret(
    qtbot: QtBot, attached: Bridge, node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.fail_with = ValueError("some inner detail")
    with caplog.at_level(logging.ERROR), qtbot.waitSignal(attached.failed) as told:
        attached.run(node.checkpoint())
    assert "inner detail" not in told.args[0]
    assert "a command of the window failed" in caplog.text


def test_a_button_is_disabled_while_its_command_runs(qtbot: QtBot, attached: Bridge, node: FakeNode) -> None:
    button = QPushButton()
    qtbot.addWidget(button)
    node.hold = asyncio.Event()
    attached.run(node.resume(), busy=button)
    qtbot.waitUntil(lambda: ("resume",) in node.calls)
    assert not button.isEnabled()
    node.hold.set()
    qtbot.waitUntil(button.isEnabled)


def test_closing_ends_every_task(qtbot: QtBot, attached: Bridge, loop: asyncio.AbstractEventLoop) -> None:
    closing = loop.create_task(attached.close())
    qtbot.waitUntil(closing.done)
    qtbot.waitUntil(lambda: not asyncio.all_tasks(loop))


def test_a_reader_that_fails_once_does_not_stop_the_following(
    qtbot: QtBot, attached: Bridge, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = node.transactions
    calls: list[int] = []

    async def fail_once(limit: int | None = None) -> list[object]:
        calls.append(1)
        if len(calls) == 1:
            raise RpcUnreachable("gone")
        return list(await original(limit))

    monkeypatch.setattr(node, "transactions", fail_once)
    node.set_transactions()
    qtbot.waitUntil(lambda: bool(calls))
    node.set_transactions()
    qtbot.waitUntil(lambda: attached.transactions == [])


def test_a_rate_falls_to_nothing_when_no_token_comes() -> None:
    meter = RateMeter()
    for step in range(20):
        meter.add(1, 2, step * 0.1)
    assert meter.rates(2.0)[1] == pytest.approx(20, rel=0.1)
    assert meter.rates(60.0) == {}
