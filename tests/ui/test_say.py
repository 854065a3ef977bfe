"""Sentences of rooms without Qt come out in the user's language: shown with a language that marks all it translates."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QCoreApplication, QTranslator
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from ui_support import FakeNode

from fabstir_desktop.jobs.states import problem
from fabstir_desktop.settings import editable_fields
from fabstir_desktop.settlement.gas_problems import low_gas_problem, no_gas_problem
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.resources import resource_dir
from fabstir_desktop.ui.say import CONTEXT, forget, say

ROOT = Path(__file__).resolve().parents[2]


class _Marked(QTranslator):
    """A language in which every sentence is the English one between marks."""

    def isEmpty(self) -> bool:  # noqa: N802 - Qt's name
        return False

    def translate(self, context: str, source: str, disambiguation: str | None = None, n: int = -1) -> str | None:
        source = source.replace("(s)", "s")
        return f"«{source}»" if context == CONTEXT else None


@pytest.fixture
def marked(qapp: QApplication) -> Iterator[None]:
    translator = _Marked()
    QCoreApplication.installTranslator(translator)
    forget()
    yield
    QCoreApplication.removeTranslator(translator)
    forget()


def test_without_another_language_every_sentence_stays_as_it_was_written(qapp: QApplication) -> None:
    forget()
    for text in (
        "Serving, 2 requests running",
        "The gas money lasts for about 38 more checkpoints.",
        "Paused until 14:00: on battery",
        "no sentence of ours: { braces }.",
        "",
        "…",
    ):
        assert say(text) == text


@pytest.mark.usefixtures("marked")
def test_values_are_put_into_the_translated_sentence() -> None:
    assert say("The gas money lasts for about 38 more checkpoints.") == (
        "«The gas money lasts for about 38 more checkpoints»."
    )
    assert say("Serving, 2 requests running") == "«Serving, «2 requests» running»"


@pytest.mark.usefixtures("marked")
def test_sentences_within_sentences_are_translated_too() -> None:
    said = say("Serving, waiting for jobs; not paid yet: No host key yet.")
    assert said == "««Serving, waiting for jobs»; not paid yet: «No host key yet»»."


@pytest.mark.usefixtures("marked")
def test_what_rooms_find_is_recognised_as_they_tell_it() -> None:
    low, none = low_gas_problem(38), no_gas_problem(10**15)
    assert low is not None
    for found in (low, none, problem("M01", "No model selected.")):
        assert say(found.message).startswith("«"), found.message
        assert say(found.action).startswith("«")
        assert not found.advice or say(found.advice).startswith("«")


@pytest.mark.usefixtures("marked")
def test_what_is_not_ours_stays_as_it_is() -> None:
    assert say("libfoo.so: cannot open shared object file") == "libfoo.so: cannot open shared object file"


@pytest.mark.usefixtures("marked")
def test_the_window_shows_problems_state_and_settings_in_that_language(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode
) -> None:
    window = make_window(busy_node)
    busy_node.set_problems(problem("G01", "The gas money lasts for about 38 more checkpoints.", advice="Stop now"))
    qtbot.waitUntil(lambda: bool(window.problems.texts()))
    row = window.problems._rows[0]
    assert row.message.text() == "«The gas money lasts for about 38 more checkpoints»."
    assert row.advice.text() == "«Stop now»."
    assert row.action_button.text() == "«Fund»"
    assert window.strip.sentence.full_text == "«Serving, «2 requests» running»"
    assert window.dashboard.now.detail.full_text
    window.show_page("settings")
    rows = window.settings_page.row_by_name
    assert all(rows[name].description.text().startswith("«") for name in editable_fields())
    qtbot.waitUntil(lambda: "«at the next start»" in rows["api_port"].facts.text())


def test_the_files_of_sentences_are_those_that_the_sources_have(qapp: QApplication) -> None:
    """Else: .venv/bin/python packaging/extract_sentences.py."""
    script = runpy.run_path(str(ROOT / "packaging" / "extract_sentences.py"))
    sources = script["sentences"]()
    folder = resource_dir() / "translations"
    assert (folder / "sentences.txt").read_text(encoding="utf-8").splitlines() == sources
    assert script["as_context"](sources) in (folder / "fabstir_desktop_en.ts").read_text(encoding="utf-8")


@pytest.mark.usefixtures("marked")
def test_every_sentence_is_recognised_with_values_in_it() -> None:
    """Each source, filled in, comes out translated: no pattern is broken."""
    lines = (resource_dir() / "translations" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    filled = {line: line.replace("{", "").replace("}", "") for line in lines}
    assert [line for line, text in filled.items() if "«" not in say(text)] == []
