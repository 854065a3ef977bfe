"""The key of a profile is pinned by its address: another one in its place is said, and nothing is signed with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from wallet_support import CANARY, KEY, OTHER, PlayedKeyring, cheapen_scrypt, make_wallet

from fabstir_desktop.errors import KeyMissing
from fabstir_desktop.jobs.status import KeySource, WalletState
from fabstir_desktop.wallet import backends
from fabstir_desktop.wallet.keystore import SERVICE, KeyringStore
from fabstir_desktop.wallet.pin import PIN_FILE
from fabstir_desktop.wallet.wallet import Wallet

ENTRY = (SERVICE, "default")


@pytest.fixture
def played() -> Iterator[PlayedKeyring]:
    made = PlayedKeyring()
    yield made
    made.hang.set()


async def test_another_key_in_the_keyring_is_said_and_signs_nothing(tmp_path: Path, played: PlayedKeyring) -> None:
    await make_wallet(tmp_path, played).set_key(CANARY)
    played.held[ENTRY] = OTHER.reveal_hex()
    wallet = make_wallet(tmp_path, played)
    status = await wallet.load()
    assert (status.state, status.address, status.found) == (WalletState.OTHER_KEY, KEY.address, OTHER.address)
    assert KEY.address in status.detail
    assert OTHER.address in status.detail
    with pytest.raises(KeyMissing):
        wallet.signer(84532, frozenset())
    assert played.held[ENTRY] == OTHER.reveal_hex()


async def test_a_key_that_is_swapped_while_running_stops_signing(tmp_path: Path, played: PlayedKeyring) -> None:
    wallet = make_wallet(tmp_path, played)
    await wallet.set_key(CANARY)
    played.held[ENTRY] = OTHER.reveal_hex()
    assert (await wallet.load()).state is WalletState.OTHER_KEY
    with pytest.raises(KeyMissing):
        wallet.signer(84532, frozenset())
    played.held[ENTRY] = KEY.reveal_hex()
    assert (await wallet.load()).state is WalletState.READY


async def test_the_found_key_works_once_a_person_accepts_it(tmp_path: Path, played: PlayedKeyring) -> None:
    await make_wallet(tmp_path, played).set_key(CANARY)
    played.held[ENTRY] = OTHER.reveal_hex()
    wallet = make_wallet(tmp_path, played)
    with pytest.raises(KeyMissing):
        await wallet.accept_found()
    await wallet.load()
    assert (await wallet.accept_found()).address == OTHER.address
    assert (await make_wallet(tmp_path, played).load()).address == OTHER.address


async def test_what_a_person_stores_or_removes_moves_the_pin(tmp_path: Path, played: PlayedKeyring) -> None:
    wallet = make_wallet(tmp_path, played)
    await wallet.set_key(CANARY)
    await wallet.set_key(OTHER.reveal_hex(), replace=True)
    assert (await make_wallet(tmp_path, played).load()).address == OTHER.address
    await wallet.remove_key()
    assert not (tmp_path / PIN_FILE).exists()
    played.held[ENTRY] = CANARY
    assert (await make_wallet(tmp_path, played).load()).address == KEY.address


async def test_the_first_key_found_is_pinned_and_the_pin_holds_no_secret(tmp_path: Path, played: PlayedKeyring) -> None:
    played.held[ENTRY] = CANARY
    assert (await make_wallet(tmp_path, played).load()).state is WalletState.READY
    text = (tmp_path / PIN_FILE).read_text()
    assert KEY.address in text
    assert CANARY.removeprefix("0x") not in text


async def test_a_key_of_the_environment_is_chosen_by_its_owner_at_each_start(
    tmp_path: Path, played: PlayedKeyring
) -> None:
    await make_wallet(tmp_path, played).set_key(OTHER.reveal_hex())
    status = await make_wallet(tmp_path, played, environment_key=SecretStr(CANARY)).load()
    assert (status.state, status.source) == (WalletState.READY, KeySource.ENVIRONMENT)
    assert OTHER.address in (tmp_path / PIN_FILE).read_text()


async def test_a_key_that_is_gone_is_named(tmp_path: Path, played: PlayedKeyring) -> None:
    await make_wallet(tmp_path, played).set_key(CANARY)
    played.held.clear()
    status = await make_wallet(tmp_path, played).load()
    assert (status.state, status.address) == (WalletState.NONE, KEY.address)
    assert KEY.address in status.detail


async def test_another_keyring_than_the_one_it_was_saved_in_is_said(
    tmp_path: Path, played: PlayedKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabstir_desktop.wallet.keystore.place_name", lambda _: "KWallet")
    await make_wallet(tmp_path, played).set_key(CANARY)
    monkeypatch.setattr("fabstir_desktop.wallet.keystore.place_name", lambda _: "GNOME Keyring")
    played.held.clear()
    status = await make_wallet(tmp_path, played).load()
    assert status.state is WalletState.OTHER_PLACE
    assert "saved in KWallet; this session uses GNOME Keyring" in status.detail


async def test_the_same_key_in_another_keyring_is_the_same_key(
    tmp_path: Path, played: PlayedKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_wallet(tmp_path, played).set_key(CANARY)
    monkeypatch.setattr("fabstir_desktop.wallet.keystore.place_name", lambda _: "GNOME Keyring")
    status = await make_wallet(tmp_path, played).load()
    assert (status.state, status.location) == (WalletState.READY, "GNOME Keyring")
    assert "GNOME Keyring" in (tmp_path / PIN_FILE).read_text()


async def test_another_file_in_the_place_of_the_keystore_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheapen_scrypt(monkeypatch)
    elsewhere = tmp_path / "elsewhere"
    await make_wallet(tmp_path, None).set_key(CANARY, password="one")
    await make_wallet(elsewhere, None).set_key(OTHER.reveal_hex(), password="two")
    (elsewhere / "keystore.json").replace(tmp_path / "keystore.json")
    wallet = make_wallet(tmp_path, None)
    await wallet.load()
    assert (await wallet.unlock_file("two")).state is WalletState.OTHER_KEY
    await wallet.accept_found()
    assert (await wallet.unlock_file("two")).address == OTHER.address


async def test_a_damaged_pin_is_no_key(tmp_path: Path, played: PlayedKeyring) -> None:
    (tmp_path / PIN_FILE).write_text("{")
    played.held[ENTRY] = CANARY
    assert (await make_wallet(tmp_path, played).load()).state is WalletState.READY


# --- prompts ----------------------------------------------------------------------------------------------------------


async def test_quiet_looks_read_nothing_where_reading_might_ask(tmp_path: Path, played: PlayedKeyring) -> None:
    store = KeyringStore("default", find_backends=lambda: [played], would_ask=lambda _: True)
    wallet = Wallet(tmp_path, keyring=store)
    for _ in range(3):
        assert (await wallet.load(ask=False)).state is WalletState.LOCKED
    assert played.calls == 0


async def test_quiet_looks_find_the_key_where_nothing_would_ask(tmp_path: Path, played: PlayedKeyring) -> None:
    played.held[ENTRY] = CANARY
    store = KeyringStore("default", find_backends=lambda: [played], would_ask=lambda _: False)
    assert (await Wallet(tmp_path, keyring=store).load(ask=False)).state is WalletState.READY


@pytest.mark.parametrize(
    ("name", "might"),
    [
        ("keyring.backends.kwallet.DBusKeyring", True),
        ("keyring.backends.macOS.Keyring", True),
        ("keyring.backends.libsecret.Keyring", True),
        ("keyring.backends.Windows.WinVaultKeyring", False),
    ],
)
def test_only_windows_is_known_never_to_ask(monkeypatch: pytest.MonkeyPatch, name: str, might: bool) -> None:
    monkeypatch.setattr(backends, "_class_name", lambda _: name)
    assert backends.would_ask(PlayedKeyring()) is might


async def test_a_keyring_that_does_not_answer_can_be_given_up(tmp_path: Path, played: PlayedKeyring) -> None:
    played.hang.clear()
    wallet = make_wallet(tmp_path, played)
    looking = asyncio.get_running_loop().create_task(wallet.load())
    while not played.calls:
        await asyncio.sleep(0.01)
    wallet.give_up_waiting()
    status = await asyncio.wait_for(looking, 4)
    assert status.state is WalletState.LOCKED
    assert "not waited for" in status.detail
    played.hang.set()
    played.held[ENTRY] = CANARY
    assert (await wallet.load()).state is WalletState.READY
