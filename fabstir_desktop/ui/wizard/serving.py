"""Model, reach, self-test: what serving needs, and the proof that it works."""

from __future__ import annotations

from pathlib import Path

import shiboken6
from PySide6.QtWidgets import QPlainTextEdit

from fabstir_desktop.jobs.checks import Check
from fabstir_desktop.jobs.generation import EngineState, EngineStatus
from fabstir_desktop.jobs.inspections import ModelOnDisk
from fabstir_desktop.jobs.status import NodeStatus, ServerStatus
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.files import choose_file
from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.widgets.basics import button, row
from fabstir_desktop.ui.wizard.step import Fact, Step
from fabstir_desktop.ui.words import Tone

_TEST_LINES = 200


class ModelStep(Step):
    """Choose a file; it is loaded and served. What does not fit or load is said here."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(
            bridge,
            self.tr("Model"),
            self.tr("The file stays where it is. A model that fits into memory answers fast."),
        )
        self._fit: Fact | None = None
        self.choose_button = button(self.tr("Choose a GGUF file…"), self.choose, kind="primary", icon="models")
        self.page_button = button(self.tr("All models…"), lambda: self.pageRequested.emit("models", ""))
        self.body.addLayout(row(self.choose_button, self.page_button, None))

    def choose(self) -> None:
        """Ask for a file and load it."""
        choose_file(self, self.tr("Choose a model"), self.tr("Models (*.gguf)"), self.load)

    def load(self, path: Path) -> None:
        """Say whether the file fits, then load and serve it."""
        node = self.bridge.node
        if node is None:
            return
        self.run(node.list_models([path.parent]), done=lambda found: self._show_fit(path, found))
        self.run(node.load_model(path), busy=self.choose_button)

    def _show_fit(self, path: Path, found: list[ModelOnDisk]) -> None:
        file = next((file for file in found if file.path is not None and file.path.name == path.name), None)
        if file is None or file.needed_bytes is None or file.free_bytes is None:
            self._fit = None
            return
        told = self.tr("{name} needs about {needed}, {free} are free").format(
            name=path.stem, needed=fmt.size(file.needed_bytes), free=fmt.size(file.free_bytes)
        )
        self._fit = (Tone.OK if file.fits else Tone.WARNING, told)
        if self.bridge.status is not None:
            self.show_status(self.bridge.status)

    def show_status(self, status: NodeStatus) -> None:
        """Show what is loaded."""
        self.show_facts([self._loaded(status.engine), *([self._fit] if self._fit else [])])

    def _loaded(self, engine: EngineStatus) -> Fact:
        if engine.model is not None and engine.state is EngineState.READY:
            told = self.tr("{name} is loaded, {size}")
            return Tone.OK, told.format(name=engine.model.name, size=fmt.size(engine.model.size_bytes))
        if engine.state is EngineState.LOADING:
            return Tone.BUSY, self.tr("Loading, {percent} %").format(percent=round(engine.load_progress * 100))
        return Tone.WARNING, engine.detail or self.tr("No model is loaded.")


class ReachStep(Step):
    """Who can reach this host; customers come from outside, so this is a step of its own. It can be left for later."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(
            bridge,
            self.tr("Going public"),
            self.tr(
                "Customers need a way in: a port that your router forwards, or a reverse proxy with TLS, and its address "
                "in Settings. Until then only programs on this computer can send prompts."
            ),
        )
        self._checked: list[Fact] = []
        self._server: ServerStatus | None = None
        self.check_button = button(self.tr("Try from outside"), self.check, kind="primary", icon="refresh")
        self.settings_button = button(
            self.tr("Set it up in Settings"), lambda: self.pageRequested.emit("settings", "api_host")
        )
        self.body.addLayout(row(self.check_button, self.settings_button, None))

    def check(self) -> None:
        """Connect to the public address as a customer would."""
        node = self.bridge.node
        if node is not None:
            self._checked = [(Tone.BUSY, self.tr("The public address is tried…"))]
            self._show_all()
            self.run(node.check_reach(), done=self._show_check, failed=self._show_failure, busy=self.check_button)

    def _show_check(self, check: Check) -> None:
        told = check.detail if check.passed else f"{check.detail} – {check.action}"
        told = told[:1].upper() + told[1:]
        self._checked = [(Tone.OK if check.passed else Tone.WARNING, told)]
        self._show_all()

    def _show_failure(self, text: str) -> None:
        self._checked = [(Tone.ERROR, text)]
        self._show_all()

    def show_status(self, status: NodeStatus) -> None:
        """Show who can connect now."""
        self._server = status.server
        self._show_all()

    def _show_all(self) -> None:
        server = self._server
        if server is None:
            return
        facts: list[Fact] = []
        if server.url is not None:
            facts.append((Tone.OK, self.tr("Listening on {url}").format(url=server.url)))
        if server.exposure:
            facts.extend((Tone.WARNING, say(sentence)) for sentence in server.exposure)
        else:
            facts.append((Tone.QUIET, self.tr("Only this computer can connect: no customer can reach you yet.")))
        self.show_facts([*facts, *self._checked])


class SelfTestStep(Step):
    """A real prompt through the real socket, then the chain; no transaction is sent."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(
            bridge,
            self.tr("Self-test"),
            self.tr("A real prompt through the real socket, counted; then the chain is asked. No transaction is sent."),
        )
        self.test_button = button(self.tr("Run the self-test"), self.run_test, kind="primary", icon="play")
        self.answer = QPlainTextEdit()
        self.answer.setReadOnly(True)
        self.answer.setTabChangesFocus(True)
        self.answer.setProperty("role", "mono")
        self.answer.setMaximumBlockCount(_TEST_LINES)
        self.answer.setPlaceholderText(self.tr("The answer appears here."))
        self.answer.setAccessibleName(self.tr("The answer of the self-test"))
        self.body.addWidget(self.answer)
        self.body.addLayout(row(self.test_button, None))

    def run_test(self) -> None:
        """Stream an answer and show what was found."""
        node = self.bridge.node
        if node is None:
            return
        self.answer.clear()
        self.show_facts([(Tone.BUSY, self.tr("A prompt is on its way…"))])
        self.run(node.self_test(self._show_text), done=self._show_checks, failed=self._fail, busy=self.test_button)

    def _show_text(self, text: str) -> None:
        if shiboken6.isValid(self.answer):  # a piece may come in the very moment the steps are left
            self.answer.insertPlainText(text)

    def _show_checks(self, checks: list[Check]) -> None:
        facts = []
        for check in checks:
            text = f"{check.name}: {check.detail}" + ("" if check.passed else f" – {check.action}")
            facts.append((Tone.OK if check.passed else Tone.ERROR, text))
        self.show_facts(facts)

    def _fail(self, text: str) -> None:
        self.show_facts([(Tone.ERROR, text)])
