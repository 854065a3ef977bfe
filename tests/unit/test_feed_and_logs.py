"""The feed survives a broken reader; a log line is one line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import Event, JobChanged, TokensCounted
from fabstir_desktop.logs import start_logging


def test_a_subscriber_gets_its_type_and_the_types_below_until_it_leaves() -> None:
    feed = Feed()
    every: list[Event] = []
    jobs: list[JobChanged] = []
    feed.subscribe(Event, every.append)
    leave = feed.subscribe(JobChanged, jobs.append)
    feed.publish(JobChanged(7))
    leave()
    leave()
    feed.publish(JobChanged(8))
    feed.publish(TokensCounted(7, "s", 1, 1))
    assert [event.job_id for event in jobs] == [7]
    assert len(every) == 3


def test_a_subscriber_that_raises_does_not_disturb_the_others(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    seen: list[Event] = []

    def broken(_: JobChanged) -> None:
        raise RuntimeError("broken reader")

    feed.subscribe(JobChanged, broken)
    feed.subscribe(JobChanged, seen.append)
    feed.publish(JobChanged(1))
    assert seen == [JobChanged(1)]
    assert "broken reader" in caplog.text


def test_what_a_client_sent_cannot_forge_a_line_or_colour_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "app.log"
    writer = start_logging(file, "INFO")
    try:
        logging.getLogger("fabstir_desktop.test").warning(
            "session %s", "x\n2026-01-01 INFO Checkpoint confirmed\r\x1b[31m\u2028y"
        )
    finally:
        writer.stop()
        writer.stop()
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert "\\x0a" in lines[0]
    assert "\x1b" not in lines[0]


def test_the_level_applies_to_our_own_lines(tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    writer = start_logging(file, "WARNING")
    logging.getLogger("fabstir_desktop.test").info("quiet")
    logging.getLogger("fabstir_desktop.test").warning("loud")
    writer.stop()
    assert "loud" in file.read_text()
    assert "quiet" not in file.read_text()


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(EnvironmentFault, match="log file"):
        start_logging(tmp_path / "logs" / "app.log", "INFO")
