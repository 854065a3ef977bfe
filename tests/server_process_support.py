"""A server in a process of its own, whose memory, descriptors and life can be watched from outside."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import websockets
from engine_support import Script, ScriptedEngine
from limits import scaled
from server_support import LIMIT_S, http_get, serving

from fabstir_desktop.jobs.generation import GenerationRequest, Piece
from fabstir_desktop.logs import start_logging
from fabstir_desktop.server.limits import Limits

LOG_FILE = "server.log"


class ServerProcess:
    """A server whose memory, descriptors and life can be watched from outside."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log
        self._watched = psutil.Process(process.pid)

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    @property
    def memory_bytes(self) -> int:
        return int(self._watched.memory_info().rss)

    @property
    def cpu_s(self) -> float:
        """Seconds of a core it has used; other programs' work does not add to them."""
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    @property
    def descriptors(self) -> int:
        return self._watched.num_fds()

    async def tasks(self) -> int:
        """Tasks of its loop."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"tasks\n")
        return int(await asyncio.wait_for(self.process.stdout.readline(), LIMIT_S))

    async def until_tasks(self, most: int, limit_s: float = 10.0) -> None:
        """Wait until so many are left: that of the last page asked for ends a moment after its answer, a lost one never."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + scaled(limit_s)
        while (found := await self.tasks()) > most:
            assert loop.time() < ends_at, f"{found} tasks are left, not {most}"
            await asyncio.sleep(0.05)

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def connect(self, **options: Any) -> Any:
        return websockets.connect(self.url, proxy=None, **options)

    async def metric(self, name: str, absent: float | None = None) -> float:
        """One number of /metrics, such as `fabstir_connections` or `fabstir_tokens_generated_total{kind="job"}`.

        `absent` is its value while it is not among them: a counter with labels appears when it first counts.
        """
        _, _, body = await http_get(self.port, "/metrics")
        for line in body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        assert absent is not None, f"{name} is not among the metrics"
        return absent

    async def until_metric(self, name: str, value: float, limit_s: float = 10.0) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + scaled(limit_s)
        while (found := await self.metric(name, absent=-1)) != value:
            assert loop.time() < ends_at, f"{name} is {found}, not {value}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def server_process(
    data_dir: Path,
    delay_s: float = 0.0,
    limits: dict[str, Any] | None = None,
    open_files: int | None = None,
    runs_out: bool = False,
    **changes: Any,
) -> AsyncIterator[ServerProcess]:
    """A server on a scripted engine in a child process, with the product's own log. No traceback may come from it.

    `open_files`: the system allows the process no more. `runs_out`: it will be out of them, of which asyncio tells a traceback.
    """
    given = {"data_dir": str(data_dir), "delay_s": delay_s, "limits": limits or {}, "open_files": open_files}
    arguments = json.dumps({**given, "changes": changes})
    errors = data_dir / "server.err"
    with errors.open("wb") as error_file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=error_file,
        )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), scaled(30))).decode().strip()
        assert url.startswith(("ws://", "wss://")), errors.read_text()
        yield ServerProcess(process, url, data_dir / LOG_FILE)
        assert process.returncode is None, f"the server died: {errors.read_text()[-3000:]}"
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), scaled(10)) == 0, errors.read_text()[-3000:]
        lines = errors.read_text().splitlines()
        wrong = [line for line in lines if "Traceback" in line and not (runs_out and "out of system resource" in line)]
        assert not wrong, "\n".join(wrong)[-3000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class CountedPieces(Sequence[Piece]):
    """`w0 w1 w2 ...`, made when they are asked for: long answers must not cost a watched process memory."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        if number >= self._count:
            raise IndexError(number)
        return Piece((1000 + number,), f"w{number} ")


class Forgetful(dict[Any, list[int]]):
    """Takes lists by key and keeps none."""

    def setdefault(self, key: Any, default: list[int] = []) -> list[int]:  # noqa: B006
        return []


def _counted(request: GenerationRequest, delay_s: float) -> Script:
    pieces: Any = CountedPieces(request.max_tokens)
    return Script(pieces, delay_s=delay_s, finish_reason="length")


async def _serve_alone(arguments: dict[str, Any]) -> None:
    writer = start_logging(Path(arguments["data_dir"]) / LOG_FILE, "DEBUG")
    delay_s, open_files = arguments["delay_s"], arguments["open_files"]
    if open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    engine = ScriptedEngine(lambda request: _counted(request, delay_s))
    limits = Limits(**arguments["limits"])
    async with serving(Path(arguments["data_dir"]), engine, limits, **arguments["changes"]) as world:
        # a process that runs for long must not grow by what its test parts remember
        world.engine.requests = deque(maxlen=100)  # type: ignore[assignment]
        world.engine.closed = deque(maxlen=100)  # type: ignore[assignment]
        world.engine.emitted = Forgetful()
        world.accountant.ids = Forgetful()
        world.accountant.log = deque(maxlen=100)  # type: ignore[assignment]
        world.accountant.begun = deque(maxlen=100)  # type: ignore[assignment]
        world.accountant.clients = deque(maxlen=100)  # type: ignore[assignment]
        print(world.url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(len(asyncio.all_tasks()), flush=True)
    writer.stop()


if __name__ == "__main__":
    asyncio.run(_serve_alone(json.loads(sys.argv[1])))
