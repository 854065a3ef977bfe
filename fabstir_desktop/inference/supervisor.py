"""Keeps one worker alive with one model: starts it, sees it die, starts it again, gives up when that leads nowhere.

One worker serves one model: switching models is a new process, so that memory is surely given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from fabstir_desktop.errors import ModelFileError
from fabstir_desktop.inference import wire
from fabstir_desktop.inference.model_files import (
    HashCache,
    ModelFile,
    automatic_window,
    estimate_fit,
    inspect_model,
)
from fabstir_desktop.inference.options import EngineOptions
from fabstir_desktop.inference.process import WorkerProcess
from fabstir_desktop.inference.restarts import Death, RestartPolicy
from fabstir_desktop.jobs.generation import EngineState, ModelInfo

log = logging.getLogger(__name__)

MEBIBYTE = 1024 * 1024


@dataclass(slots=True, eq=False)
class _Life:
    """One worker from start to death. `expected` once we asked it to end: what it dies of then is no crash."""

    news: asyncio.Future[wire.Ready | wire.LoadFailed | Death]
    dead: asyncio.Future[Death]
    process: WorkerProcess | None = None
    expected: bool = False


class Owner(Protocol):
    """Who the supervisor reports to, in the loop."""

    def worker_changed(self) -> None:
        """State, progress or model changed."""

    def worker_stepped(self, step: wire.Step) -> None:
        """A decode step's news."""

    def worker_died(self, death: Death, *, expected: bool) -> None:
        """Whatever ran in it is over."""


class Supervisor:
    """Owns the worker process. `state`, `detail`, `model`, `load_progress` and `restarts` may be read at any time."""

    def __init__(self, options: EngineOptions, owner: Owner, now: Callable[[], float] = time.monotonic) -> None:
        self.state = EngineState.STOPPED
        self.detail = ""
        self.model: ModelInfo | None = None
        self.load_progress = 0.0
        self.restarts = 0
        self.silent_s = 0.0
        """How long the worker has said nothing; the owner's watchdog counts it up."""
        self._options = options
        self._owner = owner
        self._now = now
        self._policy = RestartPolicy(options.limits)
        self._hashes = HashCache(options.hash_store)
        self._path = options.model_path
        self._life: _Life | None = None
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return self._process.pid if self._process is not None else None

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
        """Serve another file; the owner has drained the streams. Raises ModelFileError if it cannot be loaded."""
        self._path = path
        self._policy.reset()
        self._settled.clear()
        self._set(EngineState.LOADING, "")
        self._end_worker()
        self._changed.set()
        await self._settled.wait()
        if self.state is EngineState.FAILED:
            raise ModelFileError(self.detail)

    async def stop(self, timeout_s: float) -> None:
        """End the worker, by force after `timeout_s`. Safe to call twice."""
        self._stopping = True
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
                self._give_up(str(error))
                death = None
            except OSError as error:
                self._give_up(f"the model process cannot be started: {error.strerror}")
                death = None
            if death is not None and not self._stopping and self._path == path:
                delay = self._policy.delay_after_death(self._now())
                await self._after_death(death, delay)
            elif self.state is EngineState.FAILED and self._path == path and not self._stopping:
                await self._changed.wait()

    async def _after_death(self, death: Death, delay_s: float | None) -> None:
        self.restarts += 1
        cause = f"the model process ended: {death.cause}"
        cause += f"; its last words: {death.last_words}" if death.last_words else ""
        if delay_s is None:
            self._give_up(f"given up after {self._options.limits.deaths_until_failed} crashes: {cause}")
            await self._changed.wait()
            return
        log.warning("%s; starting it again in %g s", cause, delay_s)
        self._set(EngineState.RESTARTING, cause)
        if delay_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), delay_s)

    def _give_up(self, detail: str) -> None:
        log.error("no model is served: %s", detail)
        self.model = None
        self._set(EngineState.FAILED, detail)
        self._settled.set()

    async def _serve(self, path: Path) -> Death | None:
        """One worker's life; returns how it ended, None if we ended it. Raises ModelFileError, OSError."""
        if self.state is not EngineState.RESTARTING:
            self._set(EngineState.LOADING)
        self.load_progress = 0.0
        file = await asyncio.to_thread(inspect_model, path)
        if self._stopping or self._path != path:
            return None
        loop = asyncio.get_running_loop()
        life = _Life(loop.create_future(), loop.create_future())
        hashing = loop.create_task(asyncio.to_thread(self._hashes.sha256, file, lambda: self._stopping))
        self.silent_s = 0.0
        try:
            life.process = WorkerProcess(loop, partial(self._take, life), partial(self._take_death, life))
            self._life = life
            life.process.send(self._load_message(file))
            news = await life.news
            if isinstance(news, wire.LoadFailed):
                self._end_worker()
                await life.dead
                raise ModelFileError(f"{file.path.name} cannot be loaded: {news.reason}")
            if isinstance(news, wire.Ready):
                self.model = _model_info(file, news, await hashing)
                self.load_progress = 1.0
                if not life.dead.done():
                    self._set(EngineState.READY, news.note)
                    self._settled.set()
            death = await life.dead
            return None if life.expected else death
        finally:
            if life.process is not None and not life.dead.done():
                life.process.kill()
            self._life = None
            hashing.cancel()
            await asyncio.gather(hashing, return_exceptions=True)

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
        fit = estimate_fit(file, window, options.parallel)
        if not fit.fits:
            log.warning(
                "the model needs about %d MiB, %d MiB are free",
                fit.needed_bytes // MEBIBYTE,
                fit.free_bytes // MEBIBYTE,
            )
        return wire.Load(
            path=str(file.path),
            context_window=window,
            parallel=options.parallel,
            gpu_layers=options.gpu_layers,
            threads=options.threads or os.cpu_count() or 4,
            session_cache_bytes=options.session_cache_bytes,
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
        if self.state is EngineState.READY:
            # At once, not when the task gets its turn: a request that comes now must wait for the next worker.
            self.state = EngineState.LOADING if life.expected else EngineState.RESTARTING
            self.detail = "" if life.expected else f"the model process ended: {death.cause}"
        for future in (life.news, life.dead):
            if not future.done():
                future.set_result(death)
        self._owner.worker_died(death, expected=life.expected)

    def _set(self, state: EngineState, detail: str = "") -> None:
        self.state = state
        self.detail = detail
        self._owner.worker_changed()


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
    )
