"""What happens between the wallet and a real GNOME Keyring, run inside a D-Bus session of its own.

`dbus-run-session -- python keyring_scenarios.py NAME`; the last line is `passed NAME`. The password prompt is the real one,
on a virtual screen; xdotool plays the person.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import secretstorage
from limits import scaled
from wallet_support import CANARY, KEY, OTHER

from fabstir_desktop.errors import FabstirError, KeyExists, KeyringLocked, KeyringUnavailable
from fabstir_desktop.jobs.status import WalletState
from fabstir_desktop.wallet.keystore import KeyringStore
from fabstir_desktop.wallet.wallet import Wallet

PASSWORD = "keyring password"
LIMIT_S = scaled(20.0)
UNLOCK = ("key ctrl+a", f"type {PASSWORD}", "key Return")


def unlocked_daemon() -> None:
    """A keyring daemon whose login keyring is open."""
    subprocess.run(
        ["gnome-keyring-daemon", "--unlock", "--components=secrets", "--daemonize"],
        input=PASSWORD.encode(),
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    wait_for(is_keyring_there, "the keyring's appearance on the bus")


def is_keyring_there() -> bool:
    with closing(secretstorage.dbus_init()) as connection:
        return bool(secretstorage.check_service_availability(connection))


def lock_keyring() -> None:
    with closing(secretstorage.dbus_init()) as connection:
        secretstorage.get_default_collection(connection).lock()


def is_keyring_locked() -> bool:
    with closing(secretstorage.dbus_init()) as connection:
        return secretstorage.get_default_collection(connection).is_locked()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def xdotool(*arguments: str) -> str:
    """Run xdotool; returns what it prints, empty when it found nothing."""
    result = subprocess.run(["xdotool", *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return result.stdout if result.returncode == 0 else ""


def prompt_has_focus() -> bool:
    """Keys that are typed before the prompt has the keyboard are lost."""
    shown = xdotool("search", "--onlyvisible", "--class", "gcr-prompter").split()
    return bool(shown) and xdotool("getwindowfocus").strip() in shown


def prompt_is_gone() -> bool:
    return not xdotool("search", "--onlyvisible", "--class", "gcr-prompter")


async def answer_prompt(is_answered: Callable[[], bool], *keys: str) -> None:
    """Play the person: press keys when the prompt has the keyboard, again if it was not ready for them."""
    end = time.monotonic() + LIMIT_S
    while not is_answered():
        assert time.monotonic() < end, "the prompt was not answered"
        if await asyncio.to_thread(prompt_has_focus):
            for key in keys:
                await asyncio.to_thread(xdotool, *key.split(" ", 1))
        for _ in range(20):
            if not is_answered():
                await asyncio.sleep(0.02)


async def refused(attempt: object, expected: type[FabstirError]) -> str:
    try:
        await attempt  # type: ignore[misc]
    except expected as error:
        return str(error)
    raise AssertionError(f"no {expected.__name__}")


async def kept() -> None:
    """Kept, read by another process, replaced only when asked, removed."""
    unlocked_daemon()
    store = KeyringStore("profile one", timeout_s=LIMIT_S)
    assert await store.get() is None
    await store.set(KEY)
    assert "Secret Service" in await store.place()
    assert await KeyringStore("profile two", timeout_s=LIMIT_S).get() is None
    program = (
        "import asyncio; from fabstir_desktop.wallet.keystore import KeyringStore as K;"
        "print(asyncio.run(K('profile one').get()).address)"
    )
    other = await asyncio.to_thread(
        subprocess.check_output, [sys.executable, "-c", program], timeout=LIMIT_S, text=True
    )
    assert other.strip() == KEY.address
    await refused(store.set(OTHER), KeyExists)
    assert await store.get() == KEY
    await store.set(OTHER, replace=True)
    assert await store.get() == OTHER
    assert await store.remove() is True
    assert await store.remove() is False
    assert await store.get() is None


async def no_screen() -> None:
    """A locked keyring that cannot ask anybody: the state is locked, at once."""
    unlocked_daemon()
    store = KeyringStore("default", timeout_s=LIMIT_S)
    await store.set(KEY)
    lock_keyring()
    wallet = Wallet(Path.home(), keyring=store)
    status = await wallet.load()
    assert status.state is WalletState.LOCKED
    assert status.address is None
    await refused(store.set(OTHER, replace=True), KeyringLocked)


async def dismissed() -> None:
    """The person closes the prompt, then answers a second one."""
    unlocked_daemon()
    store = KeyringStore("default", timeout_s=LIMIT_S)
    await store.set(KEY)
    lock_keyring()
    wallet = Wallet(Path.home(), keyring=store)
    assert (await wallet.load(ask=False)).state is WalletState.LOCKED
    assert prompt_is_gone(), "a look without asking showed a prompt"
    first = asyncio.create_task(wallet.load())
    await answer_prompt(first.done, "key Escape")
    assert (await first).state is WalletState.LOCKED
    await asyncio.to_thread(wait_for, prompt_is_gone, "the end of the prompt")
    second = asyncio.create_task(wallet.load())
    await answer_prompt(second.done, *UNLOCK)
    status = await second
    assert (status.state, status.address) == (WalletState.READY, KEY.address)
    lock_keyring()
    status = await wallet.load(ask=False)
    assert (status.state, status.address) == (WalletState.READY, KEY.address), "the key in force was dropped"
    assert prompt_is_gone()


async def abandoned() -> None:
    """Nobody answers: the wait ends, the loop was never blocked, nothing is stored late, and the late answer helps."""
    unlocked_daemon()
    await KeyringStore("default", timeout_s=LIMIT_S).set(KEY)
    lock_keyring()
    store = KeyringStore("default", timeout_s=1.5)
    longest, beating = 0.0, True

    async def beat() -> None:
        nonlocal longest
        while beating:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    heart = asyncio.create_task(beat())
    words = await refused(store.set(OTHER, replace=True), KeyringLocked)
    assert "did not answer" in words
    beating = False
    await heart
    assert longest < 0.5, f"the loop stood still for {longest:.2f} s"
    await answer_prompt(lambda: not is_keyring_locked(), *UNLOCK)
    for stuck in store._thread._stuck:
        await asyncio.to_thread(stuck.join, LIMIT_S)
        assert not stuck.is_alive()
    assert await store.get() == KEY


async def nothing() -> None:
    """No keyring service at all: unavailable, with advice, within the limit; the same store finds one that comes later."""
    store = KeyringStore("default", timeout_s=LIMIT_S)
    wallet = Wallet(Path.home(), keyring=store)
    status = await wallet.load()
    assert status.state is WalletState.UNAVAILABLE
    assert status.action
    assert "no keyring" in await refused(store.set(KEY), KeyringUnavailable)
    assert shutil.which("gnome-keyring-daemon")
    unlocked_daemon()
    assert (await wallet.set_key(CANARY)).state is WalletState.READY


def main(name: str) -> None:
    logging.basicConfig(level=logging.DEBUG)
    asyncio.run(globals()[name](), debug=True)
    print(f"passed {name}")


if __name__ == "__main__":
    main(sys.argv[1])
