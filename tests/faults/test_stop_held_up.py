"""What hangs in the system does not hold up the end, and what the application starts does not inherit the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine_support import small_model_path
from limits import SCALE
from product_support import ask, brief_request, running
from secrets_support import KEY_MARK, canary_key
from websockets.asyncio.client import connect

NAMES_HANG = """
import socket, time
really = socket.getaddrinfo
def getaddrinfo(host, *more, **others):
    if isinstance(host, str) and host.endswith(".invalid"):
        time.sleep(60)
    return really(host, *more, **others)
socket.getaddrinfo = getaddrinfo
"""
KEEPS_AWAKE = """#!/bin/sh
env > "{path}.part"
mv "{path}.part" "{path}"
exec cat
"""


@pytest.mark.parametrize("arguments", [("--headless",), ()], ids=["headless", "tray app"])
async def test_a_name_that_no_server_resolves_does_not_hold_up_the_end(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NAMES_HANG)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "RPC_URL": "http://chain.invalid:8545",
        "QT_QPA_PLATFORM": "offscreen",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "HOST_PRIVATE_KEY": canary_key(),
    }
    async with running(tmp_path / "data", environment, arguments=arguments, wait_for_model=False) as product:
        code, seconds = await product.stop()
        assert code == 0, product.output[-3000:]
        assert seconds < 5.0 * SCALE, f"it took {seconds:.1f} s"


async def test_what_keeps_the_machine_awake_does_not_inherit_the_key(tmp_path: Path) -> None:
    programs, seen = tmp_path / "programs", tmp_path / "environment"
    programs.mkdir()
    inhibitor = programs / "systemd-inhibit"
    inhibitor.write_text(KEEPS_AWAKE.format(path=seen))
    inhibitor.chmod(0o755)
    environment = {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "RPC_URL": "http://127.0.0.1:9",
        "HOST_PRIVATE_KEY": canary_key(),
        "MODEL_PATH": str(small_model_path()),
    }
    async with running(tmp_path / "data", environment) as product, connect(product.url) as socket:
        status = await product.wait_for(lambda answer: answer["wallet"]["state"] == "ready")
        assert status["wallet"]["address"], "the application itself has the key"
        while not seen.exists():
            await ask(socket, {**brief_request(0, "Count from one to one hundred.", 200), "id": 1})
        text = seen.read_text()
    assert f"PATH={programs}" in text, "it is the application's child"
    assert KEY_MARK not in text.lower()
