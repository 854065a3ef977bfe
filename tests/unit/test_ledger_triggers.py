"""The database itself refuses what must never be, whatever the code above it does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import apsw
import pytest
from ledger_support import HOST, attempt, bytes32, fact, memory_database, new_claim, payment

from fabstir_desktop.jobs.claims import CLAIM_STEPS, SLOT_STEPS, Attempt, ClaimState, SlotState
from fabstir_desktop.ledger import claims, slots, tokens
from fabstir_desktop.ledger.triggers import TRIGGERS


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    """Jobs with a claim in every kind of place: 1 final, 2 bound (open nonce), 3 planned, 4 reverted but not released."""
    connection = memory_database()
    for job_id in (1, 2, 3, 4):
        ticket = tokens.open_ticket(connection, 1, job_id, "s")
        tokens.count_tokens(connection, ticket, range(250))
        claims.plan_claim(connection, 1, new_claim(job_id, 0, 100))
    closed = tokens.open_ticket(connection, 1, 1, "s")
    tokens.close_ticket(connection, closed, "stop")
    for job_id in (1, 2, 4):
        bind(connection, job_id, job_id, attempt(job_id))
    slots.mark_included(connection, 1, fact(attempt(1), 5))
    slots.mark_final(connection, 1)
    slots.mark_included(connection, 3, fact(attempt(4), 5, succeeded=False))
    connection.execute(
        "INSERT INTO payment VALUES (?, 0, 1, '1', 5, 'ETH', '90', '10', 1.0)", (payment(1, attempt(1), 5).tx_hash,)
    )
    yield connection
    connection.close()


def bind(connection: apsw.Connection, claim_id: int, nonce: int, sent: Attempt) -> None:
    slots.bind(connection, 84532, [claim_id], sender=HOST, nonce=nonce, attempt=sent, kind="claim")


_CLAIM = (
    "INSERT INTO claim (job, sequence, kind, range_start, range_end, host, reason, record, proof_hash, proof, calldata, "
    "foreign_hash, state, created_at) VALUES ({job}, {sequence}, '{kind}', {start}, {end}, 'h', 'forced', x'00', "
    "{proof_hash}, x'00', {calldata}, {foreign}, '{state}', 0)"
)


def insert_claim(**changed: object) -> str:
    """A legal next claim of job 1 but for what is changed."""
    row: dict[str, object] = {"job": 1, "sequence": 2, "kind": "claim", "start": 100, "end": 250, "state": "planned"}
    row |= {"proof_hash": "randomblob(32)", "calldata": "x'00'", "foreign": "NULL"}
    return _CLAIM.format(**(row | changed))


VIOLATIONS = {
    # tokens
    "generated shrinks": "UPDATE job SET generated = 249 WHERE id = 1",
    "generated grows without tokens": "UPDATE job SET generated = 251 WHERE id = 1",
    "a job begins with tokens": "INSERT INTO job (venue, job_id, session_id, session_open, generated, created_at, updated_at) "
    "VALUES (1, '9', '', 0, 5, 0, 0)",
    "a job gets another id": "UPDATE job SET job_id = '77' WHERE id = 1",
    "a job is deleted": "DELETE FROM job WHERE id = 1",
    "a job id with a sign": "INSERT INTO job (venue, job_id, session_id, session_open, created_at, updated_at) "
    "VALUES (1, '-9', '', 0, 0, 0)",
    "the same job twice": "INSERT INTO job (venue, job_id, session_id, session_open, created_at, updated_at) "
    "VALUES (1, '1', '', 0, 0, 0)",
    "a count that does not follow from claims": "UPDATE job SET claimed = 251 WHERE id = 1",
    "tokens leave a gap": "INSERT INTO token VALUES (1, 251, 1, 1, x'00000000')",
    "tokens overlap": "INSERT INTO token VALUES (1, 249, 1, 1, x'00000000')",
    "tokens of a closed answer": "INSERT INTO token VALUES (1, 250, 1, 5, x'00000000')",
    "tokens of another job's answer": "INSERT INTO token VALUES (1, 250, 1, 2, x'00000000')",
    "tokens without ids": "INSERT INTO token VALUES (1, 250, 1, 1, x'')",
    "fewer ids than tokens": "INSERT INTO token VALUES (1, 250, 2, 1, x'00000000')",
    "no tokens at all": "INSERT INTO token VALUES (1, 250, 0, 1, x'')",
    "tokens change": "UPDATE token SET ids = x'' WHERE job = 1",
    "tokens are deleted": "DELETE FROM token WHERE job = 1",
    "an answer changes its job": "UPDATE ticket SET job = 2 WHERE id = 1",
    # ranges
    "a claim leaves a gap": insert_claim(start=101),
    "a claim overlaps": insert_claim(start=99),
    "a claim ends behind the counted tokens": insert_claim(end=251),
    "an empty claim": insert_claim(end=100),
    "a claim over a live claim behind a void one": "SPECIAL",
    "a claim begins as bound": insert_claim(state="bound"),
    "a claim begins as final": insert_claim(state="final"),
    "a foreign claim begins as planned": insert_claim(kind="foreign", foreign="x'01'"),
    "a foreign claim without its hash": insert_claim(kind="foreign", state="final"),
    "a claim without calldata": insert_claim(calldata="NULL"),
    "a second claim on its way": insert_claim(job=2),
    "a sequence twice": insert_claim(sequence=1),
    "a live proof twice": insert_claim(proof_hash="(SELECT proof_hash FROM claim WHERE id = 2)"),
    "a proof hash of 31 bytes": insert_claim(proof_hash="randomblob(31)"),
    "an unknown state": insert_claim(state="paid"),
    **{
        f"a claim changes its {column}": f"UPDATE claim SET {column} = {value} WHERE id = 1"
        for column, value in {
            "id": "99",
            "job": "2",
            "sequence": "9",
            "kind": "'foreign'",
            "range_start": "1",
            "range_end": "99",
            "host": "'x'",
            "reason": "'x'",
            "record": "x'01'",
            "proof_hash": "randomblob(32)",
            "proof": "x'01'",
            "calldata": "x'01'",
            "foreign_hash": "x'01'",
        }.items()
    },
    "a claim is deleted": "DELETE FROM claim WHERE id = 1",
    # claims and nonces
    "a claim is freed while its nonce is open": "UPDATE claim SET state = 'planned' WHERE id = 2",
    "a claim is void while it owns a nonce": "UPDATE claim SET state = 'void' WHERE id = 4",
    "a claim is written off while it owns a nonce": "UPDATE claim SET state = 'written_off' WHERE id = 2",
    "a claim is held while it owns a nonce": "UPDATE claim SET state = 'held' WHERE id = 2",
    "a claim is bound without a nonce": "UPDATE claim SET state = 'bound' WHERE id = 3",
    "a claim is included before its transaction": "UPDATE claim SET state = 'included' WHERE id = 2",
    "a claim is included by a revert": "UPDATE claim SET state = 'included' WHERE id = 4",
    "a claim is reopened while its transaction is in a block": "SPECIAL",
    "a nonce begins as burned": "INSERT INTO slot (chain_id, sender, nonce, kind, state, created_at) "
    "VALUES (1, 'a', 0, 'claim', 'burned', 0)",
    "a nonce is negative": "INSERT INTO slot (chain_id, sender, nonce, kind, state, created_at) "
    "VALUES (1, 'a', -1, 'claim', 'open', 0)",
    "a nonce twice": f"INSERT INTO slot (chain_id, sender, nonce, kind, state, created_at) VALUES (84532, '{HOST}', 2, 'c', "
    "'open', 0)",
    **{
        f"a nonce changes its {column}": f"UPDATE slot SET {column} = {value} WHERE id = 2"
        for column, value in {"id": "99", "chain_id": "1", "sender": "'x'", "nonce": "9", "kind": "'x'"}.items()
    },
    "a nonce is deleted": "DELETE FROM slot WHERE id = 2",
    "a mined nonce without its block": "UPDATE slot SET state = 'included' WHERE id = 2",
    "a nonce is mined by a strange transaction": "UPDATE slot SET state = 'included', mined_hash = randomblob(32), "
    "block_number = 1, block_hash = x'00', succeeded = 1 WHERE id = 2",
    "a nonce is let go while it is open": "UPDATE binding SET released = 'x' WHERE claim = 2",
    "a nonce is let go after success": "UPDATE binding SET released = 'x' WHERE claim = 1",
    "a nonce is let go before its revert is deep": "UPDATE binding SET released = 'x' WHERE claim = 4",
    "a bound claim gets a second nonce": "INSERT INTO binding (claim, slot) VALUES (2, 3)",
    "a claim is bound to a spent nonce": "INSERT INTO binding (claim, slot) VALUES (3, 1)",
    "a binding begins as released": "INSERT INTO binding (claim, slot, released) VALUES (3, 2, 'x')",
    "a binding changes its nonce": "UPDATE binding SET slot = 3 WHERE claim = 2",
    "a binding is deleted": "DELETE FROM binding WHERE claim = 2",
    "a released binding is taken back": "SPECIAL",
    "a binding begins as judged": "INSERT INTO binding (claim, slot, succeeded) VALUES (3, 2, 1)",
    "a claim is judged before its transaction is in a block": "UPDATE binding SET succeeded = 0 WHERE claim = 2",
    "a claim of a revert is judged": "UPDATE binding SET succeeded = 1 WHERE claim = 4",
    "a judgement that is none": "UPDATE binding SET succeeded = 2 WHERE claim = 2",
    "a judgement is forgotten while its block stands": "SPECIAL",
    "an attempt for a spent nonce": "INSERT INTO attempt (tx_hash, slot, number, raw, max_fee_per_gas_wei, "
    "max_priority_fee_per_gas_wei, gas_limit, created_at) VALUES (randomblob(32), 1, 2, x'00', '1', '1', 1, 0)",
    "an attempt without bytes": "INSERT INTO attempt (tx_hash, slot, number, raw, max_fee_per_gas_wei, "
    "max_priority_fee_per_gas_wei, gas_limit, created_at) VALUES (randomblob(32), 2, 2, x'', '1', '1', 1, 0)",
    "a transaction hash twice": "INSERT INTO attempt (tx_hash, slot, number, raw, max_fee_per_gas_wei, "
    "max_priority_fee_per_gas_wei, gas_limit, created_at) SELECT tx_hash, 2, 2, x'00', '1', '1', 1, 0 FROM attempt",
    **{
        f"an attempt changes its {column}": f"UPDATE attempt SET {column} = {value} WHERE id = 2"
        for column, value in {
            "id": "99",
            "tx_hash": "randomblob(32)",
            "slot": "1",
            "number": "9",
            "raw": "x'01'",
            "max_fee_per_gas_wei": "'2'",
            "max_priority_fee_per_gas_wei": "'2'",
            "gas_limit": "2",
        }.items()
    },
    "an attempt is deleted": "DELETE FROM attempt WHERE id = 2",
    "a payment changes": "UPDATE payment SET host_amount = '91'",
    "a payment with a sign": "INSERT INTO payment VALUES (randomblob(32), 0, 1, '1', 5, 'ETH', '-90', '10', 1.0)",
    "a replaced row hides a deletion": "INSERT OR REPLACE INTO attempt SELECT id, tx_hash, 2, number, x'ff', "
    "max_fee_per_gas_wei, max_priority_fee_per_gas_wei, gas_limit, created_at, sends, last_sent_at, last_error "
    "FROM attempt WHERE id = 2",
}


@pytest.mark.parametrize("what", [what for what, sql in VIOLATIONS.items() if sql != "SPECIAL"])
def test_it_is_refused_that(db: apsw.Connection, what: str) -> None:
    before = snapshot(db)
    with pytest.raises(apsw.ConstraintError):
        db.execute(VIOLATIONS[what])
    assert snapshot(db) == before


def test_it_is_refused_that_a_claim_covers_a_live_claim_behind_a_void_one(db: apsw.Connection) -> None:
    fill_gap_before_live_claim(db)
    with pytest.raises(apsw.ConstraintError, match="a token belongs to one claim"):
        db.execute(insert_claim(job=4, sequence=3, start=0, end=101))
    db.execute(insert_claim(job=4, sequence=3, start=0, end=100))


def test_it_is_refused_that_a_claim_is_reopened_while_its_transaction_is_in_a_block(db: apsw.Connection) -> None:
    slots.mark_included(db, 2, fact(attempt(2), 6))
    with pytest.raises(apsw.ConstraintError, match="still in a block"):
        db.execute("UPDATE claim SET state = 'reopened' WHERE id = 2")


def test_it_is_refused_that_a_released_binding_is_taken_back(db: apsw.Connection) -> None:
    slots.void_reverted(db, 3, "reverted", ClaimState.VOID)
    for value in ("NULL", "'another reason'"):
        with pytest.raises(apsw.ConstraintError, match="for ever"):
            db.execute(f"UPDATE binding SET released = {value} WHERE claim = 4")


def batch(db: apsw.Connection, **outcomes: bool) -> None:
    """Jobs 5 and 6 in one batch (claims 5 and 6, slot 4), mined with these outcomes."""
    for job_id in (5, 6):
        ticket = tokens.open_ticket(db, 1, job_id, "s")
        tokens.count_tokens(db, ticket, range(100))
        claims.plan_claim(db, 1, new_claim(job_id, 0, 100))
    slots.bind(db, 84532, [5, 6], sender=HOST, nonce=50, attempt=attempt("batch"), kind="batch")
    if outcomes:
        judged = {5: outcomes["first"], 6: outcomes["second"]}
        slots.mark_included(db, 4, fact(attempt("batch"), 9), judged)


def test_it_is_refused_that_a_judgement_is_forgotten_or_changed_while_its_block_stands(db: apsw.Connection) -> None:
    batch(db, first=True, second=False)
    with pytest.raises(apsw.ConstraintError, match="still stands"):
        db.execute("UPDATE binding SET succeeded = NULL WHERE claim = 5")
    with pytest.raises(apsw.ConstraintError, match="judged once"):
        db.execute("UPDATE binding SET succeeded = 1 WHERE claim = 6")


def test_it_is_refused_that_a_claim_of_a_batch_follows_a_success_that_is_not_its_own(db: apsw.Connection) -> None:
    batch(db, first=True, second=False)
    with pytest.raises(apsw.ConstraintError, match="not that far"):
        db.execute("UPDATE claim SET state = 'included' WHERE id = 6")
    db.execute("SAVEPOINT probe")
    slots.mark_reorged(db, 4)
    db.execute(
        "UPDATE slot SET state = 'included', mined_hash = (SELECT tx_hash FROM attempt WHERE slot = 4), block_number = 9, "
        "block_hash = x'00', succeeded = 1 WHERE id = 4"
    )
    with pytest.raises(apsw.ConstraintError, match="not that far"):
        db.execute("UPDATE claim SET state = 'included' WHERE id = 5")  # nobody has judged it
    db.execute("ROLLBACK TO probe; RELEASE probe")


def test_it_is_refused_that_a_claim_of_a_batch_is_let_go_unless_it_failed_deep_enough(db: apsw.Connection) -> None:
    batch(db, first=True, second=False)
    for claim_id in (5, 6):  # included only
        with pytest.raises(apsw.ConstraintError, match="not proven spent"):
            db.execute("UPDATE binding SET released = 'x' WHERE claim = ?", (claim_id,))
    slots.mark_confirmed(db, 4)
    with pytest.raises(apsw.ConstraintError, match="not proven spent"):
        db.execute("UPDATE binding SET released = 'x' WHERE claim = 5")
    db.execute("UPDATE binding SET released = 'x' WHERE claim = 6")


def fill_gap_before_live_claim(db: apsw.Connection) -> None:
    """Job 4: its first claim void, a later one live."""
    db.execute("UPDATE slot SET state = 'confirmed' WHERE id = 3")
    db.execute(insert_claim(job=4, kind="foreign", foreign="x'01'", state="final"))
    slots.void_reverted(db, 3, "reverted", ClaimState.VOID)


def test_every_refusing_trigger_is_provoked_by_a_test(db: apsw.Connection) -> None:
    """A trigger taken out one by one must let at least one of the violations pass, or be backed by a second fence."""
    messages = {
        name: found[1] for name, sql in TRIGGERS.items() if (found := re.search(r"RAISE\(ABORT, '(.*)'\)", sql))
    }
    seen: set[str] = {
        "the transaction of the claim is still in a block",
        "a token belongs to one claim",
        "the binding is released for ever",
        "the block that judged the claim still stands",
        "a claim that is written off stays so unless its transaction succeeds",  # in test_ledger_claims
    }
    for sql in VIOLATIONS.values():
        db.execute("SAVEPOINT probe")
        try:
            db.execute(sql)
        except apsw.ConstraintError as error:
            seen |= {message for message in messages.values() if message in str(error)}
        except apsw.SQLError:
            assert sql == "SPECIAL"
        db.execute("ROLLBACK TO probe")
        db.execute("RELEASE probe")
    step_messages = {"not a step of a claim", "not a step of a nonce"}
    assert set(messages.values()) - seen == step_messages, "the steps have a test of their own"


def states_reached(db: apsw.Connection, table: str, fence: list[str], states: list[str]) -> set[tuple[str, str]]:
    """Which steps the table's own trigger lets pass when every other fence is down."""
    for name in fence:
        db.execute(f"DROP TRIGGER {name}")
    passed = set()
    for before in states:
        for after in states:
            db.execute("SAVEPOINT probe")
            db.execute(f"DROP TRIGGER {table}_steps")
            db.execute(f"UPDATE {table} SET state = '{before}' WHERE id = 1")
            db.execute(TRIGGERS[f"{table}_steps"])
            try:
                db.execute(f"UPDATE {table} SET state = '{after}' WHERE id = 1")
                passed.add((before, after))
            except apsw.ConstraintError as error:
                assert "not a step" in str(error)  # noqa: PT017 - which fence it was
            db.execute("ROLLBACK TO probe")
            db.execute("RELEASE probe")
    return passed


def test_a_claim_takes_the_steps_of_the_table_and_no_others() -> None:
    connection = memory_database()
    ticket = tokens.open_ticket(connection, 1, 1, "s")
    tokens.count_tokens(connection, ticket, range(100))
    claims.plan_claim(connection, 1, new_claim(1, 0, 100))
    fence = ["claim_reopens_with_its_slot", "claim_keeps_its_nonce", "claim_bound_has_nonce", "claim_follows_its_slot"]
    fence.append("claim_written_off_stays")
    passed = states_reached(connection, "claim", fence, [state.value for state in ClaimState])
    assert passed == {*CLAIM_STEPS} | {(state, state) for state in ClaimState}


def test_a_nonce_takes_the_steps_of_the_table_and_no_others() -> None:
    connection = memory_database()
    slots.bind(connection, 1, [], sender="a", nonce=0, attempt=attempt(0), kind="cancel")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    passed = states_reached(connection, "slot", [], [state.value for state in SlotState])
    assert passed == {*SLOT_STEPS} | {(state, state) for state in SlotState}


def test_the_legal_way_passes_every_fence(db: apsw.Connection) -> None:
    """include, reorganise, include again, confirm; release a deep revert; claim the gap again."""
    slots.mark_included(db, 2, fact(attempt(2), 6))
    slots.mark_reorged(db, 2)
    slots.mark_included(db, 2, fact(attempt(2), 7))
    slots.mark_final(db, 2)
    slots.void_reverted(db, 3, "reverted", ClaimState.VOID)
    claims.plan_claim(db, 1, new_claim(4, 0, 250))
    bind(db, 5, 9, attempt("later"))
    states = [state for (state,) in db.execute("SELECT state FROM claim ORDER BY id")]
    assert states == ["final", "final", "planned", "void", "bound"]


def snapshot(db: apsw.Connection) -> list[object]:
    tables = ("job", "token", "ticket", "claim", "slot", "binding", "attempt", "payment")
    return [db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


def test_a_payment_settles_the_claim_of_its_transaction_only(db: apsw.Connection) -> None:
    paid = "SELECT id, paid FROM claim ORDER BY id"
    assert dict(db.execute(paid).fetchall()) == {1: 1, 2: 0, 3: 0, 4: 0}
    db.execute("DELETE FROM payment")
    assert dict(db.execute(paid).fetchall()) == {1: 0, 2: 0, 3: 0, 4: 0}
    strange = (bytes32("strange"),)
    db.execute("INSERT INTO payment VALUES (?, 0, 1, '1', 5, 'ETH', '90', '10', 1.0)", strange)
    assert dict(db.execute(paid).fetchall()) == {1: 0, 2: 0, 3: 0, 4: 0}
