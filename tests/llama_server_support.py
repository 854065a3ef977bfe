"""A real llama-server, from the xllamacpp package, in a process of its own: the peer of benchmarks and of the remote engine.

`python llama_server_support.py MODEL WINDOW PARALLEL THREADS [KEY]` serves until its standard input closes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def llama_server(
    model: Path, *, window: int = 2048, parallel: int = 8, threads: int = 2, key: str | None = None
) -> Iterator[str]:
    """Run a llama-server, which wants the key where one is given; gives its base URL."""
    command = [sys.executable, __file__, str(model), str(window), str(parallel), str(threads), *([key] if key else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            for line in process.stdout:
                if line.startswith(b"SERVING "):
                    yield line.split()[1].decode()
                    break
            else:
                raise AssertionError("llama-server did not start")
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    import xllamacpp

    model, window, parallel, threads = sys.argv[1], *map(int, sys.argv[2:5])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.n_parallel = parallel
    parameters.n_ctx = window * parallel
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.api_keys = sys.argv[5:]
    parameters.port = 0
    parameters.hostnames = ["127.0.0.1"]
    server = xllamacpp.Server(parameters)
    print(f"\nSERVING {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
