"""Places where the key is kept: the keyring of the operating system, or an encrypted file.

The keyring may ask the person for a password and then waits for them as long as they like: so everything about it
happens on its own thread, and a wait has a limit. Only keyrings that protect are used; one that stores clear text, or
nothing at all, is refused even if the environment asks for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import platformdirs

from fabstir_desktop.errors import (
    EnvironmentFault,
    FabstirError,
    KeyExists,
    KeyInvalid,
    KeyringLocked,
    KeyringUnavailable,
)
from fabstir_desktop.wallet.backends import Backend, native_backends, place_name, remove_first, translate, would_ask
from fabstir_desktop.wallet.keys import SecretKey, read_private_key
from fabstir_desktop.wallet.thread import OneThread, TooManyWaiting

SERVICE = "fabstir-desktop"
KEYRING_TIMEOUT_S = 30.0
FILE_TIMEOUT_S = 60.0
_MAX_FILE_BYTES = 65_536
T = TypeVar("T")


class KeyringStore:
    """The key of one profile in the keyring of the operating system."""

    def __init__(
        self,
        profile: str,
        *,
        timeout_s: float = KEYRING_TIMEOUT_S,
        find_backends: Callable[[], Sequence[Backend]] = native_backends,
        would_ask: Callable[[Backend], bool] = would_ask,
    ) -> None:
        self._profile = profile
        self._timeout_s = timeout_s
        self._find_backends = find_backends
        self._would_ask = would_ask
        self._limit: asyncio.Timeout | None = None
        self._has_given_up = False
        self._thread = OneThread("wallet-keyring")

    async def get(self) -> SecretKey | None:
        """The key, or None. Raises KeyringUnavailable, KeyringLocked, KeyInvalid."""
        return await self._run(lambda _: self._read())

    async def set(self, key: SecretKey, *, replace: bool = False) -> None:
        """Store the key and read it back. Raises KeyExists, KeyringUnavailable, KeyringLocked."""
        await self._run(lambda abandoned: self._write(key, replace, abandoned))

    async def remove(self) -> bool:
        """Forget the key; returns whether there was one. Raises KeyringUnavailable, KeyringLocked."""
        return await self._run(self._remove)

    async def place(self) -> str:
        """What people call this keyring. Raises KeyringUnavailable."""
        return await self._run(lambda _: place_name(self._find_backends()[0]))

    async def might_ask(self) -> bool:
        """Whether reading would ask the person for a password, or that cannot be known. Never asks."""
        try:
            return await self._run(lambda _: self._would_ask(self._find_backends()[0]))
        except (KeyringUnavailable, KeyringLocked):
            return False

    def give_up(self) -> None:
        """End the present wait at once: it then raises KeyringLocked. A prompt on screen stays with its owner."""
        if self._limit is not None:
            self._has_given_up = True
            self._limit.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._thread.close()

    async def _run(self, call: Callable[[threading.Event], T]) -> T:
        self._has_given_up = False
        try:
            async with asyncio.timeout(self._timeout_s) as self._limit:
                return await self._thread.run(call, timeout_s=2 * self._timeout_s)
        except TimeoutError:
            if self._has_given_up:
                raise KeyringLocked("the keyring was not waited for; unlock it and try again") from None
            raise KeyringLocked(
                f"the keyring did not answer within {self._timeout_s:.0f} s; unlock it and try again"
            ) from None
        except TooManyWaiting:
            raise KeyringLocked("several prompts of the keyring are unanswered; answer or close them") from None
        finally:
            self._limit = None

    def _read(self) -> SecretKey | None:
        for backend in self._find_backends():
            text = translate(lambda one=backend: one.get_password(SERVICE, self._profile))  # type: ignore[misc]
            if text is not None:
                result = read_private_key(text)
                if isinstance(result, KeyInvalid):
                    raise KeyInvalid(f"what the {place_name(backend)} holds for this profile is not a private key")
                return result
        return None

    def _write(self, key: SecretKey, replace: bool, abandoned: threading.Event) -> None:
        stored = self._read_for_replacing(replace)
        if stored is not None and stored != key and not replace:
            raise KeyExists(f"the key of {stored.address} is stored already; say so if it is to be replaced")
        if abandoned.is_set():
            return
        backend = self._find_backends()[0]
        remove_first(backend, SERVICE, self._profile)
        translate(lambda: backend.set_password(SERVICE, self._profile, key.reveal_hex()))
        if self._read() != key:
            raise KeyringUnavailable(f"the {place_name(backend)} did not keep the key; it was not saved")
        _ = key.address  # computed here, off the loop

    def _read_for_replacing(self, replace: bool) -> SecretKey | None:
        try:
            return self._read()
        except KeyInvalid:
            if not replace:
                raise
            return None

    def _remove(self, abandoned: threading.Event) -> bool:
        removed = False
        for backend in self._find_backends():
            # The first read may wait for the person to unlock; only then is it sure that something is there.
            stored = translate(lambda one=backend: one.get_password(SERVICE, self._profile))  # type: ignore[misc]
            if stored is not None and not abandoned.is_set():
                translate(lambda one=backend: one.delete_password(SERVICE, self._profile))  # type: ignore[misc]
                removed = True
        return removed


class FileStore:
    """The key in an encrypted file (Web3 keystore, version 3, scrypt), readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = OneThread("wallet-file")

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    async def address(self) -> str | None:
        """The address the file names, without its password; None without a file. Raises KeyInvalid."""
        return await self._thread.run(lambda _: self._read_address(), timeout_s=FILE_TIMEOUT_S)

    async def get(self, password: str) -> SecretKey | None:
        """The key, or None without a file. Raises KeyringLocked (wrong password), KeyInvalid (no keystore)."""
        return await self._thread.run(lambda _: self._decrypt(password), timeout_s=FILE_TIMEOUT_S)

    async def set(self, key: SecretKey, password: str, *, replace: bool = False) -> None:
        """Encrypt and write (about a second). Raises KeyExists, KeyInvalid (empty password), EnvironmentFault."""
        if not password:
            raise KeyInvalid("a keystore file needs a password")
        await self._thread.run(lambda gone: self._encrypt(key, password, replace, gone), timeout_s=FILE_TIMEOUT_S)

    async def remove(self) -> bool:
        """Delete the file; returns whether there was one."""
        return await self._thread.run(lambda _: self._delete(), timeout_s=FILE_TIMEOUT_S)

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._thread.close()

    def _load(self) -> dict[str, object] | None:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentFault(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            document = json.loads(raw) if len(raw) <= _MAX_FILE_BYTES else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or document.get("version") != 3:
            raise KeyInvalid(f"{self._path} is not a keystore file of version 3")
        return document

    def _read_address(self) -> str | None:
        document = self._load()
        if document is None:
            return None
        from eth_utils.address import is_hex_address, to_checksum_address  # noqa: PLC0415 - slow to import

        named = str(document.get("address", ""))
        named = named if named.startswith("0x") else "0x" + named
        if not is_hex_address(named):
            raise KeyInvalid(f"{self._path} names no address")
        return to_checksum_address(named)

    def _decrypt(self, password: str) -> SecretKey | None:
        document = self._load()
        if document is None:
            return None
        from eth_keyfile.keyfile import decode_keyfile_json  # noqa: PLC0415 - slow to import

        damaged = KeyInvalid(f"{self._path} is damaged")
        fault: FabstirError
        try:
            secret = decode_keyfile_json(document, password.encode())
        except ValueError as error:
            wrong = "MAC mismatch" in str(error)
            fault = KeyringLocked("the password does not open the keystore file") if wrong else damaged
        except (KeyError, TypeError, AttributeError, NotImplementedError):
            fault = damaged
        else:
            key = SecretKey(secret)
            if key.address != self._read_address():
                raise KeyInvalid(f"{self._path} holds another key than the address it names")
            return key
        raise fault

    def _encrypt(self, key: SecretKey, password: str, replace: bool, abandoned: threading.Event) -> None:
        stored = None if replace else self._read_address()
        if stored is not None and stored != key.address:
            raise KeyExists(f"the key of {stored} is stored already; say so if it is to be replaced")
        from eth_keyfile.keyfile import create_keyfile_json  # noqa: PLC0415

        document = create_keyfile_json(key.reveal(), password.encode(), version=3, kdf="scrypt")
        if not abandoned.is_set():
            write_private(self._path, json.dumps(document).encode())

    def _delete(self) -> bool:
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise EnvironmentFault(f"{self._path} cannot be removed: {error.strerror}") from None
        return True


def write_private(path: Path, content: bytes) -> None:
    """Put a file in place, whole or not at all, readable by its owner alone. Raises EnvironmentFault."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            temporary.unlink()
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}") from None


def profile_name(data_dir: Path) -> str:
    """The keyring entry of a data directory: `default` for the usual one, else its full path."""
    usual = Path(platformdirs.user_data_dir("fabstir-desktop", appauthor=False))
    resolved = data_dir.expanduser().resolve()
    return "default" if resolved == usual.resolve() else str(resolved)


def keyring_advice() -> str:
    """What a person can do where no keyring answers."""
    if platform.system() == "Linux":
        return (
            "install and start GNOME Keyring, KWallet or KeePassXC, or keep the key in an encrypted file, "
            "or set HOST_PRIVATE_KEY in the environment"
        )
    return "log in to your desktop session, or set HOST_PRIVATE_KEY in the environment"
