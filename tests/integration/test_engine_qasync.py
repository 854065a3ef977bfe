"""The engine under the desktop app's loop: Qt's, by qasync."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import asyncio, json, os, signal, sys
sys.path[:0] = {paths!r}
import qasync
from PySide6.QtCore import QCoreApplication
from engine_support import Answer, ask, collect, ready_engine, wait_until
from fabstir_desktop.errors import WorkerCrashed

async def main():
    engine = await ready_engine(parallel=4)
    answers = await asyncio.gather(*(collect(engine, ask(f"Tell me about {{n}}.", 20)) for n in range(4)))
    answer = Answer()
    task = asyncio.create_task(collect(engine, ask("Write a long story.", 400), answer))
    await wait_until(lambda: len(answer.token_ids) > 3)
    os.kill(engine.status.worker_pid, signal.SIGKILL)
    try:
        await task
        crash = "none"
    except WorkerCrashed:
        crash = "seen"
    after = await collect(engine, ask("Say hello.", 3))
    await engine.stop()
    print(json.dumps([[len(a.token_ids) for a in answers], crash, len(after.token_ids)]))

app = QCoreApplication([])
loop = qasync.QEventLoop(app)
with loop:
    loop.run_until_complete(main())
"""


def test_streams_and_restarts_work_in_the_qt_loop() -> None:
    tests = Path(__file__).parent.parent
    code = SCRIPT.format(paths=[str(tests), str(tests.parent)])
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[20] * 4, "seen", 3]
