"""Render every page with a scripted node, light and dark, at 100 and 200 %, and one overview of all.

.venv/bin/python tests/ui/screenshots.py OUT
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

THUMB = 620


def main() -> int:
    if len(sys.argv) == 2:
        return render_all(Path(sys.argv[1]))
    render(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    return 0


def render_all(folder: Path) -> int:
    """The scale factor is fixed when Qt starts: one process for each picture set."""
    folder.mkdir(parents=True, exist_ok=True)
    for scale in ("1", "2"):
        for scheme in ("light", "dark"):
            environment = {**os.environ, "QT_SCALE_FACTOR": scale}
            command = [sys.executable, __file__, str(folder), scheme, scale]
            subprocess.run(command, check=True, env=environment, timeout=180)
    print(overview(folder))
    return 0


def overview(folder: Path) -> Path:
    from PySide6.QtCore import QPoint, Qt
    from PySide6.QtGui import QGuiApplication, QImage, QPainter

    app = QGuiApplication([])
    files = sorted(file for file in folder.glob("*.png") if file.name != "overview.png")
    thumbs = [QImage(str(file)).scaledToWidth(THUMB, Qt.TransformationMode.SmoothTransformation) for file in files]
    columns = 4
    height = max(image.height() for image in thumbs) + 12
    rows = -(-len(thumbs) // columns)
    sheet = QImage(columns * (THUMB + 12), rows * height, QImage.Format.Format_RGB32)
    sheet.fill(Qt.GlobalColor.gray)
    painter = QPainter(sheet)
    for place, image in enumerate(thumbs):
        painter.drawImage(QPoint(place % columns * (THUMB + 12) + 6, place // columns * height + 6), image)
    painter.end()
    path = folder / "overview.png"
    sheet.save(str(path))
    del app
    return path


def render(folder: Path, scheme: str, scale: str) -> None:
    import qasync
    from PySide6.QtCore import QSettings
    from PySide6.QtWidgets import QApplication
    from ui_support import FakeNode, fill_with_life

    from fabstir_desktop.ui.theme import Theme
    from fabstir_desktop.ui.translation import install_translations

    QSettings.setPath(QSettings.defaultFormat(), QSettings.Scope.UserScope, tempfile.mkdtemp())
    app = QApplication(["screenshots"])
    font = app.font()
    font.setPointSizeF(10)
    app.setFont(font)
    Theme(app, scheme)
    translators = install_translations(app)
    loop = qasync.QEventLoop(app)
    node = FakeNode(Path(tempfile.mkdtemp()))
    models = node.settings.data_dir / "models"
    models.mkdir()
    for name, megabytes in (("llama-3-8b-instruct.Q4_K_M", 49), ("phi-4.Q4_K_M", 84)):
        with (models / f"{name}.gguf").open("wb") as file:
            file.truncate(megabytes * 100_000_000)
    fill_with_life(node)
    with loop:
        loop.run_until_complete(_walk(folder, f"{scheme}-{scale}00", node))
    del translators


async def _walk(folder: Path, suffix: str, node: object) -> None:
    from PySide6.QtWidgets import QApplication
    from ui_support import FakeNode

    from fabstir_desktop.jobs.problems import Problem, Severity
    from fabstir_desktop.ui.bridge import Bridge
    from fabstir_desktop.ui.leaving import Leaving
    from fabstir_desktop.ui.log_store import LogStore
    from fabstir_desktop.ui.main_window import MainWindow
    from fabstir_desktop.ui.pages.page import PAGES
    from fabstir_desktop.ui.tray import Tray

    assert isinstance(node, FakeNode)
    store = LogStore()
    logging.getLogger("fabstir_desktop").addHandler(store)
    logging.getLogger("fabstir_desktop").setLevel(logging.DEBUG)
    log = logging.getLogger("fabstir_desktop.settlement.manager")
    for total in range(57, 100, 7):
        log.debug("Generated 7 tokens for job 12345 (total: %d, last checkpoint: 0)", total)
    log.info("CHECKPOINT NEEDED for job 12345 with 100 tokens!")
    log.info("Checkpoint submitted successfully for job 12345 - tx_hash: 0x8d1b2c%s35c4", "0" * 54)
    log.warning("The RPC sepolia.base.org did not answer within 5 s; the second one is used")
    bridge = Bridge()
    window = MainWindow(bridge, store)
    window.resize(1240, 840)
    window.show()
    bridge.attach(node)
    for job_id in (4711, 4712):
        for _ in range(12):
            node.count_tokens(job_id, 4)
    await asyncio.sleep(1.6)
    for name in PAGES:
        window.show_page(name)
        await asyncio.sleep(0.8 if name in {"dashboard", "models"} else 0.3)
        window.grab().save(str(folder / f"{PAGES.index(name) + 1}-{name}-{suffix}.png"))
    window.show_page("jobs", "4711")
    await asyncio.sleep(0.4)
    window.grab().save(str(folder / f"2-jobs-drawer-{suffix}.png"))
    node.set_problems(
        Problem(
            "K01", Severity.ERROR, "No host key yet. The app can load models but cannot earn.", "Add key", page="wallet"
        ),
        Problem("G01", Severity.WARNING, "About 38 claims left.", "Fund", page="wallet"),
    )
    await asyncio.sleep(0.4)
    window.show_page("dashboard")
    await asyncio.sleep(0.4)
    window.grab().save(str(folder / f"1-dashboard-problems-{suffix}.png"))
    wizard = window.open_first_steps()
    for place in range(len(wizard.steps)):
        if wizard.current is wizard.test:
            wizard.test.run_test()
        if wizard.current is wizard.reach:
            wizard.reach.check()
        await asyncio.sleep(0.3)
        if place in {0, 1, 2, 4, 6, 7, 8}:
            wizard.grab().save(str(folder / f"8-first-steps-{place + 1}-{suffix}.png"))
        wizard.go(1)
    leaving = Leaving(bridge, window, lambda: True)
    leaving.ask_to_quit()
    await asyncio.sleep(0.2)
    leaving.question.grab().save(str(folder / f"9-quit-{suffix}.png"))
    leaving.question.reject()
    tray = Tray(bridge)
    tray.update()
    tray.menu.popup(window.pos())
    await asyncio.sleep(0.3)
    tray.menu.grab().save(str(folder / f"9-tray-menu-{suffix}.png"))
    tray.menu.close()
    await bridge.close()
    QApplication.processEvents()


if __name__ == "__main__":
    sys.exit(main())
