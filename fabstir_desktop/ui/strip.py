"""The strip at the top: state, one sentence, one button; and the footer with the parts' lamps."""

from __future__ import annotations

import time

from PySide6.QtCore import QCoreApplication, QPoint, Qt, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFrame, QMenu

from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import ChainState, NodeStatus, ServingState, WalletState
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.say import say
from fabstir_desktop.ui.widgets.basics import ElidedLabel, badge, button, label, row, set_text, tinted
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import Tone, chain_word, serving_word, shape_tone, tray_shape, wallet_word

translate = QCoreApplication.translate

_HOUR_S = 3600.0


class StatusStrip(QFrame):
    """What the host does now, and the one thing to do about it."""

    pauseRequested = Signal(str)
    """`now`, `hour` or `after_jobs`."""
    resumeRequested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("strip")
        self.lamp = Lamp(scale=1.5)
        self.word = label("", "state")
        self.sentence = ElidedLabel("muted")
        self.demo_badge = badge(self.tr("DEMO"), Tone.BUSY)
        self.testnet_badge = badge("", Tone.WARNING)
        self.public_badge = badge(self.tr("PUBLIC"), Tone.WARNING)
        self.block = label("", "muted")
        self.button = button("", self._press)
        self._menu = self._make_menu()
        self.is_paused = False
        self._is_narrow = False
        layout = row(self.lamp, self.word, spacing=12)
        layout.setContentsMargins(20, 12, 20, 12)
        layout.addWidget(self.sentence, 1)
        for widget in (self.block, self.public_badge, self.demo_badge, self.testnet_badge, self.button):
            layout.addWidget(widget)
        self.setLayout(layout)
        self.show_status(None, ())

    def show_status(self, status: NodeStatus | None, problems: tuple[Problem, ...]) -> None:
        """Show the state of the node; None while it starts."""
        word = serving_word(status)
        set_text(self.word, word)
        self.lamp.show_tone(shape_tone(tray_shape(status, problems)), word)
        self.sentence.show_text(say(status.sentence) if status else self.tr("The host is starting."))
        self.demo_badge.setVisible(status is not None and status.demo)
        self._show_exposure(status)
        self._show_chain(status)
        self._show_button(status)

    def show_narrow(self, is_narrow: bool) -> None:
        """In a narrow window the badge is one word, and the block's age is left to the badge's tool tip."""
        self._is_narrow = is_narrow
        self.block.setVisible(not is_narrow)
        self._name_testnet()

    def _name_testnet(self) -> None:
        text = self.tr("TESTNET · no monetary value")
        set_text(self.testnet_badge, self.tr("TESTNET") if self._is_narrow else text)
        self.testnet_badge.setAccessibleName(text)
        self.testnet_badge.setToolTip(" · ".join(part for part in (text, self.block.text()) if part))

    def _show_exposure(self, status: NodeStatus | None) -> None:
        """What others can reach stands here for as long as they can."""
        sentences = tuple(say(sentence) for sentence in status.server.exposure) if status else ()
        self.public_badge.setVisible(bool(sentences))
        self.public_badge.setToolTip("\n".join(sentences))
        self.public_badge.setAccessibleDescription(" ".join(sentences))

    def _show_chain(self, status: NodeStatus | None) -> None:
        chain = status.chain if status else None
        self.testnet_badge.setVisible(chain is not None and chain.is_testnet)
        if chain is None:
            self.block.setText("")
            return
        text = self.tr("Demo chain") if status is not None and status.demo else chain.chain_name
        if chain.head_age_s is not None:
            text = self.tr("{chain} · block {age} ago").format(chain=text, age=fmt.duration(chain.head_age_s))
        set_text(self.block, text)
        self._name_testnet()

    def _show_button(self, status: NodeStatus | None) -> None:
        # A pause that is on its way can be taken back like one that has begun.
        state = status.state if status is not None else None
        self.is_paused = state in {ServingState.PAUSED, ServingState.DRAINING}
        self.button.setEnabled(self.is_paused or state is ServingState.SERVING)
        text = self.tr("Resume") if self.is_paused else self.tr("Pause")
        if self.button.text() != text:
            self.button.setText(text)
            self.button.setAccessibleName(self.tr("Resume serving") if self.is_paused else self.tr("Pause serving"))
            tinted(self.button, "play" if self.is_paused else "pause")
            self.button.setMinimumWidth(self.button.fontMetrics().horizontalAdvance(self.tr("Resume")) + 64)

    def _press(self) -> None:
        if self.is_paused:
            self.resumeRequested.emit()
            return
        self._menu.popup(self.button.mapToGlobal(QPoint(0, self.button.height())))

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)
        for text, how in pause_choices():
            action = QAction(text, menu)
            action.triggered.connect(lambda _checked=False, how=how: self.pauseRequested.emit(how))
            menu.addAction(action)
        return menu


def pause_choices() -> list[tuple[str, str]]:
    """The ways to pause: what is written, and its word."""
    return [
        (translate("strip", "After current jobs"), "after_jobs"),
        (translate("strip", "For 1 hour"), "hour"),
        (translate("strip", "Until I resume"), "now"),
    ]


class Footer(QFrame):
    """Model, chain, key, server: a lamp and a word each, always in the same place."""

    pageRequested = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("footer")
        self._lamps: dict[str, Lamp] = {}
        self._words: dict[str, ElidedLabel] = {}
        layout = row(spacing=8)
        layout.setContentsMargins(20, 7, 20, 7)
        for part, share in (("model", 3), ("chain", 3), ("key", 3), ("server", 3)):
            self._lamps[part] = Lamp()
            self._words[part] = ElidedLabel("muted")
            layout.addWidget(self._lamps[part])
            layout.addWidget(self._words[part], share)
        self.uptime = label("", "muted")
        self.uptime.setAlignment(Qt.AlignmentFlag.AlignRight)
        layout.addWidget(self.uptime)
        self.setLayout(layout)

    def text_of(self, part: str) -> str:
        """What stands for `model`, `chain`, `key` or `server`."""
        return self._words[part].full_text

    def show_status(self, status: NodeStatus) -> None:
        """Show the state of every part."""
        self._show("model", *self._model(status))
        self._show("chain", *self._chain(status))
        self._show("key", *self._key(status))
        self._show("server", *self._server(status))
        set_text(self.uptime, self.tr("up {duration}").format(duration=fmt.duration(time.time() - status.started_at)))

    def _show(self, part: str, tone: Tone, text: str) -> None:
        self._lamps[part].show_tone(tone, text)
        self._words[part].show_text(text)

    def _model(self, status: NodeStatus) -> tuple[Tone, str]:
        engine = status.engine
        match engine.state:
            case EngineState.READY if engine.model:
                return Tone.OK, self.tr("Model {name}").format(name=engine.model.name)
            case EngineState.LOADING:
                return Tone.BUSY, self.tr("Loading the model, {percent} %").format(
                    percent=round(engine.load_progress * 100)
                )
            case EngineState.RESTARTING:
                return Tone.WARNING, self.tr("Model process restarts")
            case EngineState.FAILED:
                return Tone.ERROR, self.tr("Model failed")
            case EngineState.NO_MODEL:
                return Tone.ERROR, self.tr("No model")
            case _:
                return Tone.QUIET, self.tr("Model stopped")

    def _chain(self, status: NodeStatus) -> tuple[Tone, str]:
        tone = {ChainState.READY: Tone.OK, ChainState.CONNECTING: Tone.BUSY, ChainState.UNREACHABLE: Tone.WARNING}
        text = self.tr("Chain {state} ({rpc})").format(state=chain_word(status.chain.state), rpc=status.chain.rpc)
        return tone.get(status.chain.state, Tone.ERROR), text

    def _key(self, status: NodeStatus) -> tuple[Tone, str]:
        wallet = status.wallet
        bad = dict.fromkeys((WalletState.INVALID, WalletState.OTHER_KEY, WalletState.OTHER_PLACE), Tone.ERROR)
        tone = {WalletState.READY: Tone.OK, WalletState.LOADING: Tone.BUSY, **bad}
        place = f" ({wallet.location})" if wallet.location and wallet.state is WalletState.READY else ""
        return tone.get(wallet.state, Tone.WARNING), wallet_word(wallet.state).capitalize() + place

    def _server(self, status: NodeStatus) -> tuple[Tone, str]:
        if status.server.url is None:
            return Tone.ERROR, say(status.server.detail) or self.tr("Not listening")
        return Tone.OK, self.tr("{url} · {connections} connected").format(
            url=status.server.url, connections=status.server.connections
        )


def pause_seconds(how: str) -> float | None:
    """How long a pause of this kind lasts; None until resumed."""
    return _HOUR_S if how == "hour" else None
