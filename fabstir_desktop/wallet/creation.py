"""New keys, and what a key's address is before it is stored.

A key is made only when its owner asks for one, and is used only after an encrypted copy of it was written to a file of
the owner's choice and read back: a key without a copy is money waiting to be lost.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from fabstir_desktop.errors import EnvironmentFault, KeyInvalid
from fabstir_desktop.jobs.status import WalletStatus
from fabstir_desktop.wallet.keys import CURVE_ORDER, KEY_DIGITS, SecretKey, read_private_key
from fabstir_desktop.wallet.keystore import FileStore
from fabstir_desktop.wallet.wallet import Wallet


async def address_of(text: str) -> str:
    """The checksummed address of a private key. Raises KeyInvalid, whose message never repeats the text."""
    result = read_private_key(text)
    del text
    if isinstance(result, KeyInvalid):
        raise result
    return await asyncio.to_thread(lambda: result.address)


async def create_key(wallet: Wallet, copy_path: Path, password: str, *, in_file: bool) -> WalletStatus:
    """Make a key, write and read back its encrypted copy, then store it: in the keyring, or `in_file` in the keystore file.

    Raises KeyExists (a key is stored, or the copy's file holds another key), KeyInvalid (empty password), KeyringLocked,
    EnvironmentFault (the copy or the key cannot be written). Nothing is in force then.
    """
    key = _new_key()
    copy = FileStore(copy_path)
    try:
        await copy.set(key, password)
        found = await copy.get(password)
    finally:
        copy.close()
    if found != key:
        raise EnvironmentFault(f"the copy at {copy_path} cannot be read back; the key is not used")
    return await wallet.set_key(key.reveal_hex(), password=password if in_file else None)


def _new_key() -> SecretKey:
    """A number of the system's random source, from 1 to the curve's order minus 1."""
    return SecretKey((secrets.randbelow(CURVE_ORDER - 1) + 1).to_bytes(KEY_DIGITS // 2, "big"))
