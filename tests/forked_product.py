"""The whole headless product in a process that was forked after its imports: the same code, without the seconds before it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess

import web3  # noqa: F401  the product imports it when it first needs it, which takes seconds
from forking import forking_context
from product_support import Product

import fabstir_desktop.cli
import fabstir_desktop.headless  # noqa: F401
from fabstir_desktop.__main__ import main


class ForkedProduct(Product):
    """A product to be killed often."""

    def spawn(self) -> None:
        """Start, and wait for nothing."""
        output = str(self.data_dir.with_name(self.data_dir.name + ".out"))
        arguments = (dict(self._environment), self._arguments, output)
        process = forking_context().Process(target=live, args=arguments)
        process.start()
        self.process = ForkedProcess(process)  # type: ignore[assignment]


class ForkedProcess:
    """A forked process with the hands of a Popen."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode


def live(environment: Mapping[str, str], arguments: Sequence[str], output: str) -> None:
    """Become the product, as its front door would with this environment and these arguments."""
    for stream, path, flags in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, stream)
        os.close(opened)
    os.dup2(1, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["fabstir-desktop", *arguments]
    sys.exit(main(arguments))
