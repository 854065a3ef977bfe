"""The places of a key: the keyring, played by the test, and the encrypted file."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring.backend
import keyring.errors
import platformdirs
import pytest
from wallet_support import CANARY, KEY, OTHER, PlayedKeyring, cheapen_scrypt

from fabstir_desktop.errors import EnvironmentFault, KeyExists, KeyInvalid, KeyringLocked, KeyringUnavailable
from fabstir_desktop.wallet import backends
from fabstir_desktop.wallet.backends import native_backends
from fabstir_desktop.wallet.keystore import SERVICE, FileStore, KeyringStore, profile_name
from fabstir_desktop.wallet.thread import MAX_STUCK, OneThread


@pytest.fixture
def played() -> Iterator[PlayedKeyring]:
    played = PlayedKeyring()
    yield played
    played.hang.set()


@pytest.fixture
def store(played: PlayedKeyring) -> KeyringStore:
    return KeyringStore("default", timeout_s=5.0, find_backends=lambda: [played])


def impatient(played: PlayedKeyring) -> KeyringStore:
    return KeyringStore("default", timeout_s=0.05, find_backends=lambda: [played])


# --- keyring --------------------------------------------------------------------------------------------------------


async def test_a_key_is_kept_and_comes_back_and_is_forgotten(store: KeyringStore, played: PlayedKeyring) -> None:
    assert await store.get() is None
    await store.set(KEY)
    assert played.held == {(SERVICE, "default"): "0x" + CANARY}
    assert await store.get() == KEY
    assert await store.remove() is True
    assert await store.remove() is False
    assert played.held == {}


async def test_everything_happens_on_the_keyrings_own_thread(store: KeyringStore, played: PlayedKeyring) -> None:
    await store.set(KEY)
    await store.get()
    await store.remove()
    assert played.threads == {"wallet-keyring"}


async def test_another_key_is_replaced_only_when_asked(store: KeyringStore) -> None:
    await store.set(KEY)
    await store.set(KEY)  # the same one is no replacement
    with pytest.raises(KeyExists, match=KEY.address):
        await store.set(OTHER)
    assert await store.get() == KEY
    await store.set(OTHER, replace=True)
    assert await store.get() == OTHER


@pytest.mark.parametrize("change", [lambda text: None, lambda text: text[:-1], lambda text: OTHER.reveal_hex()])
async def test_a_keyring_that_does_not_keep_the_key_is_found_out(
    store: KeyringStore, played: PlayedKeyring, change: Callable[[str], str | None]
) -> None:
    played.change = change
    with pytest.raises((KeyringUnavailable, KeyInvalid), match=r"did not keep the key|not a private key") as caught:
        await store.set(KEY)
    assert CANARY[:12] not in str(caught.value)


async def test_rubbish_in_the_keyring_is_said_and_can_be_replaced(store: KeyringStore, played: PlayedKeyring) -> None:
    played.held[SERVICE, "default"] = CANARY + "ff"
    with pytest.raises(KeyInvalid, match="not a private key") as caught:
        await store.get()
    assert CANARY[:12] not in str(caught.value)
    with pytest.raises(KeyInvalid):
        await store.set(KEY)
    await store.set(KEY, replace=True)
    assert await store.get() == KEY


async def test_a_prompt_nobody_answers_ends_the_wait_and_the_next_try_works(played: PlayedKeyring) -> None:
    store = impatient(played)
    played.hang.clear()
    with pytest.raises(KeyringLocked, match="did not answer within"):
        await store.get()
    played.hang.set()
    assert await store.get() is None


async def test_a_key_is_not_stored_late_after_the_wait_was_given_up(played: PlayedKeyring) -> None:
    store = impatient(played)
    played.hang.clear()
    with pytest.raises(KeyringLocked):
        await store.set(KEY)
    (stuck,) = store._thread._stuck
    played.hang.set()
    await asyncio.to_thread(stuck.join, 5)
    assert not stuck.is_alive()
    assert played.held == {}


async def test_a_cancelled_wait_leaves_the_keyring_usable(store: KeyringStore, played: PlayedKeyring) -> None:
    played.hang.clear()
    waiting = asyncio.create_task(store.set(KEY))
    while not played.threads:
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    played.hang.set()
    assert await store.get() is None


async def test_prompts_that_stay_unanswered_do_not_pile_up_threads_for_ever(played: PlayedKeyring) -> None:
    store = impatient(played)
    played.hang.clear()
    for _ in range(MAX_STUCK):
        with pytest.raises(KeyringLocked):
            await store.get()
    with pytest.raises(KeyringLocked, match="unanswered"):
        await store.get()


class PromptDismissedException(Exception):
    """Named as the Secret Service library names its own."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PromptDismissedException("x"), KeyringLocked),
        (keyring.errors.KeyringLocked("Failed to unlock the collection!"), KeyringLocked),
        (keyring.errors.InitError("Failed to create the collection: Prompt dismissed.."), KeyringLocked),
        (keyring.errors.NoKeyringError("none"), KeyringUnavailable),
        (ConnectionResetError("D-Bus went away"), KeyringUnavailable),
        (keyring.errors.PasswordSetError(f"refused {CANARY}"), KeyringUnavailable),
        (RuntimeError(CANARY), KeyringUnavailable),
    ],
)
async def test_errors_of_the_library_become_ours_without_its_words(
    store: KeyringStore, played: PlayedKeyring, error: Exception, expected: type[Exception]
) -> None:
    played.error = error
    for attempt in (store.get(), store.set(KEY), store.remove()):
        with pytest.raises(expected) as caught:
            await attempt
        assert CANARY[:12] not in repr(caught.value)
        assert caught.value.__context__ is None or CANARY[:12] not in repr(caught.value.__context__)


class ClearTextKeyring(keyring.backend.KeyringBackend):
    """A plug-in that writes clear text somewhere."""

    priority = 99  # type: ignore[assignment]

    def get_password(self, service: str, username: str) -> str | None:
        raise AssertionError("must not be asked")

    set_password = delete_password = get_password  # type: ignore[assignment]


@pytest.mark.parametrize(
    "name",
    ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring", f"{__name__}.ClearTextKeyring", "no.such.Thing"],
)
async def test_a_keyring_that_does_not_protect_is_refused_even_if_the_environment_asks_for_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name)
    store = KeyringStore("default")
    for attempt in (store.get(), store.set(KEY), store.remove(), store.place()):
        with pytest.raises(KeyringUnavailable, match="PYTHON_KEYRING_BACKEND"):
            await attempt


def test_without_a_desktop_session_no_keyring_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND", raising=False)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    with pytest.raises(KeyringUnavailable, match="no keyring answers"):
        native_backends()


def test_on_windows_the_old_key_is_deleted_first_so_that_none_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    played = PlayedKeyring()
    played.held["s", "u"] = "old"
    monkeypatch.setattr(backends, "_WINDOWS", "wallet_support.PlayedKeyring")
    backends.remove_first(played, "s", "u")
    assert played.held == {}


def test_each_data_directory_has_its_own_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name, **_: str(tmp_path / name))
    assert profile_name(tmp_path / "fabstir-desktop") == ("default")
    assert profile_name(tmp_path / "a" / ".." / "b") == str((tmp_path / "b").resolve())


# --- file -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    cheapen_scrypt(monkeypatch)


async def test_the_file_is_encrypted_private_and_opens_with_its_password(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "deep" / "keystore.json")
    assert await store.get("secret") is None
    assert await store.address() is None
    await store.set(KEY, "secret")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600 or os.name == "nt"
    assert CANARY[:12] not in store.path.read_text()
    document = json.loads(store.path.read_text())
    assert (document["version"], document["crypto"]["kdf"]) == (3, "scrypt")
    assert document["crypto"]["kdfparams"]["n"] >= 2**18
    assert await store.address() == KEY.address
    assert await store.get("secret") == KEY
    with pytest.raises(KeyringLocked, match="password"):
        await store.get("Secret")
    assert [path.name for path in store.path.parent.iterdir()] == ["keystore.json"]


async def test_the_file_is_replaced_only_when_asked(tmp_path: Path, cheap_scrypt: None) -> None:
    store = FileStore(tmp_path / "keystore.json")
    await store.set(KEY, "a")
    with pytest.raises(KeyExists, match=KEY.address):
        await store.set(OTHER, "b")
    assert await store.get("a") == KEY
    await store.set(OTHER, "b", replace=True)
    assert await store.get("b") == OTHER
    assert await store.remove() is True
    assert await store.remove() is False
    with pytest.raises(KeyInvalid, match="password"):
        await store.set(KEY, "")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"version": 3}', '{"version": 3, "address": "00", "crypto": {}}', "[" * 10_000, "\x00" * 70_000],
)
async def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    store = FileStore(tmp_path / "keystore.json")
    store.path.write_text(content)
    for attempt in (store.get("x"), store.address(), store.set(KEY, "x")):
        with pytest.raises(KeyInvalid, match=r"keystore\.json"):
            await attempt
    assert store.path.read_text() == content


async def test_a_file_that_holds_another_key_than_it_names_is_refused(tmp_path: Path, cheap_scrypt: None) -> None:
    store = FileStore(tmp_path / "keystore.json")
    await store.set(KEY, "x")
    document = json.loads(store.path.read_text())
    store.path.write_text(json.dumps({**document, "address": OTHER.address[2:]}))
    with pytest.raises(KeyInvalid, match="another key"):
        await store.get("x")


async def test_a_place_that_cannot_be_written_is_an_environment_fault(tmp_path: Path, cheap_scrypt: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        await FileStore(tmp_path / "file" / "keystore.json").set(KEY, "x", replace=True)


# --- thread ---------------------------------------------------------------------------------------------------------


async def test_calls_that_wait_behind_a_stuck_one_go_on_elsewhere() -> None:
    thread, release = OneThread("test-thread"), threading.Event()
    stuck = asyncio.create_task(thread.run(lambda _: release.wait(20), timeout_s=0.1))
    behind = asyncio.create_task(thread.run(lambda _: "done", timeout_s=5))
    assert await behind == "done"
    with pytest.raises(TimeoutError):
        await stuck
    release.set()
    thread.close()


async def test_an_unexpected_error_names_its_place_and_nothing_else() -> None:
    thread = OneThread("test-thread")

    def fail(_: threading.Event) -> None:
        secret = CANARY
        raise RuntimeError(secret)

    with pytest.raises(Exception, match="RuntimeError in fail:") as caught:
        await thread.run(fail, timeout_s=5)
    frames, trace = [], caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "fail" not in frames
    assert CANARY not in repr(caught.value)
    thread.close()
