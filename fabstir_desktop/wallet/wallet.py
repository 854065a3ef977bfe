"""The wallet: where the key of this profile comes from, and signers made of it.

The key is looked for in the environment, then the keyring, then the keystore file. It is never replaced or moved without
being asked, and a stored key of another address than the profile's is not used until a person has accepted it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace as changed
from pathlib import Path

from pydantic import SecretStr

from fabstir_desktop.errors import EnvironmentFault, FabstirError, KeyInvalid, KeyMissing, KeyringLocked
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import WalletChanged
from fabstir_desktop.jobs.status import KeySource, WalletState, WalletStatus
from fabstir_desktop.wallet.keys import SecretKey, forbid_core_dumps, read_private_key
from fabstir_desktop.wallet.keystore import FileStore, KeyringStore, keyring_advice, profile_name
from fabstir_desktop.wallet.pin import PIN_FILE, Pin, PinStore
from fabstir_desktop.wallet.signer import Signer
from fabstir_desktop.wallet.thread import OneThread

KEYSTORE_FILE = "keystore.json"
ENVIRONMENT = "environment variable HOST_PRIVATE_KEY"
_ADDRESS_TIMEOUT_S = 20.0
_FILE_PLACE = "keystore file"


class Wallet:
    """The key of one profile. Create it without waiting; `load` looks for the key."""

    def __init__(
        self,
        data_dir: Path,
        *,
        environment_key: SecretStr | None = None,
        keyring: KeyringStore | None = None,
        feed: Feed | None = None,
        environment_place: str = ENVIRONMENT,
    ) -> None:
        """`environment_place` says in words where the `environment_key` is from."""
        self._environment_key = environment_key
        self._environment_place = environment_place
        self._keyring = keyring or KeyringStore(profile_name(data_dir))
        self._file = FileStore(data_dir / KEYSTORE_FILE)
        self._pins = PinStore(data_dir / PIN_FILE)
        self._feed = feed
        self._thread = OneThread("wallet-sign")
        self._lock = asyncio.Lock()
        self._key: SecretKey | None = None
        self._status = WalletStatus(WalletState.LOADING, detail="The key is being looked for.")

    @property
    def status(self) -> WalletStatus:
        """What `load`, `set_key` or `remove_key` found last."""
        return self._status

    async def load(self, *, ask: bool = True) -> WalletStatus:
        """Look for the key. Says what it found; does not raise.

        A locked keyring asks the person to unlock it; with `ask` false (for looks from time to time, where a prompt each
        time would be a nuisance) nothing is read that might ask. A key already in force stays so while its place cannot be
        read.
        """
        async with self._lock:
            if not ask and self._environment_key is None and await self._keyring.might_ask():
                return await self._fall_back(KeyringLocked("the keyring is locked"))
            return await self._reload()

    def give_up_waiting(self) -> None:
        """Wait no more for a keyring that has not answered: it counts as locked until it is asked again."""
        self._keyring.give_up()

    async def accept_found(self) -> WalletStatus:
        """Work with the other key that was found from now on. Raises KeyMissing if none was found, EnvironmentFault."""
        async with self._lock:
            found = self._status.found
            if found is None:
                raise KeyMissing("no other key was found")
            await self._pins.write(Pin(found, self._status.location))
            return await self._reload()

    async def set_key(self, text: str, *, replace: bool = False, password: str | None = None) -> WalletStatus:
        """Store a key: in the keyring, or with a `password` in the keystore file. It is in force at once.

        Raises KeyInvalid, KeyExists (another is stored and `replace` is not given), KeyringUnavailable, KeyringLocked.
        """
        result = read_private_key(text)
        del text
        if isinstance(result, KeyInvalid):
            raise result
        async with self._lock:
            return await self._store(result, replace, password)

    async def keep_environment_key(self, *, replace: bool = False, password: str | None = None) -> WalletStatus:
        """Copy the key of the environment into the keyring (or the file). Raises KeyMissing, else like `set_key`."""
        if self._environment_key is None:
            raise KeyMissing("HOST_PRIVATE_KEY is not set in the environment")
        return await self.set_key(self._environment_key.get_secret_value(), replace=replace, password=password)

    async def unlock_file(self, password: str) -> WalletStatus:
        """Open the keystore file. Raises KeyMissing, KeyringLocked (wrong password), KeyInvalid (damaged file)."""
        async with self._lock:
            key = await self._file.get(password)
            if key is None:
                raise KeyMissing(f"there is no keystore file at {self._file.path}")
            return await self._use(key, KeySource.FILE, f"keystore file {self._file.path}")

    async def remove_key(self) -> WalletStatus:
        """Forget the key in keyring and file; one of the environment stays in force. Raises KeyringLocked."""
        async with self._lock:
            await self._file.remove()
            try:
                await self._keyring.remove()
            except KeyringLocked:
                raise
            except EnvironmentFault:
                pass  # no keyring, so nothing in it
            self._key = None
            await self._pins.write(None)
            return await self._reload()

    async def back_up(self, path: Path, password: str) -> None:
        """Write the key in force, encrypted, to a file of the person's choice; another key's file is not replaced.

        Raises KeyMissing, KeyExists, KeyInvalid (empty password, or the file is something else), EnvironmentFault.
        """
        async with self._lock:
            if self._key is None:
                raise KeyMissing(self._status.detail)
            copy = FileStore(path)
            try:
                await copy.set(self._key, password)
            finally:
                copy.close()

    def signer(
        self,
        chain_id: int,
        contracts: frozenset[str],
        *,
        delegates: frozenset[str] = frozenset(),
        errands: Mapping[str, bytes] | None = None,
    ) -> Signer:
        """A signer for one chain and its contracts; see `Signer` for the rest. Raises KeyMissing."""
        if self._key is None:
            raise KeyMissing(self._status.detail)
        return Signer(
            self._key,
            chain_id=chain_id,
            contracts=contracts,
            delegates=delegates,
            errands=errands,
            thread=self._thread,
        )

    def close(self) -> None:
        """Forget the key and end the threads. Safe to call twice."""
        self._key = None
        for owned in (self._thread, self._keyring, self._file):
            owned.close()

    async def _reload(self) -> WalletStatus:
        if self._environment_key is not None:
            return await self._read_environment(self._environment_key)
        try:
            key = await self._keyring.get()
            if key is not None:
                return await self._use(key, KeySource.KEYRING, await self._keyring.place())
            fault = None
        except FabstirError as error:
            fault = error
        return await self._fall_back(fault)

    async def _read_environment(self, secret: SecretStr) -> WalletStatus:
        result = read_private_key(secret.get_secret_value())
        if isinstance(result, KeyInvalid):
            action = "correct HOST_PRIVATE_KEY, or unset it to use the keyring"
            return self._change(
                None,
                WalletStatus(
                    WalletState.INVALID, None, KeySource.ENVIRONMENT, self._environment_place, str(result), action
                ),
            )
        return await self._use(result, KeySource.ENVIRONMENT, self._environment_place)

    async def _fall_back(self, fault: FabstirError | None) -> WalletStatus:
        """Without a key from the keyring: one in force stays, or a file may wait for its password."""
        if self._key is not None and isinstance(fault, EnvironmentFault):
            return self._status
        try:
            address = await self._file.address()
        except FabstirError as error:
            return self._change(
                None, self._in_file(WalletState.INVALID, None, str(error), "restore or remove the file")
            )
        if address is not None and self._key is not None and self._key.address == address:
            return self._status
        if address is not None and not isinstance(fault, KeyringLocked):
            return self._change(
                None, self._in_file(WalletState.LOCKED, address, "the keystore file is locked", "enter its password")
            )
        return self._change(None, _from_fault(fault) if fault is not None else await self._nothing_found())

    async def _nothing_found(self) -> WalletStatus:
        """The keyring answers and holds no key. If there was one, say which and where."""
        pin = await self._pins.read()
        if pin is None:
            return _none()
        try:
            place = await self._keyring.place()
        except EnvironmentFault:
            return _none(pin.address, f"no key of {pin.address} is found")
        if place == pin.place or pin.place.startswith(_FILE_PLACE):
            return _none(pin.address, f"no key of {pin.address} is found; it was kept in {pin.place}")
        detail = f"your key was saved in {pin.place}; this session uses {place}"
        action = "log in to the session you used before, or import the key again"
        return WalletStatus(WalletState.OTHER_PLACE, pin.address, KeySource.KEYRING, place, detail, action)

    async def _store(self, key: SecretKey, replace: bool, password: str | None) -> WalletStatus:
        if password is None:
            await self._keyring.set(key, replace=replace)
            source, location = KeySource.KEYRING, await self._keyring.place()
        else:
            await self._file.set(key, password, replace=replace)
            source, location = KeySource.FILE, f"{_FILE_PLACE} {self._file.path}"
        await self._pins.write(Pin(key.address, location))
        if self._environment_key is not None:
            return await self._reload()  # the environment is stronger
        return await self._use(key, source, location)

    async def _use(self, key: SecretKey, source: KeySource, location: str) -> WalletStatus:
        address = await self._thread.run(lambda _: key.address, timeout_s=_ADDRESS_TIMEOUT_S)
        if source is not KeySource.ENVIRONMENT:  # what the environment says is chosen anew at each start
            pin = await self._pins.read()
            if pin is not None and pin.address != address:
                return self._change(None, _other_key(pin, address, source, location))
            if pin != Pin(address, location):
                await self._pins.write(Pin(address, location))
        return self._change(key, WalletStatus(WalletState.READY, address, source, location, f"key of {address}", ""))

    def _in_file(self, state: WalletState, address: str | None, detail: str, action: str) -> WalletStatus:
        return WalletStatus(state, address, KeySource.FILE, f"keystore file {self._file.path}", detail, action)

    def _change(self, key: SecretKey | None, status: WalletStatus) -> WalletStatus:
        if key is not None:
            forbid_core_dumps()
        status = changed(status, detail=_sentence(status.detail), action=_sentence(status.action))
        self._key, self._status = key, status
        if self._feed is not None:
            self._feed.publish(WalletChanged())
        return status


def _none(
    address: str | None = None, detail: str = "no key is stored; tokens are counted but not claimed"
) -> WalletStatus:
    action = "add HOST_PRIVATE_KEY: fabstir-desktop key set"
    return WalletStatus(WalletState.NONE, address, KeySource.NOWHERE, "", detail, action)


def _other_key(pin: Pin, found: str, source: KeySource, location: str) -> WalletStatus:
    detail = f"expected the key of {pin.address}, the {location} holds that of {found}; signing is stopped"
    action = "accept this key if the change was yours, or store the expected one again"
    return WalletStatus(WalletState.OTHER_KEY, pin.address, source, location, detail, action, found)


def _from_fault(fault: FabstirError) -> WalletStatus:
    if isinstance(fault, KeyringLocked):
        state, action = WalletState.LOCKED, "unlock the keyring and try again"
    elif isinstance(fault, KeyInvalid):
        state, action = WalletState.INVALID, "set the key again: fabstir-desktop key set"
    else:
        state, action = WalletState.UNAVAILABLE, keyring_advice()
    return WalletStatus(state, None, KeySource.KEYRING, "keyring", str(fault), action)


def _sentence(text: str) -> str:
    return text and text[0].upper() + text[1:].rstrip(".") + "."
