"""The worker process as its parent holds it: pipes, small threads, and the news of its death.

Tokens are read by the loop itself where it can wait for a pipe (asyncio and qasync outside Windows): a thread between would
cost every token two changes of threads. Elsewhere a thread reads, and messages that arrive while the loop is busy wake it
once, not once each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

import fabstir_desktop
from fabstir_desktop.inference import wire
from fabstir_desktop.inference.restarts import Death
from fabstir_desktop.inference.worker import READ_BYTES, WORKER_ARGUMENT

STDERR_BYTES = 8 * 1024
STDERR_LINES = 30
MAX_UNREAD_MESSAGES = 4096
EXIT_WAIT_S = 1.0

# What a child may know of the parent's environment: where libraries, drivers and temporary files are. No secret has a
# name like these; everything else stays behind.
_ALLOWED = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "WINDIR", "SYSTEMDRIVE", "COMSPEC",
     "USERPROFILE", "LOCALAPPDATA", "APPDATA", "PROGRAMDATA", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
     "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "DISPLAY", "XDG_RUNTIME_DIR"}
)  # fmt: skip
_ALLOWED_PREFIXES = (
    "LC_",
    "CUDA_",
    "NVIDIA_",
    "HIP_",
    "ROCR_",
    "HSA_",
    "GGML_",
    "VK_",
    "OMP_",
    "_PYI_",
    "ONEAPI_",
    "SYCL_",
)


class WorkerProcess:
    """A running worker. Callbacks are called in the loop: `on_message` for each message, then `on_death` exactly once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[wire.FromWorker], None],
        on_death: Callable[[Death], None],
    ) -> None:
        self._loop = loop
        self._on_message = on_message
        self._on_death = on_death
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unread: deque[wire.FromWorker] = deque()
        self._wake_is_due = False
        self._has_room = threading.Event()
        self._has_room.set()
        self._hung = ""
        self._stderr = b""
        self._exit_code: int | None = None
        self._reader = wire.FrameReader()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            worker_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            cwd=os.sep,
            env=worker_environment(os.environ),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self.pid = self._process.pid
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - asked for above
        self._stdout = stdout
        self._threads: list[threading.Thread] = []
        self._run("out", self._write)
        self._log_thread = self._run("log", self._read_stderr)
        try:
            loop.add_reader(stdout.fileno(), self._read_some)
        except NotImplementedError:
            self._run("in", self._read)

    def send(self, message: wire.Message) -> None:
        """Queue a message; never blocks. Does nothing once the worker is gone."""
        self._outbox.put(wire.encode(message))

    def close(self) -> None:
        """Ask the worker to end, by closing its input."""
        self._outbox.put(None)

    def kill(self, hung: str = "") -> None:
        """End the worker at once; `hung` says why a watchdog did."""
        self._hung = self._hung or hung
        if self._exit_code is None:
            with contextlib.suppress(OSError):
                self._process.kill()

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end. Blocks: call it off the loop, after death."""
        for thread in self._threads:
            thread.join(timeout_s)

    # --- reading in the loop -------------------------------------------------------------------------------------------

    def _read_some(self) -> None:
        """The pipe has something: messages, or its end, which is the first sign of a death."""
        try:
            data = os.read(self._stdout.fileno(), READ_BYTES)
            for body in self._reader.feed(data):
                self._on_message(wire.from_worker_decoder.decode(body))
        except (wire.WireError, msgspec.MsgspecError):
            self.kill("the model process sent something unreadable")
            data = b""
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._stdout.fileno())
            self._stdout.close()
            self._run("end", self._reap)

    # --- threads -----------------------------------------------------------------------------------------------------

    def _run(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"worker-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _write(self) -> None:
        stream = self._process.stdin
        assert stream is not None  # noqa: S101 - asked for above
        with contextlib.suppress(OSError, ValueError), stream:
            while (frame := self._outbox.get()) is not None:
                view = memoryview(frame)
                while view:
                    view = view[os.write(stream.fileno(), view) :]

    def _read_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None  # noqa: S101
        with contextlib.suppress(OSError, ValueError), stream:
            while data := os.read(stream.fileno(), READ_BYTES):
                self._stderr = (self._stderr + data)[-STDERR_BYTES:]

    def _read(self) -> None:
        """Messages until the pipe closes, which is the first sign of a death; then how it ended."""
        stream = self._stdout
        with contextlib.suppress(OSError, ValueError), stream:
            try:
                while data := os.read(stream.fileno(), READ_BYTES):
                    self._deliver([wire.from_worker_decoder.decode(body) for body in self._reader.feed(data)])
            except (wire.WireError, msgspec.MsgspecError):
                self.kill("the model process sent something unreadable")
        self._reap()

    def _deliver(self, messages: list[wire.FromWorker]) -> None:
        self._unread.extend(messages)
        if not self._wake_is_due:
            self._wake_is_due = True
            self._call_in_loop(self._drain)
        if len(self._unread) > MAX_UNREAD_MESSAGES:
            # The loop is far behind: leave the rest in the pipe, where the worker soon waits as well.
            self._has_room.clear()
            while len(self._unread) > MAX_UNREAD_MESSAGES and not self._loop.is_closed():
                self._has_room.wait(0.1)

    def _drain(self) -> None:
        self._wake_is_due = False
        unread = self._unread
        while unread:
            self._on_message(unread.popleft())
        self._has_room.set()

    def _reap(self) -> None:
        self._outbox.put(None)
        try:
            code = self._process.wait(EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._exit_code = code
        self._log_thread.join(EXIT_WAIT_S)
        lines = self._stderr.decode("utf-8", errors="replace").splitlines()[-STDERR_LINES:]
        death = Death(code, tuple(_printable(line) for line in lines), self._hung)
        self._call_in_loop(self._end, death)

    def _end(self, death: Death) -> None:
        self._drain()
        self._on_death(death)

    def _call_in_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        # A loop that is closed already has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)


def worker_command() -> list[str]:
    """How to start a worker: this interpreter with the worker's module, or the frozen application with its own argument."""
    if getattr(sys, "frozen", False):
        return [sys.executable, WORKER_ARGUMENT, str(os.getpid())]
    # -P: nothing is imported from the directory that the child happens to stand in.
    return [sys.executable, "-P", "-m", "fabstir_desktop.inference.worker", str(os.getpid())]


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that a worker is given; HOST_PRIVATE_KEY and RPC URLs are not in it."""
    allowed = {
        name: value
        for name, value in environment.items()
        if name.upper() in _ALLOWED or name.upper().startswith(_ALLOWED_PREFIXES)
    }
    if not getattr(sys, "frozen", False):
        allowed["PYTHONPATH"] = str(Path(fabstir_desktop.__file__).parent.parent)
    return allowed


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)[:300].strip()
