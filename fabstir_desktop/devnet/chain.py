"""The parent's side of the embedded chain: start the child process, know where it listens, stop it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

from fabstir_desktop.errors import ChainError

DEFAULT_CHAIN_ID = 131277322940537
"""No public chain has it: what is signed here is valid nowhere else."""

START_LIMIT_S = 30.0
STOP_LIMIT_S = 3.0
_BANK_WEI = 10**24
_SECRETS = ("HOST_PRIVATE_KEY",)


class EmbeddedChainError(ChainError):
    """The embedded chain did not start, or ended on its own."""


class EmbeddedChain:
    """A running embedded chain. `await EmbeddedChain.start()` or `async with EmbeddedChain.start() as chain`.

    `bank_key` is a throw-away key that owns a million coins from the first block on; tests and the demo fund others
    from it. It lives in this process only.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, chain_id: int, bank_key: str) -> None:
        self._process = process
        self.port = port
        self.chain_id = chain_id
        self.bank_key = bank_key

    def __repr__(self) -> str:
        return f"EmbeddedChain(port={self.port}, chain_id={self.chain_id})"

    @classmethod
    def start(
        cls, *, block_time_s: float = 0.0, chain_id: int = DEFAULT_CHAIN_ID, port: int = 0
    ) -> StartingEmbeddedChain:
        """Start a chain that makes a block every `block_time_s`, or one at each transaction with 0.

        Raises EmbeddedChainError when the child does not come up, for example because the port is taken.
        """
        return StartingEmbeddedChain(block_time_s, chain_id, port)

    @property
    def rpc_url(self) -> str:
        """Where its JSON-RPC is served."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the child is alive."""
        return self._process.poll() is None

    async def stop(self) -> None:
        """End the child and wait for it. May be called twice."""
        await asyncio.shield(asyncio.to_thread(_end, self._process))

    async def __aenter__(self) -> EmbeddedChain:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class StartingEmbeddedChain:
    """What `EmbeddedChain.start` returns: await it, or enter it as a context manager."""

    def __init__(self, block_time_s: float, chain_id: int, port: int) -> None:
        self._block_time_s = block_time_s
        self._chain_id = chain_id
        self._port = port
        self._chain: EmbeddedChain | None = None

    def __await__(self) -> Generator[object, None, EmbeddedChain]:
        return self._start().__await__()

    async def __aenter__(self) -> EmbeddedChain:
        self._chain = await self._start()
        return self._chain

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._chain is not None:
            await self._chain.stop()

    async def _start(self) -> EmbeddedChain:
        bank_key = "0x" + secrets.token_hex(32)
        bank_address = await asyncio.to_thread(_address_of, bank_key)
        process = subprocess.Popen(  # noqa: ASYNC220, S603  a fork takes milliseconds; see _command for the thread
            self._command(bank_address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        try:
            line = await asyncio.wait_for(asyncio.to_thread(_first_line, process), START_LIMIT_S)
            port = int(json.loads(line)["port"])
        except (TimeoutError, ValueError, KeyError) as error:
            await asyncio.to_thread(_end, process)
            raise EmbeddedChainError(f"the embedded chain did not start (exit code {process.returncode})") from error
        except asyncio.CancelledError:
            _end(process, limit_s=0.0)
            raise
        return EmbeddedChain(process, port, self._chain_id, bank_key)

    def _command(self, bank_address: str) -> list[str]:
        """The kernel's signal comes at the end of the *thread* that started a child: ask for it in the main one only."""
        is_main = threading.current_thread() is threading.main_thread()
        return [
            *(sys.executable, "-m", "fabstir_desktop.devnet.serve"),
            *("--chain-id", str(self._chain_id), "--port", str(self._port), "--block-time", str(self._block_time_s)),
            *("--fund", bank_address, str(_BANK_WEI)),
            *(["--die-with-parent"] if is_main else []),
        ]


def _environment() -> dict[str, str]:
    """Pass the environment on, without the host's key, and so that this package is found."""
    environment = {name: value for name, value in os.environ.items() if name.upper() not in _SECRETS}
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
    return environment


def _address_of(key: str) -> str:
    from eth_account import Account  # noqa: PLC0415  takes 0.2 s to import

    return str(Account.from_key(key).address)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    return process.stdout.readline() if process.stdout else b""


def _end(process: subprocess.Popen[bytes], limit_s: float = STOP_LIMIT_S) -> None:
    """Close the child's standard input, at which it ends; kill it where it does not."""
    if process.stdin and not process.stdin.closed:
        process.stdin.close()
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
