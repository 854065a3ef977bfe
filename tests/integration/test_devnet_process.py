"""The child process of the embedded chain: what it loads, what it knows, and that it never outlives its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from chain_support import wait_until
from secrets_support import canary_key

from fabstir_desktop.devnet import EmbeddedChain, EmbeddedChainError
from fabstir_desktop.devnet.demo import deploy_demo

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import asyncio, sys
from fabstir_desktop.devnet import EmbeddedChain

async def main():
    chain = await EmbeddedChain.start({arguments})
    print(chain.pid, flush=True)
    await asyncio.sleep(60)

{run}
"""


def run_python(code: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    "run",
    [
        "asyncio.run(main())",
        "import threading; t = threading.Thread(target=lambda: asyncio.run(main())); t.start(); t.join()",
    ],
    ids=["main thread", "other thread"],
)
async def test_the_chain_ends_with_its_parent_even_after_kill_9(run: str) -> None:
    with run_python(PARENT.format(arguments="", run=run)) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.send_signal(signal.SIGKILL)

        async def is_gone() -> bool:
            return not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

        await wait_until(is_gone, limit_s=10)


async def test_stop_ends_the_child_and_may_be_called_twice() -> None:
    chain = await EmbeddedChain.start()
    pid = chain.pid
    assert chain.is_running
    await chain.stop()
    await chain.stop()
    assert not chain.is_running
    assert not psutil.pid_exists(pid)


async def test_a_port_that_is_taken_is_said(embedded_chain: EmbeddedChain) -> None:
    with pytest.raises(EmbeddedChainError, match="did not start"):
        await EmbeddedChain.start(port=embedded_chain.port)


async def test_the_child_gets_neither_the_hosts_key_nor_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "0x" + "5ec2e7" * 10 + "0001"
    monkeypatch.setenv("HOST_PRIVATE_KEY", secret)
    async with EmbeddedChain.start() as chain:
        world = await deploy_demo(chain, host_key=canary_key())
        child = psutil.Process(chain.pid)
        seen = " ".join(child.cmdline()) + str(child.environ())
        for key in (secret, chain.bank_key, world.host_key, world.client_key):
            assert key.removeprefix("0x") not in seen
        for shown in (repr(chain), repr(world)):
            assert chain.bank_key not in shown
            assert world.host_key not in shown


def test_the_child_loads_no_qt_no_model_no_ledger_and_no_web3() -> None:
    code = (
        "import sys, fabstir_desktop.devnet.serve; "
        "print([m for m in ('PySide6','qasync','web3','llama_cpp','apsw','keyring','fabstir_desktop.ledger',"
        "'fabstir_desktop.wallet','fabstir_desktop.settlement') if m in sys.modules])"
    )
    with run_python(code) as process:
        assert process.communicate(timeout=60)[0].strip() == "[]"


def test_the_parent_loads_nothing_heavy_until_it_uses_the_chain() -> None:
    code = (
        "import sys, fabstir_desktop.devnet; "
        "print([m for m in ('PySide6','web3','eth','eth_account','eth_abi','aiohttp') if m in sys.modules])"
    )
    with run_python(code) as process:
        assert process.communicate(timeout=60)[0].strip() == "[]"


async def test_a_cancelled_start_leaves_no_child_behind() -> None:
    import asyncio

    before = {child.pid for child in psutil.Process().children()}
    starting = asyncio.ensure_future(_start())
    await wait_until(lambda: _has_new_child(before))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert {child.pid for child in psutil.Process().children()} <= before


async def _start() -> EmbeddedChain:
    return await EmbeddedChain.start()


async def _has_new_child(before: set[int]) -> bool:
    return bool({child.pid for child in psutil.Process().children()} - before)
