"""The models: what is loaded and how well, the files at hand, and choosing another."""

from __future__ import annotations

from pathlib import Path

import shiboken6
from PySide6.QtCore import QCoreApplication, QSettings
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QProgressBar, QSpinBox, QStackedWidget, QWidget

from fabstir_desktop.jobs.generation import EngineState, ModelInfo
from fabstir_desktop.jobs.inspections import ModelOnDisk
from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.dialogs.files import choose_file
from fabstir_desktop.ui.models.keyed_table import Column, KeyedTableModel
from fabstir_desktop.ui.models.sorting import ValueSortProxy
from fabstir_desktop.ui.pages.page import Page
from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.theme import colours
from fabstir_desktop.ui.widgets.basics import Card, CopyField, EmptyState, badge, button, label, row, set_text, set_tone
from fabstir_desktop.ui.widgets.flow import Flow, flow
from fabstir_desktop.ui.widgets.tables import choose_row, chosen_row, make_table
from fabstir_desktop.ui.words import Tone

translate = QCoreApplication.translate

_AUTOMATIC = -1
_MOST_LAYERS = 1000
_ADDED = "models/folders"
_FOLDERS_KEPT = 20


class ModelsPage(Page):
    """The model that answers, and the others that could."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge)
        self.add_button = button(self.tr("Add a GGUF file…"), self.add, kind="primary", icon="plus")
        self.add_button.setToolTip(self.tr("Its folder is listed below; what is served stays."))
        layout = self.lay_out(self.tr("Models"), self.add_button)
        self._is_trying = False
        self._wanted: Path | None = None
        """Chosen as soon as it is listed."""
        self.card = Card()
        self._fill_card()
        layout.addWidget(self.card)
        self.found = _FilesModel(self)
        self.proxy = ValueSortProxy(self)
        self.proxy.setSourceModel(self.found)
        self.table = make_table(self.proxy, self.tr("Model files at hand"), (30, 9, 18, 38, 11), stretch=0)
        self.table.setMinimumHeight(self.fontMetrics().height() * 9)
        self._make_buttons()
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._choose_row())
        tools = (self.rescan_button, self.try_button, self.load_button)
        layout.addLayout(flow(label(self.tr("Files at hand"), "title"), None, *tools))
        self.files = QStackedWidget()
        self.files.addWidget(
            EmptyState(
                "folder",
                self.tr("No other model files"),
                self.tr(
                    "Files in the folders of the served model and of those you added, and in “models” in the data "
                    "directory, are listed here."
                ),
            )
        )
        self.files.addWidget(self.table)
        layout.addWidget(self.files, 1)
        bridge.statusChanged.connect(self._show_status)
        self._show_status(bridge.status)

    def _make_buttons(self) -> None:
        self.rescan_button = button(self.tr("Look again"), self.rescan, icon="refresh")
        self.try_button = button(self.tr("Try to load"), self._try_chosen, icon="play")
        self.try_button.setToolTip(self.tr("Loads the chosen file beside what is served, and lets it go again."))
        self.load_button = button(self.tr("Serve it"), self._load_chosen, icon="check")
        self.load_button.setToolTip(self.tr("From the end of the running requests on, in place of what is served now."))
        self._choose_row()

    # long: one card, a row after the other
    def _fill_card(self) -> None:
        self.state_badge = badge("", Tone.QUIET)
        self.name = label("", "title")
        self.progress = QProgressBar()
        self.progress.setAccessibleName(self.tr("Loading the model"))
        self.progress.setRange(0, 100)
        self.detail = label("", "muted", wrap=True)
        self.card.body.addLayout(row(self.name, self.state_badge, None))
        self.card.body.addWidget(self.detail)
        self.warning = label("", wrap=True)
        self.card.body.addWidget(self.warning)
        self.card.body.addWidget(self.progress)
        self._fill_facts()
        self.empty = EmptyState(
            "models",
            self.tr("No model selected"),
            self.tr("Choose a GGUF file of a chat model. It is read, not copied, and stays where it is."),
            button(self.tr("Choose a GGUF file…"), self.choose, kind="primary"),
        )
        self.body = QStackedWidget()
        self.body.addWidget(self.facts)
        self.body.addWidget(self.empty)
        self.card.body.addWidget(self.body)

    def _fill_facts(self) -> None:
        self.facts = QWidget()
        grid = QGridLayout(self.facts)
        grid.setContentsMargins(0, 4, 0, 0)
        grid.setHorizontalSpacing(22)
        grid.setVerticalSpacing(6)
        names = {
            "size": self.tr("Size"),
            "parameters": self.tr("Parameters"),
            "quantisation": self.tr("Quantisation"),
            "context": self.tr("Context window"),
            "layers": self.tr("Layers on the GPU"),
            "streams": self.tr("Prompts at a time"),
            "rate": self.tr("Tokens/s now"),
            "restarts": self.tr("Restarts"),
        }
        self.values: dict[str, QLabel] = {}
        for place, (name, text) in enumerate(names.items()):
            self.values[name] = label(fmt.UNKNOWN, selectable=True)
            grid.addWidget(label(text, "muted"), place % 4, place // 4 * 2)
            grid.addWidget(self.values[name], place % 4, place // 4 * 2 + 1)
        self.hash = CopyField(self.tr("SHA-256 of the file"), fmt.short_hash)
        self.path = CopyField(self.tr("path of the file"))
        grid.addWidget(label(self.tr("SHA-256"), "muted"), 4, 0)
        grid.addWidget(self.hash, 4, 1)
        grid.addWidget(label(self.tr("File"), "muted"), 5, 0)
        grid.addWidget(self.path, 5, 1, 1, 3)
        grid.addWidget(label(self.tr("GPU layers"), "muted"), 6, 0)
        grid.addLayout(self._make_layers(), 6, 1, 1, 3)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)

    def _make_layers(self) -> Flow:
        self.layers = QSpinBox()
        self.layers.setRange(_AUTOMATIC, _MOST_LAYERS)
        self.layers.setSpecialValueText(self.tr("As many as fit"))
        self.layers.setAccessibleName(self.tr("Layers kept on the GPU"))
        self.layers.setMinimumSize(self.fontMetrics().averageCharWidth() * 22, self.fontMetrics().height() * 2)
        self.layers_button = button(self.tr("Store"), self._store_layers)
        self.layers_note = label(self.tr("A change takes effect at the next start."), "muted")
        self._is_layers_read = False
        return flow(self.layers, self.layers_button, self.layers_note)

    def _store_layers(self) -> None:
        node = self.bridge.node
        if node is None:
            return
        chosen = self.layers.value()
        done = self.tr("Stored. It takes effect at the next start.")
        self.bridge.run(
            node.save_setting("gpu_layers", None if chosen == _AUTOMATIC else chosen),
            done=lambda _: self.bridge.noticed.emit(done),
            busy=self.layers_button,
        )

    # --- showing ------------------------------------------------------------------------------------------------------

    def _show_status(self, status: NodeStatus | None) -> None:
        if status is None:
            return
        if not self._is_layers_read and self.bridge.node is not None:
            self._is_layers_read = True
            stored = self.bridge.node.settings.gpu_layers
            self.layers.setValue(_AUTOMATIC if stored is None else stored)
        engine, model = status.engine, status.engine.model
        word, tone = self._state(engine.state)
        set_text(self.state_badge, word)
        set_tone(self.state_badge, tone, "badge")
        set_text(self.name, model.name if model else self.tr("No model is loaded"))
        set_text(self.detail, engine.detail)
        self.detail.setVisible(bool(engine.detail))
        set_text(self.warning, f"⚠  {engine.warning}" if engine.warning else "")
        set_tone(self.warning, Tone.WARNING)
        self.warning.setVisible(bool(engine.warning))
        self.progress.setVisible(engine.state is EngineState.LOADING)
        self.progress.setValue(round(engine.load_progress * 100))
        is_empty = model is None and engine.state is EngineState.NO_MODEL
        self.body.setCurrentIndex(1 if is_empty else 0)
        self._show_model(model)
        set_text(
            self.values["streams"],
            self.tr("{active} of {all}").format(active=engine.active_streams, all=engine.parallel_streams),
        )
        set_text(self.values["rate"], fmt.rate(engine.tokens_per_second))
        set_text(self.values["restarts"], str(engine.restarts))

    def _state(self, state: EngineState) -> tuple[str, Tone]:
        return {
            EngineState.READY: (self.tr("Loaded"), Tone.OK),
            EngineState.LOADING: (self.tr("Loading"), Tone.BUSY),
            EngineState.RESTARTING: (self.tr("Restarting"), Tone.WARNING),
            EngineState.FAILED: (self.tr("Failed"), Tone.ERROR),
            EngineState.NO_MODEL: (self.tr("None"), Tone.QUIET),
            EngineState.STOPPED: (self.tr("Stopped"), Tone.QUIET),
        }[state]

    def _show_model(self, model: ModelInfo | None) -> None:
        texts = dict.fromkeys(("size", "parameters", "quantisation", "context", "layers"), fmt.UNKNOWN)
        if model is not None:
            texts = {
                "size": fmt.size(model.size_bytes),
                "parameters": fmt.parameters(model.parameter_count),
                "quantisation": model.quantisation,
                "context": self.tr("{tokens} tokens").format(tokens=fmt.count(model.context_window)),
                "layers": self._layers(model),
            }
        for name, text in texts.items():
            set_text(self.values[name], text)
        is_partial = model is not None and 0 < model.gpu_layers < model.layer_count
        set_tone(self.values["layers"], Tone.WARNING if is_partial else Tone.QUIET if model is None else Tone.OK)
        self.hash.show_value(model.sha256 if model else "")
        self.path.show_value(model.path if model else "")

    def _layers(self, model: ModelInfo) -> str:
        if model.gpu_layers == 0:
            return self.tr("none: runs on the CPU")
        share = self.tr("{gpu} of {all}").format(gpu=model.gpu_layers, all=model.layer_count)
        return (
            share
            if model.gpu_layers >= model.layer_count
            else self.tr("{share}: the rest on the CPU, slower").format(share=share)
        )

    # --- files --------------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Look at the files when the page opens."""
        super().showEvent(event)
        if not self.found.rowCount():
            self.rescan()

    def rescan(self) -> None:
        """Look for model files beside the loaded one and in the data directory."""
        node, status = self.bridge.node, self.bridge.status
        if node is None or status is None:
            return
        folders = [Path(status.data_dir) / "models", *self._added()]
        model = status.engine.model
        if model is not None:
            folders.append(Path(model.path).parent)
        self.found.loaded = Path(model.path) if model is not None else None
        self.bridge.run(node.list_models(folders), done=self._show_files, busy=self.rescan_button)

    def _show_files(self, files: list[ModelOnDisk]) -> None:
        self.found.show({str(file.path or file.detail): file for file in files})
        self.found.tell_changed([str(file.path or file.detail) for file in files])
        self.files.setCurrentIndex(1 if files else 0)
        if self._wanted is not None:
            found = next(
                (file for file in files if self._wanted.name in {file.name, file.path and file.path.name}), None
            )
            if found is not None:  # else an earlier look at the folders ended now
                self._wanted = None
                choose_row(self.table, self.found.index_of(str(found.path or found.detail)))

    def _choose_row(self) -> None:
        file: ModelOnDisk | None = chosen_row(self.table)
        is_usable = file is not None and file.path is not None and file.path != self.found.loaded
        self.load_button.setEnabled(is_usable)
        self.try_button.setEnabled(is_usable and not self._is_trying)

    def add(self) -> None:
        """Ask for a file and list it; what is served stays."""
        choose_file(self, self.tr("Add a model"), self.tr("Models (*.gguf)"), self.add_file)

    def add_file(self, path: Path) -> None:
        """List this file from now on, with its folder, and choose its row."""
        folders = [folder for folder in self._added() if folder != path.parent]
        QSettings().setValue(_ADDED, [str(folder) for folder in (*folders, path.parent)][-_FOLDERS_KEPT:])
        self._wanted = path
        self.rescan()

    def _added(self) -> list[Path]:
        stored = QSettings().value(_ADDED) or []
        return [Path(text) for text in ([stored] if isinstance(stored, str) else stored)]

    def _try_chosen(self) -> None:
        """Load the chosen file in a process beside the one that serves, and say how it went."""
        file: ModelOnDisk | None = chosen_row(self.table)
        node = self.bridge.node
        if node is None or file is None or file.path is None:
            return
        self._is_trying = True
        self.bridge.noticed.emit(self.tr("{name} is tried beside what is served…").format(name=file.path.stem))
        task = self.bridge.run(node.try_model(file.path), done=lambda told: self.bridge.noticed.emit(f"{say(told)}."))
        self._choose_row()
        task.add_done_callback(self._end_trying)

    def _end_trying(self, _: object) -> None:
        self._is_trying = False
        if shiboken6.isValid(self):
            self._choose_row()

    def choose(self) -> None:
        """Ask for a file and serve it: what stands in the way is that none is served."""
        choose_file(self, self.tr("Choose a model"), self.tr("Models (*.gguf)"), self.load)

    def _load_chosen(self) -> None:
        file: ModelOnDisk | None = chosen_row(self.table)
        if file is not None and file.path is not None:
            self.load(file.path)

    def load(self, path: Path) -> None:
        """Serve this file once running requests have ended."""
        node = self.bridge.node
        if node is None:
            return
        done = self.tr("{name} is served from now on.").format(name=path.stem)
        self.bridge.noticed.emit(self.tr("{name} is loaded after the running requests.").format(name=path.stem))

        def loaded(_: None) -> None:
            self.bridge.noticed.emit(done)
            self.rescan()

        self.bridge.run(node.load_model(path), done=loaded, busy=self.load_button)


def _fit_text(file: ModelOnDisk) -> str:
    if file.needed_bytes is None or file.free_bytes is None:
        return fmt.UNKNOWN
    text = (
        translate("models", "Needs {needed}, {free} free: fits")
        if file.fits
        else translate("models", "Needs {needed}, {free} free: too large")
    )
    return text.format(needed=fmt.size(file.needed_bytes), free=fmt.size(file.free_bytes))


def _description(file: ModelOnDisk) -> str:
    """Architecture, quantisation, parameters, context and template, or why the file cannot be used."""
    parts = [file.detail]
    if file.parameter_count:
        parts.append(fmt.parameters(file.parameter_count))
    if file.context_tokens:
        parts.append(translate("models", "{tokens} tokens").format(tokens=fmt.count(file.context_tokens)))
    if file.has_template is False:
        parts.append(translate("models", "no chat template"))
    return " · ".join(part for part in parts if part)


class _FilesModel(KeyedTableModel[ModelOnDisk]):
    """Model files by path; `loaded` is the path of the one that answers."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__((), parent)
        self.loaded: Path | None = None
        self._columns = (
            Column(
                self.tr("File"), lambda file: file.name, lambda file: file.name, tip=lambda file: str(file.path or "")
            ),
            Column(
                self.tr("Size"),
                lambda file: fmt.size(file.size_bytes),
                lambda file: file.size_bytes or 0,
                is_number=True,
            ),
            Column(self.tr("What it is"), _description, _description, tip=_description),
            Column(
                self.tr("Memory"),
                _fit_text,
                lambda file: file.needed_bytes or 0,
                tip=_fit_text,
                colour=lambda file: colours().tones[Tone.WARNING] if file.fits is False else None,
            ),
            Column(self.tr("State"), self._state, self._state),
        )

    def _state(self, file: ModelOnDisk) -> str:
        if file.path is None:
            return self.tr("✕  Not usable")
        return self.tr("✓  Loaded") if file.path == self.loaded else self.tr("○  At hand")
