"""The worker's threads that use llama.cpp: loading, preparing and the decode loop."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fabstir_desktop import allocator
from fabstir_desktop.inference import machine, wire
from fabstir_desktop.inference.core import EngineCore, StepReport
from fabstir_desktop.inference.gpu import Needs, layer_attempts, shortfall
from fabstir_desktop.inference.lanes import Lanes
from fabstir_desktop.inference.llama import (
    ContextOptions,
    LlamaError,
    LlamaLog,
    LlamaModel,
    OutOfMemory,
    gpu_devices,
)
from fabstir_desktop.inference.preparation import Prepared, Preparer
from fabstir_desktop.inference.templates import TemplateError

GATHER_S = 0.002
"""How long an idle worker waits for more requests that begin together with the first."""
IDLE_S = 2.0
"""How long an idle worker keeps memory that is free before it gives it back."""
PROGRESS_STEP = 0.02

Send = Callable[[wire.Message], None]
Guard = Callable[[Callable[[], None]], Callable[[], None]]
Work = Prepared | wire.Refused | wire.Cancel | wire.Hold | wire.Forget
WorkQueue = queue.SimpleQueue[Work]


def serve(load: wire.Load, lanes: Lanes, work: WorkQueue, send: Send, guard: Guard) -> None:
    """Load the model, then answer for ever. A model that cannot be loaded is reported.

    Requests come through `lanes`, prepared in threads of their own; `work` takes them to the decode loop, and cancels past
    them.
    """
    try:
        loaded = load_model(load, send)
    except (LlamaError, TemplateError) as error:
        send(wire.LoadFailed(str(error), is_memory=isinstance(error, OutOfMemory)))
        return
    for is_long in (False, True):
        preparing = partial(lanes.run, loaded.preparer.prepare, work.put, is_long=is_long)
        threading.Thread(target=guard(preparing), name="prepare", daemon=True).start()
    send(loaded.ready)
    DecodeLoop(loaded.core, work, lanes, send).run()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to serve."""

    core: EngineCore
    preparer: Preparer
    ready: wire.Ready
    log: LlamaLog
    """Kept for as long as llama.cpp may call it."""


def load_model(load: wire.Load, send: Send) -> Loaded:
    """Load model, template and context; where these do not fit on the GPU, with fewer layers there.

    Raises LlamaError (OutOfMemory for want of it) or TemplateError.
    """
    log = LlamaLog()
    devices = gpu_devices()
    needs = Needs(load.weights_bytes, load.cache_bytes, load.layer_count)
    failure: LlamaError = LlamaError("llama.cpp cannot load this file")
    for layers in layer_attempts(load.gpu_layers, devices, needs, load.failed_loads):
        log.offloaded_layers = 0
        try:
            core, preparer, model = _load_with(load, layers, log, send)
        except LlamaError as error:
            failure = error
            continue
        warning = shortfall(
            load.gpu_layers, log.offloaded_layers, devices, needs, machine_has_gpu=machine.machine_has_gpu()
        )
        ready = wire.Ready(
            wire.PROTOCOL_VERSION,
            core.window,
            log.offloaded_layers,
            model.layer_count,
            warning,
            sum(device.free_bytes for device in devices),
            model.longest_word(),
        )
        allocator.give_back()  # what the reading of the vocabulary and the template left
        return Loaded(core, preparer, ready, log)
    raise failure


def _load_with(load: wire.Load, layers: int, log: LlamaLog, send: Send) -> tuple[EngineCore, Preparer, LlamaModel]:
    """One attempt with so many layers on the GPU. Raises LlamaError or TemplateError; nothing is kept then."""
    model = LlamaModel(load.path, gpu_layers=layers, progress=_Told(send).tell)
    try:
        window = min(load.context_window, model.trained_window or load.context_window)
        preparer = Preparer(model, window)
        options = ContextOptions(window, load.parallel, load.threads, yields_cores=log.offloaded_layers == 0)
        return EngineCore(model, options, preparer.common_prefix(), load.session_cache_bytes), preparer, model
    except BaseException:
        model.close()
        raise


class _Told:
    """Passes on how much is loaded, a step at a time."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._told = -1.0

    def tell(self, fraction: float) -> None:
        """llama.cpp has loaded this part of the file."""
        if fraction - self._told >= PROGRESS_STEP or fraction >= 1.0:
            self._told = fraction
            self._send(wire.Progress(fraction))


class DecodeLoop:
    """Step after step while there is anything to do; asleep otherwise."""

    def __init__(self, core: EngineCore, work: WorkQueue, lanes: Lanes, send: Send) -> None:
        self._core = core
        self._work = work
        self._lanes = lanes
        self._send = send
        self._cancelled_early: set[int] = set()
        """Streams that were cancelled while their prompt was prepared."""

    def run(self) -> None:
        """Never returns."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take what came, waiting for it if there is nothing else to do; then one step."""
        report = StepReport()
        self._take_work(report)
        if report.accepted or report.refused:
            # Said before the step: reading a long prompt takes a while.
            self._send(report.message())
            report = StepReport()
        if self._core.busy:
            self._core.step(report)
            self._send(report.message())
        elif report.ended:
            self._send(report.message())

    def _take_work(self, report: StepReport) -> None:
        if not self._core.busy:
            self._handle(self._next_work(), report)
            deadline = time.monotonic() + GATHER_S
            while self._lanes.is_busy and (left := deadline - time.monotonic()) > 0:
                try:
                    self._handle(self._work.get(timeout=left), report)
                except queue.Empty:
                    break
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                return
            self._handle(work, report)

    def _next_work(self) -> Work:
        """Wait for something to do; after a while of nothing, what earlier conversations left goes back to the system."""
        try:
            return self._work.get(timeout=IDLE_S)
        except queue.Empty:
            allocator.give_back()
            return self._work.get()

    def _handle(self, work: Work, report: StepReport) -> None:
        if isinstance(work, wire.Cancel):
            self._cancel(work.stream, report)
        elif isinstance(work, wire.Hold):
            self._core.hold(work.stream, work.held)
        elif isinstance(work, wire.Forget):
            self._core.forget(work.cache_key)
        else:
            self._welcome(work, report)

    def _cancel(self, number: int, report: StepReport) -> None:
        if self._core.cancel(number, report):
            return
        if self._lanes.withdraw(number):
            report.ended.append(wire.Ended(number, "cancelled", ""))
        elif self._lanes.is_at_work(number):
            self._cancelled_early.add(number)

    def _welcome(self, work: Prepared | wire.Refused, report: StepReport) -> None:
        """A request comes out of preparation."""
        number = work.stream if isinstance(work, wire.Refused) else work.begin.stream
        self._lanes.fetched(number)
        if number in self._cancelled_early:
            self._cancelled_early.remove(number)
            report.ended.append(wire.Ended(number, "cancelled", ""))
        elif isinstance(work, wire.Refused):
            report.refused.append(work)
        else:
            self._core.begin(work, report)
