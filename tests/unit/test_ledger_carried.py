"""Signed bytes are stored only where they carry what the ledger says of them: nothing else can be sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import VENUE, memory_database, new_claim
from secrets_support import canary_key

from fabstir_desktop.errors import LedgerError
from fabstir_desktop.jobs.claims import BATCH, Attempt, ClaimState
from fabstir_desktop.ledger import claims, slots, tokens
from fabstir_desktop.settlement.signing import read_signed
from fabstir_desktop.wallet.batch_calls import BatchCall, encode_batch

KEY = canary_key()
SENDER = Account.from_key(KEY).address
OTHER = "0x" + "22" * 20


def signed(to: str, data: bytes, *, nonce: int = 3, chain_id: int = VENUE.chain_id, fee: int = 10**9) -> Attempt:
    fields = {
        "type": 2, "chainId": chain_id, "nonce": nonce, "to": to, "data": data, "value": 0, "gas": 90_000,
        "maxFeePerGas": fee, "maxPriorityFeePerGas": 10**6,
    }  # fmt: skip
    made = Account.sign_transaction(fields, KEY)
    return Attempt(bytes(made.hash), bytes(made.raw_transaction), fee, 10**6, 90_000)


def batch(parts: list[tuple[str, bytes]]) -> bytes:
    return encode_batch([BatchCall(to, 60_000, data) for to, data in parts])


WRONGS = ("nonce", "chain", "to", "data", "less", "more", "twice", "garbage")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.sampled_from(["", *WRONGS]), st.booleans())
def test_bytes_that_carry_something_else_are_neither_bound_nor_added(count: int, wrong: str, as_bump: bool) -> None:
    db = memory_database()
    db.execute("UPDATE venue SET contract = ?", (VENUE.contract,))
    ids, parts = [], []
    for job_id in range(1, count + 1):
        tokens.count_tokens(db, tokens.open_ticket(db, 1, job_id, "s"), range(100))
        new = replace(new_claim(job_id, 0, 100), calldata=b"claim" + bytes([job_id]) * 40)
        ids.append(claims.plan_claim(db, 1, new).claim_id)
        parts.append((VENUE.contract, new.calldata))

    def made(parts: list[tuple[str, bytes]], **more: int) -> Attempt:
        is_batch = count > 1
        return signed(SENDER, batch(parts), **more) if is_batch else signed(*parts[0], **more)

    good = made(parts)
    bad = {
        "": lambda: made(parts, fee=2 * 10**9),
        "nonce": lambda: made(parts, nonce=4),
        "chain": lambda: made(parts, chain_id=1),
        "to": lambda: made([(OTHER, parts[0][1]), *parts[1:]]),
        "data": lambda: made([(parts[0][0], parts[0][1] + b"x"), *parts[1:]]),
        "less": lambda: signed(SENDER, batch(parts[1:])),
        "more": lambda: signed(SENDER, batch([*parts, (OTHER, b"beside")])),
        "twice": lambda: signed(SENDER, batch([*parts, parts[0]])),
        "garbage": lambda: replace(good, tx_hash=bytes(32), raw=b"\x02\xc0garbage"),
    }[wrong]()
    kind = BATCH if count > 1 else "claim"

    def bind(attempt: Attempt) -> int:
        return slots.bind(
            db, VENUE.chain_id, ids, sender=SENDER, nonce=3, attempt=attempt, kind=kind, reads=read_signed
        ).slot_id

    slot_id = bind(good) if as_bump else 0
    before = db.execute("SELECT count(*) FROM attempt").get
    db.execute("SAVEPOINT one")
    if wrong == "":
        slots.add_attempt(db, slot_id, bad, read_signed) if as_bump else bind(bad)
        assert db.execute("SELECT count(*) FROM attempt").get == before + 1
        return
    with pytest.raises(LedgerError, match=r"not sent|not stored"):
        slots.add_attempt(db, slot_id, bad, read_signed) if as_bump else bind(bad)
    db.execute("ROLLBACK TO one")  # as the writer does with a write that is refused
    assert db.execute("SELECT count(*) FROM attempt").get == before
    states = {claims.read_claim(db, one).state for one in ids}
    assert states == {ClaimState.BOUND if as_bump else ClaimState.PLANNED}
    db.close()


def test_a_transaction_without_claims_keeps_what_it_carries() -> None:
    db = memory_database()
    first, again = signed(VENUE.contract, b"end of job 1"), signed(VENUE.contract, b"end of job 1", fee=2 * 10**9)
    slot = slots.bind(db, VENUE.chain_id, [], sender=SENDER, nonce=3, attempt=first, kind="complete", reads=read_signed)
    assert len(slots.add_attempt(db, slot.slot_id, again, read_signed).attempts) == 2
    for other in (signed(VENUE.contract, b"end of job 2"), signed(OTHER, b"end of job 1")):
        with pytest.raises(LedgerError, match="not sent"):
            slots.add_attempt(db, slot.slot_id, other, read_signed)
    db.close()
