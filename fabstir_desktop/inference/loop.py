"""The worker's threads that use llama.cpp: loading, preparing and the decode loop."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fabstir_desktop.inference import wire
from fabstir_desktop.inference.core import EngineCore, StepReport
from fabstir_desktop.inference.llama import ContextOptions, LlamaError, LlamaLog, LlamaModel, supports_gpu
from fabstir_desktop.inference.preparation import Prepared, Preparer
from fabstir_desktop.inference.templates import TemplateError

GATHER_S = 0.002
"""How long an idle worker waits for more requests that begin together with the first."""
PROGRESS_STEP = 0.02

Send = Callable[[wire.Message], None]
Guard = Callable[[Callable[[], None]], Callable[[], None]]
Work = Prepared | wire.Refused | wire.Cancel | wire.Hold
Inbox = queue.SimpleQueue[wire.Load | wire.Begin]
WorkQueue = queue.SimpleQueue[Work]


def serve(inbox: Inbox, work: WorkQueue, send: Send, guard: Guard) -> None:
    """Load the model that the first message names, then answer for ever. A model that cannot be loaded is reported.

    Further messages of `inbox` are requests, prepared in a thread of their own; `work` takes them to the decode loop, and
    cancels past them.
    """
    load = inbox.get()
    if not isinstance(load, wire.Load):
        raise TypeError("the first message must be Load")
    try:
        loaded = load_model(load, send)
    except (LlamaError, TemplateError) as error:
        send(wire.LoadFailed(str(error)))
        return
    preparing = _Preparing(inbox, work, loaded.preparer)
    threading.Thread(target=guard(preparing.run), name="prepare", daemon=True).start()
    send(loaded.ready)
    DecodeLoop(loaded.core, work, preparing, send).run()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to serve."""

    core: EngineCore
    preparer: Preparer
    ready: wire.Ready
    log: LlamaLog
    """Kept for as long as llama.cpp may call it."""


def load_model(load: wire.Load, send: Send) -> Loaded:
    """Load model, template and context. Raises LlamaError or TemplateError."""
    log = LlamaLog()
    model, note = _load_weights(load, send)
    window = min(load.context_window, model.trained_window or load.context_window)
    preparer = Preparer(model, window)
    options = ContextOptions(window, load.parallel, load.threads, yields_cores=log.offloaded_layers == 0)
    core = EngineCore(model, options, preparer.common_prefix(), load.session_cache_bytes)
    if load.gpu_layers and log.offloaded_layers < min(load.gpu_layers, model.layer_count):
        note = f"{log.offloaded_layers} of {load.gpu_layers} wanted layers are on the GPU; the rest runs on the CPU"
    ready = wire.Ready(wire.PROTOCOL_VERSION, window, log.offloaded_layers, model.layer_count, note)
    return Loaded(core, preparer, ready, log)


def _load_weights(load: wire.Load, send: Send) -> tuple[LlamaModel, str]:
    """With the GPU layers set, just so; otherwise all, then fewer until they fit, then none."""
    told = -1.0

    def progress(fraction: float) -> None:
        nonlocal told
        if fraction - told >= PROGRESS_STEP or fraction >= 1.0:
            told = fraction
            send(wire.Progress(fraction))

    note = ""
    for layers in gpu_layer_attempts(load.gpu_layers, supports_gpu()):
        try:
            return LlamaModel(load.path, gpu_layers=layers, progress=progress), note
        except LlamaError:
            note = f"{layers if layers >= 0 else 'all'} layers did not fit on the GPU"
    raise LlamaError("llama.cpp cannot load this file, or there is not enough memory for it")


def gpu_layer_attempts(wanted: int | None, gpu: bool) -> list[int]:
    """The numbers of layers to try on the GPU, in order; -1 is all."""
    if not gpu:
        return [0]
    if wanted is not None:
        return [wanted]
    return [-1, 24, 12, 0]


class _Preparing:
    """The preparing thread: conversations become prompts here, one after the other."""

    def __init__(self, inbox: Inbox, work: WorkQueue, preparer: Preparer) -> None:
        self._inbox = inbox
        self._work = work
        self._preparer = preparer
        self.is_busy = False

    def run(self) -> None:
        """Never returns."""
        while True:
            message = self._inbox.get()
            if isinstance(message, wire.Begin):
                self.is_busy = True
                self._work.put(self._preparer.prepare(message))
                self.is_busy = not self._inbox.empty()


class DecodeLoop:
    """Step after step while there is anything to do; asleep otherwise."""

    def __init__(self, core: EngineCore, work: WorkQueue, preparing: _Preparing, send: Send) -> None:
        self._core = core
        self._work = work
        self._preparing = preparing
        self._send = send
        self._newest = 0
        self._cancelled_early: set[int] = set()
        """Streams that were cancelled before their prompt was prepared."""

    def run(self) -> None:
        """Never returns."""
        while True:
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
            self._handle(self._work.get(), report)
            deadline = time.monotonic() + GATHER_S
            while self._preparing.is_busy and (left := deadline - time.monotonic()) > 0:
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

    def _handle(self, work: Work, report: StepReport) -> None:
        if isinstance(work, wire.Cancel):
            if not self._core.cancel(work.stream, report) and work.stream > self._newest:
                self._cancelled_early.add(work.stream)
        elif isinstance(work, wire.Hold):
            self._core.hold(work.stream, work.held)
        else:
            self._welcome(work, report)

    def _welcome(self, work: Prepared | wire.Refused, report: StepReport) -> None:
        """A request comes out of preparation; they come in the order of their numbers."""
        number = work.stream if isinstance(work, wire.Refused) else work.begin.stream
        self._newest = number
        if number in self._cancelled_early:
            self._cancelled_early.remove(number)
            report.ended.append(wire.Ended(number, "cancelled", ""))
        elif isinstance(work, wire.Refused):
            report.refused.append(work)
        else:
            self._core.begin(work, report)
