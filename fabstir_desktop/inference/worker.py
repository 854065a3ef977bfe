"""The child process's main: no key, no ledger, no network, one model; it may die at any moment and costs one request.

Four threads: the main one reads the parent's messages (and ends the process when the parent is gone), two render and
tokenise (short and long conversations), one decodes. All but the first get large stacks, because some tokenisers recurse
deeply over unusual text.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from fabstir_desktop.inference import wire
from fabstir_desktop.inference.lanes import Lanes

WORKER_ARGUMENT = "--inference-worker"
REPLAY_ARGUMENT = "--inference-replay"
STACK_BYTES = 256 * 1024 * 1024
EXIT_BUG = 70
READ_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500


def main(argv: list[str]) -> int:
    """Run the worker on its standard streams until the parent closes them. `argv` ends with the parent's process id."""
    if REPLAY_ARGUMENT in argv:
        from fabstir_desktop.inference.replay import run_replay  # noqa: PLC0415 - the worker proper has no use for it

        _die_with_parent(_parent_of(argv))
        _be_the_first_to_go()
        run_replay()
        return 0
    incoming, outgoing = _take_streams()
    faulthandler.enable(all_threads=False)
    _die_with_parent(_parent_of(argv))
    _be_the_first_to_go()
    Worker(incoming, outgoing).run()
    return 0


def run_if_worker(argv: list[str]) -> None:
    """For the frozen application's front door: if `argv` starts a worker, be it and never return."""
    if len(argv) > 1 and argv[1] in (WORKER_ARGUMENT, REPLAY_ARGUMENT):
        sys.exit(main(argv))


class Worker:
    """Moves messages between the parent and the threads that work."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._sending = threading.Lock()
        self._load: queue.SimpleQueue[wire.Load] = queue.SimpleQueue()
        self._lanes = Lanes()
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        """Read messages until the parent is gone, then end the whole process at once."""
        threading.stack_size(STACK_BYTES)
        threading.Thread(target=self._guard(self._serve), name="decode", daemon=True).start()
        reader = wire.FrameReader()
        with contextlib.suppress(OSError, wire.WireError, msgspec.MsgspecError):
            while data := os.read(self._incoming.fileno(), READ_BYTES):
                for body in reader.feed(data):
                    message = wire.to_worker_decoder.decode(body)
                    # A cancel does not wait behind another's long prompt.
                    if isinstance(message, wire.Begin):
                        self._lanes.add(message)
                    elif isinstance(message, wire.Load):
                        self._load.put(message)
                    else:
                        self._work.put(message)
        # Destructors may hang in a driver; everything worth keeping is with the parent.
        os._exit(0)

    def send(self, message: wire.Message) -> None:
        """Write a message; waits while the parent is behind."""
        view = memoryview(wire.encode(message))
        with self._sending:
            while view:
                view = view[os.write(self._outgoing.fileno(), view) :]

    def _serve(self) -> None:
        # llama.cpp is loaded here, in the thread with the large stack, and in no other process.
        from fabstir_desktop.inference.loop import serve  # noqa: PLC0415

        serve(self._load.get(), self._lanes, self._work, self.send, self._guard)

    def _guard(self, body: Callable[[], None]) -> Callable[[], None]:
        """Any escape from a thread ends the process: a worker with a dead thread would only look alive."""

        def guarded() -> None:
            try:
                body()
            except BrokenPipeError:
                os._exit(0)
            except BaseException as error:  # noqa: BLE001
                where = traceback.extract_tb(error.__traceback__)[-1]
                # Not the message: it may quote a prompt.
                place = f"{os.path.basename(where.filename)}:{where.lineno}"
                os.write(2, f"worker failed: {type(error).__name__} at {place}\n".encode())
                os._exit(EXIT_BUG)

        return guarded


def _take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes for the messages alone: what a library prints goes to standard error."""
    incoming = os.fdopen(os.dup(0), "rb", buffering=0)
    outgoing = os.fdopen(os.dup(1), "wb", buffering=0)
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows only

        msvcrt.setmode(incoming.fileno(), os.O_BINARY)
        msvcrt.setmode(outgoing.fileno(), os.O_BINARY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def _parent_of(argv: list[str]) -> int:
    return int(argv[-1]) if argv and argv[-1].isdigit() else 0


def _die_with_parent(parent_pid: int) -> None:
    """On Linux the kernel ends this process with its parent; elsewhere (and as well) the closed pipe does."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if parent_pid and os.getppid() != parent_pid:
            os._exit(0)  # it died before the line above


def _be_the_first_to_go() -> None:
    """When memory runs out, the system shall end the model rather than the app; and no prompt goes into a core file."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(_OOM_SCORE))
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
