"""What a signed transaction carries must be what the ledger says of it, before its bytes are stored: only stored bytes are sent.

The ledger cannot read transactions; who opens it hands in how (`ReadSigned`).
"""

from __future__ import annotations

import apsw

from fabstir_desktop.errors import LedgerError
from fabstir_desktop.jobs.claims import ReadSigned, SignedContent
from fabstir_desktop.ledger.rows import fetch_row, fetch_rows, fetch_value


def check_carried(db: apsw.Connection, slot_id: int, raw: bytes, read: ReadSigned | None) -> None:
    """See that the bytes use the slot's chain and nonce and carry its claims, each once, and nothing else; a slot
    without claims keeps what its first attempt carried. Raises LedgerError.

    The slot, its bindings and the earlier attempts must be there. Without `read` nothing is checked.
    """
    if read is None:
        return
    chain_id, sender, nonce = fetch_row(db, "SELECT chain_id, sender, nonce FROM slot WHERE id = ?", (slot_id,))
    content = _read(read, sender, raw)
    if (content.chain_id, content.nonce) != (chain_id, nonce):
        raise LedgerError(
            f"bytes for nonce {nonce} of chain {chain_id} were signed for nonce {content.nonce} of chain {content.chain_id}; "
            "they are not stored and not sent"
        )
    wanted = _claims(db, slot_id) or _first(db, slot_id, sender, read)
    if wanted is not None and _lower(content.calls) != _lower(wanted):
        raise LedgerError(
            f"bytes signed for nonce {nonce} carry something else than its claims; they are not stored and not sent"
        )


def _read(read: ReadSigned, sender: str, raw: bytes) -> SignedContent:
    try:
        return read(sender, raw)
    except ValueError as error:
        raise LedgerError(f"signed bytes cannot be read, and are not stored: {error}") from error


def _claims(db: apsw.Connection, slot_id: int) -> tuple[tuple[str, bytes], ...]:
    rows = fetch_rows(
        db,
        "SELECT v.contract, c.calldata FROM binding b JOIN claim c ON c.id = b.claim JOIN job j ON j.id = c.job "
        "JOIN venue v ON v.id = j.venue WHERE b.slot = ? ORDER BY c.id",
        (slot_id,),
    )
    return tuple((contract, calldata) for contract, calldata in rows)


def _first(db: apsw.Connection, slot_id: int, sender: str, read: ReadSigned) -> tuple[tuple[str, bytes], ...] | None:
    raw = fetch_value(db, "SELECT raw FROM attempt WHERE slot = ? ORDER BY number LIMIT 1", (slot_id,))
    return None if raw is None else _read(read, sender, raw).calls


def _lower(calls: tuple[tuple[str, bytes], ...]) -> list[tuple[str, bytes]]:
    return sorted((to.lower(), data) for to, data in calls)
