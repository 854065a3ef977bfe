"""The window over a real, locked GNOME Keyring, run inside a D-Bus session of its own; xdotool plays the person at its prompt.

`dbus-run-session -- python keyring_window_scenario.py window`; the last line is `passed window`. Qt is offscreen: only the
keyring's own prompt is on the screen.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"

import qasync
from engine_support import ScriptedEngine
from keyring_scenarios import (
    LIMIT_S,
    UNLOCK,
    answer_prompt,
    lock_keyring,
    prompt_has_focus,
    prompt_is_gone,
    unlocked_daemon,
    wait_for,
)
from PySide6.QtWidgets import QApplication
from wallet_support import KEY

from fabstir_desktop import node as node_module
from fabstir_desktop.jobs.status import WalletState
from fabstir_desktop.node import HostNode
from fabstir_desktop.settings import Settings
from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.log_store import LogStore
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.wallet.keystore import KeyringStore, profile_name

QUIET_LOOKS_S = 3.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait on the loop that the window runs in: were it blocked, nothing here would go on."""
    for _ in range(int(LIMIT_S / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


def problem_row(window: MainWindow, code: str) -> int | None:
    places = [place for place, text in enumerate(window.problems.texts()) if text.split()[1] == code]
    return places[0] if places else None


def unlock(window: MainWindow) -> None:
    """Click what the problem offers."""
    place = problem_row(window, "K02")
    assert place is not None, window.problems.texts()
    window.problems._rows[place].action_button.click()


async def use(window: MainWindow, node: HostNode) -> None:
    """Left waiting, dismissed, unlocked: each from the window, with the person at the prompt."""
    keys = window.wallet.keys

    def state() -> WalletState:
        return node.status.wallet.state

    window.show_page("wallet")
    await until(keys.waiting_row.isVisible, "the waiting row of the first look")
    keys.cancel_button.click()
    await until(lambda: state() is WalletState.LOCKED, "the end of the wait")
    await until(lambda: problem_row(window, "K02") is not None, "the problem K02")
    assert not keys.waiting_row.isVisible()
    await answer_prompt(prompt_is_gone, "key Escape")  # it is still on the screen, and still the person's

    unlock(window)
    await until(keys.waiting_row.isVisible, "the waiting row after a click")
    await until(prompt_has_focus, "the prompt")
    await answer_prompt(prompt_is_gone, "key Escape")
    await until(lambda: not keys.waiting_row.isVisible(), "the end of the second wait")
    assert state() is WalletState.LOCKED
    for _ in range(int(QUIET_LOOKS_S / 0.1)):
        await asyncio.sleep(0.1)
        assert prompt_is_gone(), "a prompt came that nobody asked for"

    unlock(window)
    await answer_prompt(lambda: state() is WalletState.READY, *UNLOCK)
    await until(lambda: problem_row(window, "K02") is None, "the problem's end")
    await until(lambda: window.wallet.address.shown.toolTip() == KEY.address, "the address on the page")


async def main(folder: Path) -> None:
    """A node without network over the keyring of this session."""
    unlocked_daemon()
    data_dir = folder / "data"
    await KeyringStore(profile_name(data_dir), timeout_s=LIMIT_S).set(KEY)
    lock_keyring()
    settings = Settings(data_dir=data_dir, api_port=0, rpc_url=("http://127.0.0.1:9",))
    node = HostNode(settings, engine=ScriptedEngine())
    bridge = Bridge()
    window = MainWindow(bridge, LogStore())
    window.show()
    node_module._KEY_RETRY_S = QUIET_LOOKS_S / 5
    await node.start()
    bridge.attach(node)
    try:
        await use(window, node)
    finally:
        await bridge.close()
        await node.stop()
    await asyncio.to_thread(wait_for, prompt_is_gone, "the end of all prompts")


if __name__ == "__main__":
    app = QApplication(sys.argv[:1])
    loop = qasync.QEventLoop(app)
    with loop:
        loop.run_until_complete(main(Path.home()))
    print(f"passed {sys.argv[1]}")
