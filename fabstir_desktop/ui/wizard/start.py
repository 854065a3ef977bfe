"""The first two steps: what the app does, and what this computer has for it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fabstir_desktop.jobs.generation import EngineStatus
from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.machine import MachineFact, look_at_machine
from fabstir_desktop.ui.wizard.step import Fact, Step
from fabstir_desktop.ui.words import Tone


class WelcomeStep(Step):
    """What this does, what it costs, and under which licence."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge, self.tr("What this does"), self._explanation())
        self.show_facts(
            [
                (
                    Tone.OK,
                    self.tr("You are paid per token, by a contract. Every token is counted once and claimed once."),
                ),
                (Tone.OK, self.tr("Your key, the prompts and the answers never leave this computer through this app.")),
                (Tone.QUIET, self.tr("It uses your processor or GPU, memory, electricity and network while jobs run.")),
                (Tone.WARNING, self.tr("On a testnet what you earn has no monetary value.")),
                (
                    Tone.QUIET,
                    self.tr("Free software under the MIT licence, version {version}.").format(version=_version()),
                ),
            ]
        )

    def _explanation(self) -> str:
        return self.tr(
            "Your computer answers prompts with a language model, and is paid on chain for every token it made."
        )


class MachineStep(Step):
    """Processor, memory, disk, GPU and port; with warnings one can go on."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(
            bridge, self.tr("This computer"), self.tr("You can go on with warnings; they cost speed, not money.")
        )
        self._found: list[Fact] = []
        self._told: list[Fact] = []

    def opened(self) -> None:
        """Look at the machine."""
        if self.bridge.node is not None:
            self.run(look_at_machine(self.bridge.node.settings.data_dir), done=self._show_machine)

    def show_status(self, status: NodeStatus) -> None:
        """Show port and GPU as the node found them."""
        self._told = [self._port(status), self._gpu(status.engine)]
        self._show_all()

    def _show_machine(self, found: list[MachineFact]) -> None:
        self._found = [(Tone.OK if fact.is_enough else Tone.WARNING, fact.text) for fact in found]
        self._show_all()

    def _show_all(self) -> None:
        self.show_facts([*self._found, *self._told])

    def _port(self, status: NodeStatus) -> Fact:
        server = status.server
        if server.url is not None:
            return Tone.OK, self.tr("The port is free and open for this host: {url}").format(url=server.url)
        return Tone.WARNING, server.detail or self.tr("The server does not listen yet.")

    def _gpu(self, engine: EngineStatus) -> Fact:
        model = engine.model
        if model is None:
            return Tone.QUIET, self.tr("Whether a GPU computes the model is told as soon as one is loaded.")
        if model.gpu_layers == 0:
            return Tone.WARNING, self.tr("The model runs on the processor; no layer of it is on a GPU. That is slower.")
        told = self.tr("{gpu} of {all} layers of the model are on the GPU").format(
            gpu=model.gpu_layers, all=model.layer_count
        )
        return (Tone.OK if model.gpu_layers >= model.layer_count else Tone.WARNING), told


def _version() -> str:
    try:
        return version("fabstir-desktop")
    except PackageNotFoundError:
        from fabstir_desktop import __version__  # noqa: PLC0415 - started from the source folder

        return __version__
