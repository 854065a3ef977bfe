"""What must be true of a ledger and the chain in memory beside it: invariants I1 to I10 of the outbox, by SQL."""

from __future__ import annotations

import apsw
from ledger_rules import check_rows
from model_chain import CONTRACT, ModelChain, read_raw

from fabstir_desktop.jobs.claims import ClaimState

GIVEN_UP = ("burned", "foreign")


def check_ledger(db: apsw.Connection, chain: ModelChain) -> None:
    """What holds at any moment. I1, I4 and the counts stand in `check_rows`; I8 is the lock of the file."""
    check_rows(db, thorough=False)
    check_stored_before_sent(db, chain)
    check_payloads(db, chain)
    check_no_gap(db, chain)
    check_given_up(db, chain)
    check_paid_once(db, chain)


def check_stored_before_sent(db: apsw.Connection, chain: ModelChain) -> None:
    """I2: what reached a node is an attempt of the ledger."""
    for raw in dict.fromkeys(chain.seen):
        assert db.execute("SELECT count(*) FROM attempt WHERE raw = ?", (raw,)).get == 1, "sent, and not stored"


def check_payloads(db: apsw.Connection, chain: ModelChain) -> None:
    """I3: every attempt of a slot carries its nonce and its claim's calldata, or is a transfer of nothing to ourselves."""
    rows = (
        "SELECT a.raw, s.nonce, c.calldata FROM attempt a JOIN slot s ON s.id = a.slot "
        "LEFT JOIN binding b ON b.slot = s.id LEFT JOIN claim c ON c.id = b.claim"
    )
    for raw, nonce, calldata in db.execute(rows):
        sent = read_raw(raw, chain.host)
        wanted = (CONTRACT, calldata) if calldata is not None else (chain.host, b"")
        assert (sent.to, sent.data, sent.nonce) == (*wanted, nonce), "an attempt carries something else"


def check_no_gap(db: apsw.Connection, chain: ModelChain) -> None:
    """I5: nonces are taken one after the other; one that is left out was another program's."""
    nonces = [nonce for (nonce,) in db.execute("SELECT nonce FROM slot ORDER BY nonce")]
    if nonces:
        left_out = set(range(nonces[-1])) - set(nonces)
        assert left_out <= chain.foreign_nonces, f"nonces {left_out - chain.foreign_nonces} are used by nobody"


def check_given_up(db: apsw.Connection, chain: ModelChain) -> None:
    """I7: a nonce is given up only when the transaction that used it is none of ours, and stays."""
    ours = {raw for (raw,) in db.execute("SELECT raw FROM attempt")}
    for (nonce,) in db.execute("SELECT nonce FROM slot WHERE state IN (?, ?)", GIVEN_UP):
        spender = chain.spender(nonce)
        assert spender is not None, f"nonce {nonce} was given up and is not used"
        assert spender.transaction.raw not in ours, f"nonce {nonce} was given up, and ours was mined"


def check_paid_once(db: apsw.Connection, chain: ModelChain) -> None:
    """No token claimed twice: every claim that stands on chain is one of the ledger's, each once, and nothing overlaps."""
    taken: dict[int, int] = {}
    proofs = [proof for _job, _tokens, proof in chain.claims()]
    assert len(proofs) == len(set(proofs)), "a claim was executed twice"
    for job_id, count, proof in chain.claims():
        row = db.execute("SELECT max(range_end - range_start) FROM claim WHERE proof_hash = ?", (proof,)).get
        assert row == count, "a claim on chain that the ledger never made"
        taken[job_id] = taken.get(job_id, 0) + count
    for job_id, count in taken.items():
        assert count == chain.head.state.jobs[job_id].paid_tokens
        generated = db.execute("SELECT generated FROM job WHERE job_id = ?", (str(job_id),)).get
        assert count <= generated, f"job {job_id}: {count} tokens paid of {generated}"


def committed_wei(db: apsw.Connection) -> int:
    """I9's left side: the most that the open transactions can cost together."""
    rows = (
        "SELECT max(a.gas_limit * CAST(a.max_fee_per_gas_wei AS INTEGER)) FROM attempt a JOIN slot s ON s.id = a.slot "
    )
    return sum(cost for (cost,) in db.execute(rows + "WHERE s.state = 'open' GROUP BY s.id"))


def check_settled(db: apsw.Connection, chain: ModelChain, generated: dict[int, int]) -> None:
    """I10 and the oracle, when nothing is on its way any more: generated = paid on chain = what the ledger says."""
    for job_id, count in generated.items():
        columns = "generated, claimed, proven, settled, written_off, reserved, open_claims"
        row = db.execute(f"SELECT {columns} FROM job WHERE job_id = ?", (str(job_id),)).fetchone()
        paid = chain.head.state.jobs[job_id].paid_tokens
        if row is None and count == 0:
            continue  # its only prompt was refused
        assert row == (count, count, count, count, 0, 0, 0), f"job {job_id}: {row}, {count} generated, {paid} paid"
        assert paid == count, f"job {job_id}: {count} generated, {paid} paid"
    unsettled = [state for (state,) in db.execute("SELECT DISTINCT state FROM claim")]
    assert set(unsettled) <= {ClaimState.CONFIRMED, ClaimState.FINAL, ClaimState.VOID}, unsettled
