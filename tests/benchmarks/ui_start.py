"""How fast the window is there, and what the app costs while it waits: medians of five starts on a virtual screen.

Run it by itself: `python tests/benchmarks/ui_start.py [STARTS]`; it prints one line of JSON for each figure. The app has no
model, no key and no chain: what is measured is the face. Start to window is wall time until the window is mapped; the
processor's share is that of the GUI process over ten seconds, begun five seconds after the window came.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "ui")]

import psutil  # noqa: E402 - after the path was set
from desk import WINDOW, Desk  # noqa: E402

SETTLE_S = 5.0
WATCH_S = 10.0
LIMIT_S = 60.0
MB = 1 << 20


def say(what: str, unit: str, figures: list[float]) -> None:
    shown = {"median": statistics.median(figures), "best": min(figures), "worst": max(figures)}
    print(json.dumps({"benchmark": what, "unit": unit, **{name: round(value, 3) for name, value in shown.items()}}))


def seconds_to_window(desk: Desk, arguments: tuple[str, ...]) -> tuple[float, subprocess.Popen[bytes]]:
    """Start the app and look for its window as fast as xdotool can."""
    began = time.perf_counter()
    app = desk.spawn(sys.executable, "-m", "fabstir_desktop", *arguments, log=desk.log)
    while not desk.is_shown(WINDOW):
        assert time.perf_counter() - began < LIMIT_S, desk.log.read_text()
        time.sleep(0.005)
    return time.perf_counter() - began, app


def measure(desk: Desk) -> tuple[float, float, float]:
    """Seconds to the window, idle share of a processor in percent, resident megabytes."""
    seconds, app = seconds_to_window(desk, ("--data-dir", str(desk.data_dir)))
    process = psutil.Process(app.pid)
    time.sleep(SETTLE_S)
    process.cpu_percent()
    time.sleep(WATCH_S)
    share, resident = process.cpu_percent(), process.memory_info().rss / MB
    app.terminate()
    app.wait(15)
    return seconds, share, resident


def main(starts: int) -> int:
    desk = Desk(
        Path(tempfile.mkdtemp(prefix="fabstir-start-")), settings={"RPC_URL": "http://127.0.0.1:9", "API_PORT": "0"}
    )
    try:
        desk.open_screen()
        found = [measure(desk) for _ in range(starts)]
    finally:
        desk.stop()
    say("start to window", "s", [seconds for seconds, _, _ in found])
    say("idle processor share of the GUI process", "%", [share for _, share, _ in found])
    say("resident memory of the GUI process", "MB", [resident for _, _, resident in found])
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
