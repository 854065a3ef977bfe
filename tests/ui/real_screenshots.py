"""Take pictures of the real app: real model, embedded chain, real tray in a real panel on a virtual screen.

    .venv/bin/python tests/ui/real_screenshots.py OUT      (needs Xvfb, openbox, tint2, xdotool, ImageMagick's import)

On the way it forces a checkpoint by clicking in the tray's menu, and fails if no checkpoint was submitted by that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from desk import WINDOW, Desk
from engine_support import small_model_path

PAGES = ("dashboard", "jobs", "transactions", "models", "wallet", "logs", "settings")
START_LIMIT_S = 90
ANSWER_LIMIT_S = 300
NOTICE_S = 9
PROMPT = "Tell me a long story about a lighthouse keeper and an old radio."


def main() -> int:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        folder = Path(tempfile.mkdtemp(prefix="fabstir-pictures-"))
        desk = Desk(folder, scheme=scheme, settings={"MODEL_PATH": str(model_in(folder / "models"))})
        try:
            desk.open_screen()
            walk(desk, out, scheme)
        finally:
            desk.stop()
    return 0


def model_in(folder: Path) -> Path:
    """The small model in a folder of its own: where it is installed is nobody's business."""
    folder.mkdir()
    return Path(shutil.copy(small_model_path(), folder))


def walk(desk: Desk, out: Path, scheme: str) -> None:
    """Serve a prompt, force a checkpoint from the tray, then take a picture of every page while a second one streams."""
    desk.start_app("--demo")
    window = desk.windows(WINDOW)[0]
    desk.wait_for(lambda: desk.logged("are ready") > 0, START_LIMIT_S, "the chain")
    desk.wait_for(lambda: desk.logged("Listening on") > 0, START_LIMIT_S, "the server")
    answering = chat(desk, 150, "picture")
    desk.wait_for(lambda: answering.poll() is not None, ANSWER_LIMIT_S, "the answer")
    assert answering.returncode == 0, "the prompt was not answered"
    desk.wait_for(lambda: desk.logged("Checkpoint confirmed") > 0, ANSWER_LIMIT_S, "a checkpoint")
    click_submit(desk, out / f"tray-menu-{scheme}.png")
    time.sleep(NOTICE_S)
    chat(desk, 1500, "second")
    desk.wait_for(lambda: desk.logged("Checkpoint confirmed") > 2, ANSWER_LIMIT_S, "the next checkpoints")
    for place, name in enumerate(PAGES, start=1):
        desk.run("xdotool", "key", "--window", window, f"ctrl+{place}")
        time.sleep(2)
        picture(desk, out / f"{name}-{scheme}.png")


def chat(desk: Desk, max_tokens: int, session: str) -> subprocess.Popen[bytes]:
    """A prompt by the product's own client."""
    arguments = ("--data-dir", str(desk.data_dir), "chat", "--job", "1", "--max-tokens", str(max_tokens))
    return desk.spawn(sys.executable, "-m", "fabstir_desktop", *arguments, "--session", session, PROMPT)


def click_submit(desk: Desk, path: Path) -> None:
    """Open the tray's menu with the right button, take its picture, choose *Submit checkpoints now*."""
    before = desk.logged("Checkpoint submitted")
    desk.open_tray_menu()
    time.sleep(1.5)
    picture(desk, path)
    desk.press("Escape")
    desk.click_submit()
    desk.wait_for(lambda: desk.logged("Checkpoint submitted") > before, 60, "the checkpoint that was clicked")


def picture(desk: Desk, path: Path) -> None:
    """The whole screen, small enough to keep."""
    desk.run("import", "-window", "root", "-resize", "1100x", "+dither", "-colors", "128", "PNG8:" + str(path))


if __name__ == "__main__":
    sys.exit(main())
