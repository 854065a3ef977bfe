"""The wallet over its places: which key is in force, and what it says when there is none."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from pathlib import Path

import keyring.errors
import pytest
from pydantic import SecretStr
from wallet_support import CANARY, KEY, OTHER, PlayedKeyring, cheapen_scrypt, make_wallet

from fabstir_desktop.errors import KeyExists, KeyInvalid, KeyMissing, KeyringLocked, KeyringUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import WalletChanged
from fabstir_desktop.jobs.status import KeySource, WalletState
from fabstir_desktop.wallet.keystore import SERVICE
from fabstir_desktop.wallet.wallet import ENVIRONMENT


@pytest.fixture
def played() -> Iterator[PlayedKeyring]:
    played = PlayedKeyring()
    yield played
    played.hang.set()


@pytest.fixture
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    cheapen_scrypt(monkeypatch)


async def test_without_any_key_the_wallet_says_what_to_do(tmp_path: Path, played: PlayedKeyring) -> None:
    status = await make_wallet(tmp_path, played).load()
    assert (status.state, status.address, status.source) == (WalletState.NONE, None, KeySource.NOWHERE)
    assert "fabstir-desktop key set" in status.action


async def test_without_a_keyring_the_wallet_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    wallet = make_wallet(tmp_path, None)
    status = await wallet.load()
    assert status.state is WalletState.UNAVAILABLE
    assert status.action
    with pytest.raises(KeyMissing, match="No keyring answers"):
        wallet.signer(84532, frozenset())
    with pytest.raises(KeyringUnavailable):
        await wallet.set_key(CANARY)


async def test_the_environment_is_stronger_than_the_keyring_and_nothing_is_moved_by_itself(
    tmp_path: Path, played: PlayedKeyring
) -> None:
    played.held[SERVICE, "default"] = OTHER.reveal_hex()
    wallet = make_wallet(tmp_path, played, environment_key=SecretStr(CANARY))
    status = await wallet.load()
    assert (status.state, status.address, status.location) == (WalletState.READY, KEY.address, ENVIRONMENT)
    assert played.held == {(SERVICE, "default"): OTHER.reveal_hex()}
    with pytest.raises(KeyExists):
        await wallet.keep_environment_key()
    assert (await wallet.keep_environment_key(replace=True)).source is KeySource.ENVIRONMENT
    assert played.held == {(SERVICE, "default"): KEY.reveal_hex()}
    assert (await make_wallet(tmp_path, played).load()).address == KEY.address


async def test_a_broken_key_in_the_environment_is_said_and_no_other_key_is_taken_instead(
    tmp_path: Path, played: PlayedKeyring
) -> None:
    played.held[SERVICE, "default"] = OTHER.reveal_hex()
    wallet = make_wallet(tmp_path, played, environment_key=SecretStr(CANARY[:-1]))
    status = await wallet.load()
    assert (status.state, status.address, status.location) == (WalletState.INVALID, None, ENVIRONMENT)
    assert "got 63" in status.detail
    assert CANARY[:12] not in repr(status)
    with pytest.raises(KeyMissing):
        wallet.signer(84532, frozenset())


async def test_a_key_set_while_running_is_in_force_at_once_and_told(tmp_path: Path, played: PlayedKeyring) -> None:
    feed, told = Feed(), []
    feed.subscribe(WalletChanged, told.append)
    wallet = make_wallet(tmp_path, played, feed=feed)
    await wallet.load()
    with pytest.raises(KeyMissing):
        wallet.signer(84532, frozenset())
    status = await wallet.set_key("0x" + CANARY)
    assert (status.state, status.address, status.source) == (WalletState.READY, KEY.address, KeySource.KEYRING)
    assert wallet.signer(84532, frozenset()).address == KEY.address
    assert len(told) == 2
    with pytest.raises(KeyExists):
        await wallet.set_key("22" * 32)
    assert wallet.status == status
    assert (await wallet.remove_key()).state is WalletState.NONE
    with pytest.raises(KeyMissing):
        wallet.signer(84532, frozenset())


async def test_a_locked_keyring_is_a_state_and_opens_at_the_next_try(tmp_path: Path, played: PlayedKeyring) -> None:
    played.held[SERVICE, "default"] = KEY.reveal_hex()
    played.error = keyring.errors.KeyringLocked("locked")
    wallet = make_wallet(tmp_path, played)
    status = await wallet.load()
    assert (status.state, status.address) == (WalletState.LOCKED, None)
    assert "Unlock" in status.action
    with pytest.raises(KeyringLocked):
        await wallet.remove_key()
    played.error = None
    assert (await wallet.load()).address == KEY.address


@pytest.mark.parametrize("error", [keyring.errors.KeyringLocked("x"), ConnectionResetError("x")])
async def test_a_key_in_force_stays_so_while_the_keyring_cannot_be_read(
    tmp_path: Path, played: PlayedKeyring, error: Exception
) -> None:
    wallet = make_wallet(tmp_path, played)
    status = await wallet.set_key(CANARY)
    played.error = error
    assert await wallet.load() == status
    assert wallet.signer(84532, frozenset()).address == KEY.address
    played.error = None
    played.held.clear()  # another process removed it: that is an answer
    assert (await wallet.load()).state is WalletState.NONE


async def test_on_a_bare_system_the_key_lives_in_the_encrypted_file(tmp_path: Path, cheap_scrypt: None) -> None:
    wallet = make_wallet(tmp_path, None)
    status = await wallet.set_key(CANARY, password="p")
    assert (status.state, status.source) == (WalletState.READY, KeySource.FILE)
    fresh = make_wallet(tmp_path, None)
    with pytest.raises(KeyMissing):
        fresh.signer(84532, frozenset())
    status = await fresh.load()
    assert (status.state, status.address, status.source) == (WalletState.LOCKED, KEY.address, KeySource.FILE)
    with pytest.raises(KeyringLocked):
        await fresh.unlock_file("q")
    assert (await fresh.unlock_file("p")).state is WalletState.READY
    assert (await fresh.load()).state is WalletState.READY
    assert (await fresh.remove_key()).state is WalletState.UNAVAILABLE
    with pytest.raises(KeyMissing):
        await fresh.unlock_file("p")


async def test_a_key_that_cannot_be_read_changes_nothing(tmp_path: Path, played: PlayedKeyring) -> None:
    wallet = make_wallet(tmp_path, played)
    await wallet.set_key(CANARY)
    with pytest.raises(KeyInvalid, match="got 62"):
        await wallet.set_key("2" * 62)
    assert wallet.status.address == KEY.address
    with pytest.raises(KeyMissing, match="environment"):
        await wallet.keep_environment_key()


async def test_the_key_is_in_no_log_or_repr_of_the_wallet(
    tmp_path: Path, played: PlayedKeyring, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wallet = make_wallet(tmp_path, played, environment_key=SecretStr(CANARY))
    status = await wallet.load()
    await wallet.keep_environment_key()
    shown = [repr(wallet), str(vars(wallet)), repr(status), caplog.text]
    assert not any(CANARY[:12] in text for text in shown)


async def test_with_a_key_in_memory_a_crash_leaves_no_core_file(tmp_path: Path, played: PlayedKeyring) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        wallet = make_wallet(tmp_path, played)
        await wallet.load()
        assert resource.getrlimit(resource.RLIMIT_CORE) == (before[1], before[1])
        await wallet.set_key(CANARY)
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


async def test_a_closed_wallet_has_forgotten_the_key(tmp_path: Path, played: PlayedKeyring) -> None:
    wallet = make_wallet(tmp_path, played)
    await wallet.set_key(CANARY)
    wallet.close()
    wallet.close()
    with pytest.raises(KeyMissing):
        wallet.signer(84532, frozenset())
