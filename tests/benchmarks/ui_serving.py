"""The window while the host works: seconds to serving, lag of the loop, memory of the GUI process.

Run it by itself: `python tests/benchmarks/ui_serving.py [--seconds 30] [--streams 8] [--jobs 100]`. It prints a table. The
app, the small model, the embedded chain and the sockets are the real ones, on a virtual screen with the Jobs page open; the
lag is that of turns asked for every 5 ms while the streams ran. *Serving* is the first answer of /health that has the model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "ui")]

import psutil  # noqa: E402 - after the path was set
from desk import Desk  # noqa: E402
from figures import Figure, percentile, print_figures  # noqa: E402
from websockets.asyncio.client import connect  # noqa: E402

from fabstir_desktop.demo import small_model_path  # noqa: E402

LIMIT_S = 120.0
MB = 1 << 20
PROMPT = "Tell me a very long story about lighthouse number {}, its keeper and the sea."
TOKENS_A_PROMPT = 400


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def has_model(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=1) as answer:
            return bool(json.load(answer)["model_loaded"])
    except urllib.error.HTTPError as error:
        return bool(json.load(error).get("model_loaded"))
    except (OSError, ValueError):
        return False


def wait_for_model(desk: Desk, port: int, began: float) -> float:
    while not has_model(port):
        assert time.perf_counter() - began < LIMIT_S, desk.log.read_text()
        time.sleep(0.02)
    return time.perf_counter() - began


def start_to_serving(folder: Path) -> float:
    """Seconds from the start of the process to a loaded model behind an open port; there is no chain."""
    port = free_port()
    settings = {"RPC_URL": "http://127.0.0.1:9", "API_PORT": str(port), "MODEL_PATH": str(small_model_path())}
    desk = made_desk(folder / "start", settings)
    try:
        desk.open_screen(with_panel=False)
        began = time.perf_counter()
        desk.launch_app()
        return wait_for_model(desk, port, began)
    finally:
        desk.stop()


def made_desk(folder: Path, settings: dict[str, str]) -> Desk:
    folder.mkdir()
    return Desk(folder, settings=settings)


async def stream(url: str, number: int, until: float, refusals: list[str]) -> int:
    """One client that asks again and again; the tokens it was given. `refusals` takes the codes of errors."""
    tokens = 0
    while time.monotonic() < until:
        async with connect(url, max_size=None) as client:
            request = {
                "prompt": PROMPT.format(number),
                "max_tokens": TOKENS_A_PROMPT,
                "job_id": 1,
                "session_id": f"s{number}",
            }
            await client.send(json.dumps({"type": "inference", "request": request}))
            async for message in client:
                frame: dict[str, Any] = json.loads(message)
                refusals.append(frame["code"]) if frame["type"] == "error" else None
                tokens += frame.get("tokens", 0) if frame["type"] == "stream_chunk" else 0
                if frame["type"] in {"stream_end", "error"} or time.monotonic() > until:
                    break
    return tokens


async def streams(url: str, count: int, seconds: float) -> tuple[int, list[str]]:
    until, refusals = time.monotonic() + seconds, list[str]()
    tokens = sum(await asyncio.gather(*(stream(url, number, until, refusals) for number in range(count))))
    return tokens, refusals


def under_load(folder: Path, seconds: float, count: int, jobs: int) -> list[Figure]:
    """The demo's app with its Jobs page open, while streams run and jobs change."""
    port, report = free_port(), folder / "lag.json"
    probe = {"PROBE_REPORT": str(report), "PROBE_JOBS": str(jobs), "API_PORT": str(port), "MAX_PARALLEL": str(count)}
    desk = made_desk(folder / "load", probe)
    try:
        desk.open_screen()
        arguments = ("--data-dir", str(desk.data_dir), "--demo")
        app = desk.spawn(sys.executable, str(Path(__file__).with_name("ui_probed_app.py")), *arguments, log=desk.log)
        wait_for_model(desk, port, time.perf_counter())
        desk.wait_for(desk.is_shown, LIMIT_S, "the window")
        desk.wait_for(lambda: desk.logged("are ready") > 0, LIMIT_S, "the chain")
        desk.press("ctrl+2")
        time.sleep(2)
        process = psutil.Process(app.pid)
        process.cpu_percent()
        began = time.monotonic()
        tokens, refusals = asyncio.run(streams(f"ws://127.0.0.1:{port}/v1/ws", count, seconds))
        ended, share, resident = time.monotonic(), process.cpu_percent(), process.memory_info().rss / MB
        app.terminate()
        app.wait(LIMIT_S)
        assert not refusals or tokens, f"no prompt was served: {sorted(set(refusals))}"
        turns = [(lag, work) for at, lag, work in json.loads(report.read_text()) if began <= at <= ended]
    finally:
        desk.stop()
    return load_figures(turns, tokens / (ended - began), share, resident)


def load_figures(turns: list[tuple[float, float]], rate: float, share: float, resident: float) -> list[Figure]:
    lags, work = [lag for lag, _ in turns], [work for _, work in turns]
    return [
        Figure("loop lag, median", "", f"{percentile(lags, 0.5):.1f} ms of {len(lags)} turns"),
        Figure("loop lag, 99 %", "16 ms", f"{percentile(lags, 0.99):.1f} ms"),
        Figure("loop lag, worst", "50 ms", f"{max(lags, default=0):.1f} ms"),
        Figure("turns later than 50 ms", "0", str(sum(lag > 50 for lag in lags))),
        Figure("computed in one turn, 99 %", "16 ms", f"{percentile(work, 0.99):.1f} ms"),
        Figure("computed in one turn, most", "50 ms", f"{max(work, default=0):.1f} ms"),
        Figure("tokens to all clients", "", f"{rate:.0f} a second"),
        Figure("processor of the GUI process", "", f"{share:.0f} % of a core"),
        Figure("memory of the GUI process, in use", "220 MB", f"{resident:.0f} MB"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--starts", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fabstir-serving-") as folder:
        found = []
        for number in range(wanted.starts):
            place = Path(folder) / str(number)
            place.mkdir()
            found.append(start_to_serving(place))
        told = f"{percentile(found, 0.5):.2f} s of {len(found)} starts"
        figures = [Figure("start to serving, median", "3 s", told)] if found else []
        figures += under_load(Path(folder), wanted.seconds, wanted.streams, wanted.jobs)
    print_figures(f"Window with {wanted.streams} streams and {wanted.jobs} jobs that change", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
