"""Keeps one worker alive with one model: starts it, sees it die, starts it again, gives up when that leads nowhere.

One worker serves one model: switching models is a new process, so that memory is surely given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from fabstir_desktop.errors import ModelFileError, ModelUnavailable
from fabstir_desktop.inference import wire
from fabstir_desktop.inference.machine import usable_cores
from fabstir_desktop.inference.model_files import (
    FitEstimate,
    HashCache,
    ModelFile,
    automatic_window,
    estimate_fit,
    inspect_model,
)
from fabstir_desktop.inference.options import EngineOptions
from fabstir_desktop.inference.process import WorkerProcess
from fabstir_desktop.inference.restarts import Death, Restart, RestartPolicy
from fabstir_desktop.jobs.generation import EngineFailure, EngineState, ModelInfo

log = logging.getLogger(__name__)

GIBIBYTE = 1024**3
SLOWEST_DISK_BYTES_PER_S = 50 * 1024 * 1024
"""The first step of a model reads all of its file without a word; a disk is given so much time for it."""


@dataclass(slots=True, eq=False)
class _Life:
    """One worker from start to death. `expected` once we asked it to end: what it dies of then is no crash."""

    news: asyncio.Future[wire.Ready | wire.LoadFailed | Death]
    dead: asyncio.Future[Death]
    process: WorkerProcess | None = None
    expected: bool = False
    is_hashing: bool = False
    """The worker is ready, and the file is still being read for its SHA-256."""


class _CannotLoad(ModelFileError):
    """llama.cpp refused the file; `is_memory`: it does not fit."""

    def __init__(self, message: str, is_memory: bool) -> None:
        super().__init__(message)
        self.is_memory = is_memory


class Owner(Protocol):
    """Who the supervisor reports to, in the loop."""

    def worker_changed(self) -> None:
        """State, progress or model changed."""

    def worker_stepped(self, step: wire.Step) -> None:
        """A decode step's news."""

    def worker_died(self, *, expected: bool) -> None:
        """Whatever ran in it is over."""


class Supervisor:
    """Owns the worker process. `state`, `detail`, `model`, `load_progress` and `restarts` may be read at any time."""

    def __init__(self, options: EngineOptions, owner: Owner, now: Callable[[], float] = time.monotonic) -> None:
        self.state = EngineState.STOPPED
        self.detail = ""
        self.model: ModelInfo | None = None
        self.load_progress = 0.0
        self.restarts = 0
        self.warning = ""
        """What the host should know of the loaded model."""
        self.failure = EngineFailure.NONE
        self.gpu_free_bytes = 0
        """What the GPUs had free before this model was loaded."""
        self.is_hung = False
        """It said nothing for too long and is started again."""
        self.silent_s = 0.0
        """How long the worker has said nothing; the owner's watchdog counts it up."""
        self._options = options
        self._owner = owner
        self._now = now
        self._policy = RestartPolicy(options.limits)
        self._hashes = HashCache(options.hash_store)
        self._path = options.model_path
        self._file_bytes = 0
        self._life: _Life | None = None
        self._fit: FitEstimate | None = None
        self._failed_loads = 0
        """Workers that died in loading, one after the other."""
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def is_loading(self) -> bool:
        """Whether a worker is at its loading, and should show progress."""
        return self.pid is not None and self.state is not EngineState.READY and not self._is_hashing

    @property
    def load_limit_s(self) -> float:
        """How long a loading worker may say nothing."""
        return self._options.limits.load_stall_s + self._file_bytes / SLOWEST_DISK_BYTES_PER_S

    @property
    def _is_hashing(self) -> bool:
        return self._life is not None and self._life.is_hashing

    @property
    def _process(self) -> WorkerProcess | None:
        return self._life.process if self._life is not None else None

    def start(self) -> None:
        """Begin, or begin again after giving up."""
        self._policy.reset()
        self._stopping = False
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._supervise(), name="engine-supervisor")
            self._task.add_done_callback(self._report_end)
            self._set(EngineState.NO_MODEL if self._path is None else EngineState.LOADING)
        elif self.state is EngineState.FAILED:
            self._set(EngineState.LOADING)
        self._changed.set()

    async def switch(self, path: Path) -> None:
        """Serve another file; the owner has drained the streams.

        Raises ModelFileError if it cannot be loaded: then the file before it is loaded again. Raises ModelUnavailable if
        the engine is stopped meanwhile.
        """
        previous, self._path = self._path, path
        self._failed_loads = 0
        self._policy.reset()
        self._settled.clear()
        self._set(EngineState.LOADING, "")
        self._end_worker()
        self._changed.set()
        await self._settled.wait()
        if self._stopping:
            raise ModelUnavailable("the engine stops")
        if self.state is EngineState.FAILED:
            detail = self.detail
            if previous is not None and previous != path:
                self._path = previous
                self._policy.reset()
                self._set(EngineState.LOADING)
                self._changed.set()
                detail += f"; {previous.name} is loaded again"
            raise ModelFileError(detail)

    async def stop(self, timeout_s: float) -> None:
        """End the worker, by force after `timeout_s`. Safe to call twice."""
        self._stopping = True
        self._settled.set()
        task, self._task = self._task, None
        if task is None:
            return
        self._changed.set()
        self._end_worker()
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            if self._process is not None:
                self._process.kill()
            done, _ = await asyncio.wait({task}, timeout=1.0)
        if not done:
            task.cancel()
            await asyncio.wait({task})
        self._set(EngineState.STOPPED)

    def send(self, message: wire.Message) -> None:
        """To the worker; nothing happens without one."""
        if self._process is not None:
            self._process.send(message)

    def kill(self, why: str) -> None:
        """A watchdog's verdict."""
        if self._process is not None:
            log.warning("ending the model process: %s", why)
            self.is_hung = True
            self._process.kill(why)

    def _report_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the engine's supervisor failed", exc_info=error)
            self._give_up(f"internal error: {type(error).__name__}")

    # --- the task ----------------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        while not self._stopping:
            self._changed.clear()
            path = self._path
            if path is None:
                self._set(EngineState.NO_MODEL)
                self._settled.set()
                await self._changed.wait()
                continue
            try:
                death = await self._serve(path)
            except ModelFileError as error:
                if not self._has_moved_on(path):
                    self._give_up(str(error), _failure_of(error, path))
                death = None
            except OSError as error:
                self._give_up(f"the model process cannot be started: {error.strerror}")
                death = None
            if death is not None and not self._stopping and self._path == path:
                await self._after_death(death, self._policy.after_death(self._now()))
            elif self.state is EngineState.FAILED and self._path == path and not self._stopping:
                await self._changed.wait()

    async def _after_death(self, death: Death, restart: Restart) -> None:
        """Say what happened, and wait until it is time to start again. Failed is not for ever: a driver may come back."""
        self.restarts += 1
        cause = f"the model process ended: {death.cause}"
        cause += f"; its last words: {death.last_words}" if death.last_words else ""
        if restart.has_failed:
            minutes = self._options.limits.deaths_window_s / 60
            again = f"tried again every {restart.delay_s:g} s"
            self._give_up(f"{restart.deaths} crashes in {minutes:.0f} minutes; {again}: {cause}")
        else:
            log.warning("%s; starting it again in %g s", cause, restart.delay_s)
            self._set(EngineState.RESTARTING, cause)
        if restart.delay_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), restart.delay_s)

    def _give_up(self, detail: str, failure: EngineFailure = EngineFailure.CRASHES) -> None:
        log.error("no model is served: %s", detail)
        self.model = None
        self.failure = failure
        self._set(EngineState.FAILED, detail)
        self._settled.set()

    async def _serve(self, path: Path) -> Death | None:
        """One worker's life; returns how it ended, None if we ended it. Raises ModelFileError, OSError."""
        if self.state not in (EngineState.RESTARTING, EngineState.FAILED):
            self._set(EngineState.LOADING)  # what went wrong before is said until it goes well
        self.load_progress = 0.0
        file = await asyncio.to_thread(inspect_model, path)
        if self._stopping or self._path != path:
            return None
        self._file_bytes = file.size_bytes
        loop = asyncio.get_running_loop()
        life = _Life(loop.create_future(), loop.create_future())
        given_up = partial(self._has_moved_on, path)
        hashing = loop.create_task(asyncio.to_thread(self._hashes.sha256, file, given_up))
        self.silent_s = 0.0
        try:
            life.process = WorkerProcess(loop, partial(self._take, life), partial(self._take_death, life))
            self._life = life
            life.process.send(self._load_message(file))
            news = await life.news
            if isinstance(news, wire.LoadFailed):
                self._end_worker()
                await life.dead
                raise _CannotLoad(f"{file.path.name} cannot be loaded: {news.reason}", news.is_memory)
            if isinstance(news, wire.Ready):
                life.is_hashing = True
                self.model = _model_info(file, news, await hashing)
                life.is_hashing = False
                self.load_progress = 1.0
                if not life.dead.done():
                    self._be_ready(news)
            death = await life.dead
            return None if life.expected else death
        finally:
            if life.process is not None and not life.dead.done():
                life.process.kill()
            self._life = None
            hashing.cancel()
            await asyncio.gather(hashing, return_exceptions=True)

    def _be_ready(self, ready: wire.Ready) -> None:
        self._failed_loads = 0
        self.gpu_free_bytes = ready.gpu_free_bytes
        self.warning = ready.warning or self._fit_warning(ready.gpu_free_bytes)
        if self.warning:
            log.warning("the model: %s", self.warning)
        self._set(EngineState.READY)
        self._settled.set()

    def _fit_warning(self, gpu_free_bytes: int) -> str:
        """What to tell of a model that is loaded although there was no room for it; empty if there was."""
        fit = self._fit
        if fit is None or fit.needed_bytes <= fit.free_bytes + gpu_free_bytes:
            return ""
        needed, free = fit.needed_bytes / GIBIBYTE, (fit.free_bytes + gpu_free_bytes) / GIBIBYTE
        return f"needs {needed:.1f} GiB, {free:.1f} GiB of memory were free: it may be very slow"

    def _has_moved_on(self, path: Path) -> bool:
        """Whether nobody waits for this file any more. Asked from a thread."""
        return self._stopping or self._path != path

    def _end_worker(self) -> None:
        """Ask the worker to end."""
        if self._life is not None and self._life.process is not None:
            self._life.expected = True
            self._life.process.close()

    def _load_message(self, file: ModelFile) -> wire.Load:
        options = self._options
        window = options.context_window or automatic_window(file, options.parallel)
        if file.context_length:
            window = min(window, file.context_length)
        fit = self._fit = estimate_fit(file, window, options.parallel)
        return wire.Load(
            path=str(file.path),
            context_window=window,
            parallel=options.parallel,
            gpu_layers=options.gpu_layers,
            threads=options.threads or usable_cores(),
            # What conversations without a slot may take is a part of what this model leaves free.
            session_cache_bytes=min(options.session_cache_bytes, max(0, fit.free_bytes - fit.needed_bytes) // 4),
            weights_bytes=file.size_bytes,
            cache_bytes=fit.cache_bytes,
            layer_count=file.layer_count,
            failed_loads=self._failed_loads,
        )

    # --- news from the worker ------------------------------------------------------------------------------------------

    def _take(self, life: _Life, message: wire.FromWorker) -> None:
        self.silent_s = 0.0
        if isinstance(message, wire.Step):
            self._owner.worker_stepped(message)
        elif isinstance(message, wire.Progress):
            self.load_progress = message.fraction
            self._owner.worker_changed()
        elif not life.news.done():
            life.news.set_result(message)

    def _take_death(self, life: _Life, death: Death) -> None:
        life.process = None
        if not life.expected and not life.news.done():
            self._failed_loads += 1
        if self.state is EngineState.READY:
            # At once, not when the task gets its turn: a request that comes now must wait for the next worker.
            self.state = EngineState.LOADING if life.expected else EngineState.RESTARTING
            self.detail = "" if life.expected else f"the model process ended: {death.cause}"
        for future in (life.news, life.dead):
            if not future.done():
                future.set_result(death)
        self._owner.worker_died(expected=life.expected)

    def _set(self, state: EngineState, detail: str = "") -> None:
        self.state = state
        self.warning = self.warning if state is EngineState.READY else ""
        self.failure = self.failure if state is EngineState.FAILED else EngineFailure.NONE
        self.is_hung = self.is_hung and state is not EngineState.READY
        self.detail = detail
        self._owner.worker_changed()


def _failure_of(error: ModelFileError, path: Path) -> EngineFailure:
    """Blocks on disk for a moment: after a file could not be used nothing else waits."""
    if isinstance(error, _CannotLoad) and error.is_memory:
        return EngineFailure.MEMORY
    return EngineFailure.FILE_UNUSABLE if path.exists() else EngineFailure.FILE_MISSING


def _model_info(file: ModelFile, ready: wire.Ready, sha256: str) -> ModelInfo:
    return ModelInfo(
        name=file.name,
        path=str(file.path),
        sha256=sha256,
        size_bytes=file.size_bytes,
        architecture=file.architecture,
        parameter_count=file.parameter_count,
        quantisation=file.quantisation,
        context_window=ready.context_window,
        gpu_layers=ready.gpu_layers,
        layer_count=ready.layer_count or file.layer_count,
        longest_word=ready.longest_word,
    )
