"""The door to the `keyring` library: which of its backends are used, and what its errors mean."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Protocol, TypeVar, cast

from fabstir_desktop.errors import FabstirError, KeyringLocked, KeyringUnavailable

T = TypeVar("T")

# Only these protect what they hold. Anything else (clear text, null, fail, a stranger's plug-in) is refused.
NATIVE = {
    "keyring.backends.SecretService.Keyring": "desktop keyring (Secret Service)",
    "keyring.backends.kwallet.DBusKeyring": "KWallet",
    "keyring.backends.kwallet.DBusKeyringKWallet4": "KWallet",
    "keyring.backends.libsecret.Keyring": "desktop keyring (libsecret)",
    "keyring.backends.macOS.Keyring": "macOS Keychain",
    "keyring.backends.Windows.WinVaultKeyring": "Windows Credential Manager",
}
_FREEDESKTOP = "keyring.backends.SecretService.Keyring"
_WINDOWS = "keyring.backends.Windows.WinVaultKeyring"
_LOCKED_ERRORS = frozenset({"KeyringLocked", "LockedException", "PromptDismissedException"})


class Backend(Protocol):
    """What is used of a backend of the library."""

    def get_password(self, service: str, username: str) -> str | None: ...  # noqa: D102
    def set_password(self, service: str, username: str, password: str) -> None: ...  # noqa: D102
    def delete_password(self, service: str, username: str) -> None: ...  # noqa: D102


def native_backends() -> Sequence[Backend]:
    """The keyrings that answer here, best first. Asks the desktop, so call it on the keyring's thread.

    Looks anew each time (the library remembers its first look for ever, also when nothing answered yet), and names the
    modules itself, because a frozen application has no entry points. Raises KeyringUnavailable.
    """
    chosen = _chosen_by_hand()
    if chosen is not None:
        return [chosen]
    viable = [backend for name in NATIVE if (backend := _viable(name)) is not None]
    if not viable:
        raise KeyringUnavailable("no keyring answers on this system")
    return sorted(viable, key=lambda one: -cast("Any", one).priority)


def place_name(backend: Backend) -> str:
    """What people call a backend."""
    return NATIVE.get(_class_name(backend), "keyring")


def would_ask(backend: Backend) -> bool:
    """Whether reading from a backend would, or might, show its password prompt.

    Only the Secret Service can be asked; Windows never shows one; of KWallet and the macOS Keychain it cannot be known.
    """
    if _class_name(backend) != _FREEDESKTOP:
        return _class_name(backend) != _WINDOWS

    def look() -> bool:
        import secretstorage  # noqa: PLC0415 - on Linux alone

        with closing(secretstorage.dbus_init()) as connection:
            return bool(secretstorage.Collection(connection).is_locked())

    return translate(look)


def remove_first(backend: Backend, service: str, username: str) -> None:
    """Delete before a replacement, where replacing would leave the old secret behind (Windows)."""
    if _class_name(backend) == _WINDOWS and translate(lambda: backend.get_password(service, username)) is not None:
        translate(lambda: backend.delete_password(service, username))


def translate(call: Callable[[], T]) -> T:
    """Call into the library; its errors become ours. The originals are dropped: their frames may hold the key."""
    fault: FabstirError
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - backends raise D-Bus, ctypes and library errors alike
        fault = _ours(error)
    raise fault


def _ours(error: Exception) -> FabstirError:
    name = type(error).__name__
    if isinstance(error, FabstirError):
        return error
    if name in _LOCKED_ERRORS or "dismissed" in str(error).lower():
        return KeyringLocked("the keyring is locked, or its prompt was dismissed; unlock it and try again")
    return KeyringUnavailable(f"the keyring does not answer ({name})")


def _class_name(backend: object) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def _viable(name: str) -> Backend | None:
    module, _, class_name = name.rpartition(".")
    try:
        backend_class = getattr(importlib.import_module(module), class_name)
        return cast("Backend", backend_class()) if backend_class.priority > 0 else None
    except Exception:  # noqa: BLE001 - an import or a D-Bus error both mean: not here
        return None


def _chosen_by_hand() -> Backend | None:
    """The backend named by PYTHON_KEYRING_BACKEND or keyringrc.cfg; it is honoured if it protects, else refused."""
    from keyring import core  # noqa: PLC0415 - with its own look-ups at import

    try:
        chosen = core.load_env() or core.load_config()
    except Exception:  # noqa: BLE001 - a wrong name raises anything
        raise KeyringUnavailable(
            "the keyring chosen by PYTHON_KEYRING_BACKEND or keyringrc.cfg cannot be used"
        ) from None
    if chosen is not None and _class_name(chosen) not in NATIVE:
        raise KeyringUnavailable(
            f"{_class_name(chosen)}, chosen by PYTHON_KEYRING_BACKEND or keyringrc.cfg, does not protect a key"
        )
    return cast("Backend | None", chosen)
