"""`key set`, `key show`, `key remove`, `key unlock`: the key is read from standard input or a prompt, never an argument."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from typing import Any

from fabstir_desktop.errors import EnvironmentFault, KeyMissing, UserError
from fabstir_desktop.jobs.status import WalletState
from fabstir_desktop.server.control import call_running
from fabstir_desktop.settings import Settings
from fabstir_desktop.wallet.wallet import Wallet

_CALL_LIMIT_S = 40.0


async def run_key_command(arguments: Mapping[str, Any], settings: Settings) -> int:
    """Run one of them; a running app takes the change over at once. Raises KeyInvalid, KeyExists, KeyringUnavailable, ..."""
    action = arguments["action"]
    if action == "unlock":
        return await _unlock(settings)
    # A key of the environment would hide the stored one, which is what `set` and `remove` are about.
    environment_key = settings.host_private_key if action == "show" else None
    wallet = Wallet(settings.data_dir, environment_key=environment_key)
    try:
        match action:
            case "set":
                await _set(wallet, replace=arguments["replace"], into_file=arguments["file"])
            case "remove":
                await wallet.remove_key()
                print("Removed.")
            case _:
                await _show(wallet)
                return 0
    finally:
        wallet.close()
    await call_running(settings.data_dir, "reload_key", {}, timeout_s=_CALL_LIMIT_S)
    return 0


async def _set(wallet: Wallet, *, replace: bool, into_file: bool) -> None:
    text = _read_secret("HOST_PRIVATE_KEY (hidden): ")
    password = _new_password() if into_file else None
    status = await wallet.set_key(text, replace=replace, password=password)
    print(f"Stored in {status.location}. The host's address is {status.address}")


async def _show(wallet: Wallet) -> None:
    status = await wallet.load()
    if status.address is None or status.state in {WalletState.OTHER_KEY, WalletState.OTHER_PLACE}:
        raise KeyMissing(f"{status.detail} {status.action}".strip())
    print(f"{status.address} ({status.location})")


async def _unlock(settings: Settings) -> int:
    password = _read_secret("Password of the keystore file (hidden): ")
    answer = await call_running(settings.data_dir, "unlock_keystore", {"password": password}, timeout_s=_CALL_LIMIT_S)
    if answer is None:
        raise EnvironmentFault(f"no running app uses {settings.data_dir}: start it, then unlock the file")
    print(f"Unlocked. The host's address is {answer['address']}")
    return 0


def _new_password() -> str:
    password = _read_secret("New password for the keystore file (hidden): ")
    if not password:
        raise UserError("the keystore file needs a password")
    if sys.stdin.isatty() and _read_secret("The same password again: ") != password:
        raise UserError("the two passwords differ; nothing was stored")
    return password


def _read_secret(question: str) -> str:
    """One line, hidden where there is a terminal."""
    return getpass.getpass(question) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
