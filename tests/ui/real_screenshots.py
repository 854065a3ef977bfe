"""Take pictures of the real app: real model, embedded chain, real tray in a real panel on a virtual screen.

    .venv/bin/python tests/ui/real_screenshots.py OUT      (needs Xvfb, openbox, tint2, xdotool, ImageMagick's import)

On the way it forces a checkpoint by clicking in the tray's menu, and fails if no checkpoint was submitted by that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DISPLAY = ":78"
SIZE = (1400, 960)
PAGES = ("dashboard", "jobs", "transactions", "models", "wallet", "logs", "settings")
START_LIMIT_S = 90
ANSWER_LIMIT_S = 300
NOTICE_S = 9


class Desk:
    """A virtual screen with a window manager and a panel, and the app on it."""

    def __init__(self, scheme: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fabstir-pictures-"))
        settings = {
            "APPEARANCE": scheme,
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "DISPLAY": DISPLAY,
            "SESSION_GRACE_SECONDS": "120",
        }
        self.environment = {**os.environ, **settings}
        self.environment.pop("QT_QPA_PLATFORM", None)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = self.folder / "app.log"

    def spawn(self, *command: str, log: Path | None = None) -> subprocess.Popen[bytes]:
        with (log or Path(os.devnull)).open("wb") as file:
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        self.processes.append(process)
        return process

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    def wait_for(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        limit = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > limit:
                raise SystemExit(f"gave up waiting for {what}:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def logged(self, words: str) -> int:
        return self.log.read_text().count(words)

    def start(self) -> str:
        self.spawn("Xvfb", DISPLAY, "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24")
        self.wait_for(lambda: Path(f"/tmp/.X11-unix/X{DISPLAY[1:]}").exists(), 10, "the screen")
        self.spawn("openbox")
        self.spawn("tint2")
        self.app = self.spawn(
            sys.executable, "-m", "fabstir_desktop", "--demo", "--data-dir", str(self.folder / "data"), log=self.log
        )
        window = self.run("xdotool", "search", "--sync", "--onlyvisible", "--name", "Fabstir host").splitlines()[0]
        self.wait_for(lambda: self.logged("are ready") > 0, START_LIMIT_S, "the chain")
        return window

    def picture(self, path: Path) -> None:
        self.run("import", "-window", "root", "-resize", "1100x", "+dither", "-colors", "128", "PNG8:" + str(path))

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> int:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        desk = Desk(scheme)
        try:
            walk(desk, out, scheme)
        finally:
            desk.stop()
    return 0


def walk(desk: Desk, out: Path, scheme: str) -> None:
    window = desk.start()
    chat = (
        "-m",
        "fabstir_desktop",
        "--data-dir",
        str(desk.folder / "data"),
        "chat",
        "--job",
        "1",
        "--max-tokens",
    )
    prompt = "Tell me a long story about a lighthouse keeper and an old radio."
    desk.wait_for(lambda: desk.logged("Listening on") > 0, START_LIMIT_S, "the server")
    answering = desk.spawn(sys.executable, *chat, "150", "--session", "picture", prompt)
    desk.wait_for(lambda: answering.poll() is not None, ANSWER_LIMIT_S, "the answer")
    if answering.returncode:
        raise SystemExit(f"the prompt was not answered: {answering.args}")
    desk.wait_for(lambda: desk.logged("Checkpoint confirmed") > 0, ANSWER_LIMIT_S, "a checkpoint")
    click_submit(desk, out / f"tray-menu-{scheme}.png")
    time.sleep(NOTICE_S)
    desk.spawn(sys.executable, *chat, "1500", "--session", "second", prompt)
    desk.wait_for(lambda: desk.logged("Checkpoint confirmed") > 2, ANSWER_LIMIT_S, "the next checkpoints")
    for place, name in enumerate(PAGES, start=1):
        desk.run("xdotool", "key", "--window", window, f"ctrl+{place}")
        time.sleep(2)
        desk.picture(out / f"{name}-{scheme}.png")


def click_submit(desk: Desk, picture: Path) -> None:
    """Open the tray's menu with the right button, take its picture, click *Submit checkpoints now*."""
    before = desk.logged("Checkpoint submitted")
    x, y = SIZE[0] - 152, SIZE[1] - 15
    desk.run("xdotool", "mousemove", str(x), str(y), "click", "3")
    time.sleep(1.5)
    desk.picture(picture)
    desk.run("xdotool", "key", "Down", "Down", "Down", "Return")
    desk.wait_for(lambda: desk.logged("Checkpoint submitted") > before, 60, "the checkpoint that was clicked")


if __name__ == "__main__":
    sys.exit(main())
