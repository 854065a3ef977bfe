"""A new key: made only with a copy that can be read back; an address that is told before anything is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account
from wallet_support import PlayedKeyring, cheapen_scrypt
from wallet_support import make_wallet as make_with

from fabstir_desktop.errors import EnvironmentFault, KeyExists, KeyInvalid
from fabstir_desktop.jobs.status import KeySource, WalletState
from fabstir_desktop.wallet.creation import address_of, create_key
from fabstir_desktop.wallet.keystore import FileStore
from fabstir_desktop.wallet.wallet import KEYSTORE_FILE, Wallet

PASSWORD = "a password of the copy"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    cheapen_scrypt(monkeypatch)


def make_wallet(folder: Path) -> Wallet:
    return make_with(folder, PlayedKeyring())


async def test_a_made_key_is_in_force_and_its_copy_opens_with_the_password(tmp_path: Path) -> None:
    wallet = make_wallet(tmp_path)
    try:
        status = await create_key(wallet, tmp_path / "copy.json", PASSWORD, in_file=False)
    finally:
        wallet.close()
    assert (status.state, status.source) == (WalletState.READY, KeySource.KEYRING)
    stored = json.loads((tmp_path / "copy.json").read_text())
    assert Account.from_key(Account.decrypt(stored, PASSWORD)).address == status.address


async def test_two_made_keys_differ(tmp_path: Path) -> None:
    addresses = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        wallet = make_wallet(tmp_path / name)
        addresses.add((await create_key(wallet, tmp_path / name / "copy.json", PASSWORD, in_file=False)).address)
        wallet.close()
    assert len(addresses) == 2


async def test_without_a_keyring_the_made_key_goes_into_the_keystore_file(tmp_path: Path) -> None:
    wallet = make_wallet(tmp_path)
    try:
        status = await create_key(wallet, tmp_path / "copy.json", PASSWORD, in_file=True)
    finally:
        wallet.close()
    assert status.source is KeySource.FILE
    assert (tmp_path / KEYSTORE_FILE).exists()


async def test_a_copy_that_cannot_be_written_leaves_no_key_in_force(tmp_path: Path) -> None:
    wallet = make_wallet(tmp_path)
    try:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(EnvironmentFault):
            await create_key(wallet, tmp_path / "file" / "copy.json", PASSWORD, in_file=False)
        assert (await wallet.load()).state is WalletState.NONE
    finally:
        wallet.close()


async def test_the_copy_of_another_key_is_never_overwritten(tmp_path: Path) -> None:
    first, second = make_wallet(tmp_path), make_wallet(tmp_path)
    try:
        made = await create_key(first, tmp_path / "copy.json", PASSWORD, in_file=False)
        with pytest.raises(KeyExists):
            await create_key(second, tmp_path / "copy.json", PASSWORD, in_file=False)
    finally:
        first.close()
        second.close()
    copy = FileStore(tmp_path / "copy.json")
    assert await copy.address() == made.address
    copy.close()


async def test_an_address_is_told_without_storing_anything_and_a_wrong_text_is_not_repeated(tmp_path: Path) -> None:
    account = Account.create()
    assert await address_of(f" {account.key.hex()} ") == account.address
    with pytest.raises(KeyInvalid) as raised:
        await address_of(account.key.hex()[:-1])
    assert account.key.hex()[10:30] not in str(raised.value)
