"""A keyring played by the tests of the wallet, and keys that must never be seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from eth_keyfile import keyfile
from secrets_support import KEY_MARK

from fabstir_desktop.errors import KeyringUnavailable
from fabstir_desktop.wallet.keys import parse_private_key
from fabstir_desktop.wallet.keystore import KeyringStore
from fabstir_desktop.wallet.wallet import Wallet

CANARY = KEY_MARK + "0ddba11c0ffee5ca1ab1e0ddba11c0ffee5ca1ab1e0ddba1"
KEY = parse_private_key(CANARY)
OTHER = parse_private_key("22" * 32)


class PlayedKeyring:
    """A keyring in memory that can hang, lock, forget, lie or break, as told."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], str] = {}
        self.hang = threading.Event()
        self.hang.set()
        self.error: Exception | None = None
        self.change: Callable[[str], str | None] = lambda text: text
        self.threads: set[str] = set()
        self.calls = 0

    def _enter(self) -> None:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        self.hang.wait(20)
        if self.error is not None:
            raise self.error

    def get_password(self, service: str, username: str) -> str | None:
        self._enter()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._enter()
        changed = self.change(password)
        if changed is not None:
            self.held[service, username] = changed

    def delete_password(self, service: str, username: str) -> None:
        self._enter()
        del self.held[service, username]


def make_wallet(tmp_path: Path, played: PlayedKeyring | None, **more: object) -> Wallet:
    def find() -> list[PlayedKeyring]:
        if played is None:
            raise KeyringUnavailable("no keyring answers on this system")
        return [played]

    return Wallet(tmp_path, keyring=KeyringStore("default", timeout_s=5.0, find_backends=find), **more)  # type: ignore[arg-type]


def cheapen_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real encryption with less work in it."""
    real = keyfile.create_keyfile_json
    monkeypatch.setattr(keyfile, "create_keyfile_json", lambda *args, **kw: real(*args, **{**kw, "iterations": 2**10}))
