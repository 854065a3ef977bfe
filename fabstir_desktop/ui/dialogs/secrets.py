"""What is asked about the key: a password for its file, twice where it is new, and the key itself with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from fabstir_desktop.jobs.views import TransactionView
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.dialogs.prompts import SecretForm

translate = QCoreApplication.translate

SHORTEST_PASSWORD = 8
_WAITING = frozenset({"signed", "sent", "included"})
_CLAIMS_LISTED = 8


def ask_password(parent: QWidget, accepted: Callable[[str], None]) -> SecretForm:
    """Ask for the password of the keystore file."""
    dialog = SecretForm(
        parent,
        translate("secrets", "Unlock the key"),
        translate("secrets", "The key is in an encrypted file. Its password is used once, and kept nowhere."),
        [translate("secrets", "Password")],
        lambda secrets: accepted(secrets[0]),
        action=translate("secrets", "Unlock"),
    )
    dialog.open()
    return dialog


def ask_new_password(parent: QWidget, title: str, text: str, accepted: Callable[[str], None]) -> SecretForm:
    """Ask for a new password, twice."""
    dialog = SecretForm(
        parent,
        title,
        text,
        [translate("secrets", "New password"), translate("secrets", "The same password again")],
        lambda secrets: accepted(secrets[0]),
        action=translate("secrets", "Encrypt and save"),
        objection=_password_objection,
    )
    dialog.open()
    return dialog


def ask_key_and_password(parent: QWidget, title: str, text: str, accepted: Callable[[str, str], None]) -> SecretForm:
    """Ask for a key and, twice, the password of the file that will hold it."""
    dialog = SecretForm(
        parent,
        title,
        text,
        [
            translate("secrets", "Private key: 0x and 64 hexadecimal digits"),
            translate("secrets", "New password"),
            translate("secrets", "The same password again"),
        ],
        lambda secrets: accepted(secrets[0].strip(), secrets[1]),
        action=translate("secrets", "Encrypt and save"),
        objection=lambda secrets: _password_objection(secrets[1:]),
    )
    dialog.open()
    return dialog


def waiting_claims_text(transactions: Iterable[TransactionView]) -> str:
    """The claims on their way that the present key has signed, as a list; empty if there are none."""
    lines = [
        translate("secrets", "job {job}: tokens {start} to {end}, {state}").format(
            job=fmt.short_job(claim.job_id), start=fmt.count(claim.start), end=fmt.count(claim.end), state=view.state
        )
        for view in transactions
        if view.state in _WAITING
        for claim in view.claims
    ]
    if not lines:
        return ""
    more = len(lines) - _CLAIMS_LISTED
    if more > 0:
        lines = [*lines[:_CLAIMS_LISTED], translate("secrets", "and {count} more").format(count=more)]
    title = translate("secrets", "Claims signed by this key that are still on their way:")
    return "\n".join([title, *(f"  •  {line}" for line in lines)])


def _password_objection(secrets: list[str]) -> str:
    first, second = secrets
    if len(first) < SHORTEST_PASSWORD:
        return translate("secrets", "At least {count} characters.").format(count=SHORTEST_PASSWORD)
    return "" if first == second else translate("secrets", "The two passwords differ.")
