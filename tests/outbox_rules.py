"""What must be true of a ledger's outbox, computed anew from its rows and its signed bytes.

`check_outbox_file` holds at any moment. `check_settled_file` holds once all is settled. `check_against_chain` asks the chain
itself. They come on top of what `ledger_rules` checks of tokens, ranges and totals.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw
from chain_support import World
from ledger_rules import check_rows
from raw_transactions import RawTransaction, read_raw

Rows = list[tuple[Any, ...]]


def check_outbox_file(path: Path) -> dict[int, int]:
    """Check tokens, ranges and every transaction; returns what each job has generated."""
    connection = apsw.Connection(str(path))
    try:
        generated = check_rows(connection)
        check_bindings(connection)
        check_payloads(connection)
        check_no_gap(connection)
        return generated
    finally:
        connection.close()


def check_bindings(connection: apsw.Connection) -> None:
    """A claim lets go of its nonce only when that is provably spent by another, or carried the claim and failed."""
    too_early = connection.execute(
        "SELECT b.claim, s.nonce, s.state FROM binding b JOIN slot s ON s.id = b.slot WHERE b.released IS NOT NULL "
        "AND s.state NOT IN ('burned', 'foreign') AND s.succeeded IS NOT 0 AND b.succeeded IS NOT 0"
    ).fetchall()
    assert too_early == [], f"claims left nonces that may still be theirs: {too_early}"


def check_payloads(connection: apsw.Connection) -> None:
    """All attempts of a nonce carry the same call, which is the claim's own; the hash is that of the bytes."""
    rows: Rows = connection.execute(
        "SELECT s.id, s.nonce, s.sender, s.kind, a.tx_hash, a.raw FROM slot s JOIN attempt a ON a.slot = s.id "
        "ORDER BY s.id, a.number"
    ).fetchall()
    for slot_id in {row[0] for row in rows}:
        attempts = [row for row in rows if row[0] == slot_id]
        _, nonce, sender, kind, _, _ = attempts[0]
        read = [read_raw(row[5]) for row in attempts]
        assert [one.tx_hash for one in read] == [row[4] for row in attempts], (
            f"nonce {nonce} has another hash than its bytes"
        )
        assert {(one.nonce, one.sender) for one in read} == {(nonce, str(sender).lower())}
        assert len({one.payload for one in read}) == 1, f"attempts of nonce {nonce} carry different calls"
        _check_call(connection, slot_id, kind, read[0])


def _check_call(connection: apsw.Connection, slot_id: int, kind: str, sent: RawTransaction) -> None:
    calls: Rows = connection.execute(
        "SELECT c.calldata FROM binding b JOIN claim c ON c.id = b.claim WHERE b.slot = ?", (slot_id,)
    ).fetchall()
    if kind == "claim":
        assert [sent.data] == [bytes(data) for (data,) in calls], (
            f"nonce {sent.nonce} carries another call than its claim"
        )
        assert sent.value_wei == 0
    elif kind == "cancel":
        assert (sent.payload, calls) == ((sent.sender, 0, b""), []), f"nonce {sent.nonce} was to be spent on nothing"


def check_no_gap(connection: apsw.Connection) -> None:
    """The nonces on their way follow each other: one that is missing between them would hold up all that come later."""
    rows = connection.execute("SELECT sender, nonce, state FROM slot ORDER BY sender, nonce").fetchall()
    for sender in {row[0] for row in rows}:
        nonces = [nonce for one, nonce, state in rows if one == sender and state == "open"]
        known = {nonce for one, nonce, _ in rows if one == sender}
        missing = set(range(nonces[0], nonces[-1])) - known if nonces else set()
        assert not missing, f"open nonces {nonces} have a gap"


def check_settled_file(path: Path) -> dict[int, int]:
    """All of the above, and nothing is on its way: each token is in one claim that is proven. Returns the tokens of each job."""
    generated = check_outbox_file(path)
    connection = apsw.Connection(str(path))
    try:
        open_rows = connection.execute("SELECT nonce FROM slot WHERE state = 'open'").fetchall()
        assert open_rows == [], f"nonces {open_rows} are still open"
        reverted = connection.execute("SELECT nonce FROM slot WHERE succeeded = 0").fetchall()
        assert reverted == [], f"the contract alone refused a second copy, at nonces {reverted}"
        proven = connection.execute(
            "SELECT j.job_id, sum(c.range_end - c.range_start) FROM claim c JOIN job j ON j.id = c.job "
            "WHERE c.state IN ('confirmed', 'final') GROUP BY j.job_id"
        ).fetchall()
    finally:
        connection.close()
    assert {int(job): tokens for job, tokens in proven} == {job: tokens for job, tokens in generated.items() if tokens}
    return generated


async def check_against_chain(world: World, path: Path, raw_seen: Iterable[str]) -> None:
    """Only stored bytes left the process, no nonce was given up whose transaction is mined, and the chain has what is
    thought to be mined."""
    connection = apsw.Connection(str(path))
    try:
        rows: Rows = connection.execute(
            "SELECT s.nonce, s.state, s.mined_hash, a.tx_hash, a.raw FROM slot s JOIN attempt a ON a.slot = s.id"
        ).fetchall()
    finally:
        connection.close()
    stored = {"0x" + bytes(row[4]).hex() for row in rows}
    assert set(raw_seen) <= stored, "bytes left that are not stored"
    for nonce, state, mined_hash, tx_hash, _ in rows:
        receipt = await world.client.request("eth_getTransactionReceipt", "0x" + bytes(tx_hash).hex())
        thought_mined = mined_hash is not None and bytes(mined_hash) == bytes(tx_hash)
        assert (receipt is not None) == thought_mined, (
            f"nonce {nonce} is {state}, its transaction's receipt is {receipt}"
        )
