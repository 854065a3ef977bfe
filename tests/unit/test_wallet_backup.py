"""An encrypted copy of the key, in a file of the person's choice."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from wallet_support import CANARY, KEY, OTHER, PlayedKeyring, cheapen_scrypt, make_wallet

from fabstir_desktop.errors import EnvironmentFault, KeyExists, KeyInvalid, KeyMissing
from fabstir_desktop.wallet.keystore import FileStore


@pytest.fixture(autouse=True)
def _cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    cheapen_scrypt(monkeypatch)


async def test_the_copy_opens_with_its_password_and_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    wallet = make_wallet(tmp_path, PlayedKeyring())
    await wallet.set_key(CANARY)
    target = tmp_path / "elsewhere" / "copy.json"
    await wallet.back_up(target, "a password")
    copy = FileStore(target)
    assert await copy.get("a password") == KEY
    assert CANARY not in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    copy.close()
    wallet.close()


async def test_the_file_of_another_key_or_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    wallet = make_wallet(tmp_path, PlayedKeyring())
    await wallet.set_key(CANARY)
    other = FileStore(tmp_path / "other.json")
    await other.set(OTHER, "theirs")
    with pytest.raises(KeyExists):
        await wallet.back_up(tmp_path / "other.json", "mine")
    assert await other.get("theirs") == OTHER
    (tmp_path / "letter.txt").write_text("dear host")
    with pytest.raises(KeyInvalid):
        await wallet.back_up(tmp_path / "letter.txt", "mine")
    assert (tmp_path / "letter.txt").read_text() == "dear host"
    other.close()
    wallet.close()


async def test_a_copy_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    wallet = make_wallet(tmp_path, PlayedKeyring())
    with pytest.raises(KeyMissing):
        await wallet.back_up(tmp_path / "copy.json", "a password")
    await wallet.set_key(CANARY)
    with pytest.raises(KeyInvalid, match="password"):
        await wallet.back_up(tmp_path / "copy.json", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault):
        await wallet.back_up(tmp_path / "file" / "copy.json", "a password")
    wallet.close()
