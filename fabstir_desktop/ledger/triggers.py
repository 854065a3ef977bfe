"""What must always be true, held by the database itself.

The steps come from `jobs.claims`, so there is one source. Triggers are no data: whenever a file is opened whose triggers
differ from these, they are replaced (see `migrate`).

The heart: a claim cannot be freed while it owns a nonce, and a nonce cannot be let go before it is provably spent. So two
transactions with the same claim can never both be valid, whatever the code above does.
"""

from __future__ import annotations

from collections.abc import Iterable

from fabstir_desktop.jobs.claims import (
    BATCH,
    CLAIM_STEPS,
    OPEN_STATES,
    PROVEN_STATES,
    SENT_STATES,
    SLOT_STEPS,
    ClaimState,
)
from fabstir_desktop.ledger.schema import PLACES, has_limb, limb_of, quoted

_RESERVED = quoted({ClaimState.PLANNED, ClaimState.HELD})
_SENT = quoted(SENT_STATES)
_PROVEN = quoted(PROVEN_STATES)
_OPEN = quoted(OPEN_STATES)
_UNBOUND = quoted({ClaimState.PLANNED, ClaimState.HELD, ClaimState.VOID, ClaimState.WRITTEN_OFF})
_MINED = quoted({ClaimState.INCLUDED, ClaimState.CONFIRMED, ClaimState.FINAL})


def _steps(steps: Iterable[tuple[str, str]]) -> str:
    return quoted(f"{before}>{after}" for before, after in steps)


def _refuse(name: str, when: str, condition: str, message: str) -> tuple[str, str]:
    clause = f" WHEN {condition}" if condition else ""
    return name, f"CREATE TRIGGER {name} {when}{clause} BEGIN SELECT RAISE(ABORT, '{message}'); END"


_TOKENS = "(NEW.range_end - NEW.range_start)"
_COUNTERS = {
    "claimed": f"{{0}}.state IN ({_SENT})",
    "proven": f"{{0}}.state IN ({_PROVEN})",
    "settled": f"({{0}}.state IN ({_PROVEN}) AND {{0}}.paid)",
    "written_off": f"{{0}}.state = '{ClaimState.WRITTEN_OFF}'",
    "reserved": f"{{0}}.state IN ({_RESERVED})",
}


def _count_claim(*, with_old: bool) -> str:
    """The counts of the job after a claim was inserted or changed."""
    parts = []
    for column, rule in _COUNTERS.items():
        change = f"({rule.format('NEW')})" + (f" - ({rule.format('OLD')})" if with_old else "")
        parts.append(f"{column} = {column} + {_TOKENS} * ({change})")
    change = f"(NEW.state IN ({_OPEN}))" + (f" - (OLD.state IN ({_OPEN}))" if with_old else "")
    parts.append(f"open_claims = open_claims + ({change})")
    parts.append("updated_at = unixepoch('subsec')")
    return f"UPDATE job SET {', '.join(parts)} WHERE id = NEW.job;"


_LIVE = "c.job = NEW.job AND c.state <> 'void'"
_ADVANCE = f"""UPDATE job SET next_start = (
  SELECT min(p) FROM (SELECT NEW.range_end AS p UNION ALL
                      SELECT c.range_end FROM claim c WHERE {_LIVE} AND c.range_start >= NEW.range_end)
  WHERE NOT EXISTS (SELECT 1 FROM claim c WHERE {_LIVE} AND c.range_start = p))
  WHERE id = NEW.job AND next_start = NEW.range_start;"""
_CHAIN_ALONE = """NEW.kind = 'foreign' AND EXISTS (SELECT 1 FROM token t WHERE t.job = NEW.job AND t.start = NEW.range_start)
  AND NOT EXISTS (SELECT 1 FROM token t WHERE t.job = NEW.job AND t.start >= NEW.range_start AND t.start < NEW.range_end
                  AND t.ticket IS NOT NULL)"""
_PAID_CLAIMS = """id IN (SELECT b.claim FROM attempt a JOIN binding b ON b.slot = a.slot
  JOIN claim c ON c.id = b.claim JOIN job j ON j.id = c.job
  WHERE a.tx_hash = {0}.tx_hash AND b.released IS NULL AND j.venue = {0}.venue AND j.job_id = {0}.job_id)"""

_REFUSALS = (
    # tokens
    _refuse(
        "generated_is_what_is_stored",
        "BEFORE UPDATE OF generated ON job",
        "NEW.generated < OLD.generated OR NEW.generated IS NOT "
        "(SELECT t.start + t.count FROM token t WHERE t.job = NEW.id ORDER BY t.start DESC LIMIT 1)",
        "a count of tokens never shrinks and is what is stored",
    ),
    _refuse("job_starts_empty", "BEFORE INSERT ON job", "NEW.generated <> 0", "a new job has no tokens"),
    _refuse("job_is_immutable", "BEFORE UPDATE OF id, venue, job_id ON job", "", "a job is immutable"),
    _refuse("job_stays", "BEFORE DELETE ON job", "", "a job is never deleted"),
    _refuse(
        "token_follows",
        "BEFORE INSERT ON token",
        "NEW.start IS NOT (SELECT generated FROM job WHERE id = NEW.job)",
        "tokens follow the last one counted",
    ),
    _refuse(
        "token_of_open_ticket",
        "BEFORE INSERT ON token",
        "NEW.ticket IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM ticket t WHERE t.id = NEW.ticket AND t.job = NEW.job AND t.closed_at IS NULL)",
        "the answer has ended",
    ),
    _refuse("token_is_immutable", "BEFORE UPDATE ON token", "", "a token is immutable"),
    _refuse("token_stays", "BEFORE DELETE ON token", "", "a token is never deleted"),
    _refuse("ticket_is_immutable", "BEFORE UPDATE OF id, job ON ticket", "", "a ticket is immutable"),
    # claims
    _refuse(
        "claim_begins",
        "BEFORE INSERT ON claim",
        "NEW.state <> CASE NEW.kind WHEN 'foreign' THEN 'final' ELSE 'planned' END",
        "a claim begins as planned",
    ),
    _refuse(
        "claim_is_contiguous",
        "BEFORE INSERT ON claim",
        f"NEW.range_start IS NOT (SELECT next_start FROM job WHERE id = NEW.job) AND NOT ({_CHAIN_ALONE})",
        "a claim starts at the first token that no claim covers",
    ),
    _refuse(
        "claim_is_covered",
        "BEFORE INSERT ON claim",
        "NEW.range_end > (SELECT generated FROM job WHERE id = NEW.job)",
        "a claim ends where the counted tokens end",
    ),
    _refuse(
        "claim_is_disjoint",
        "BEFORE INSERT ON claim",
        f"(SELECT c.range_end FROM claim c WHERE {_LIVE} AND c.range_start < NEW.range_end "
        "ORDER BY c.range_start DESC LIMIT 1) > NEW.range_start",
        "a token belongs to one claim",
    ),
    _refuse(
        "claim_is_alone",
        "BEFORE INSERT ON claim",
        f"NEW.kind = 'claim' AND EXISTS (SELECT 1 FROM claim c WHERE c.job = NEW.job AND c.state IN ({_OPEN}))",
        "one claim of the job is already on its way",
    ),
    _refuse(
        "claim_is_immutable",
        "BEFORE UPDATE OF id, job, sequence, kind, range_start, range_end, host, reason, record, proof_hash, proof, "
        "calldata, foreign_hash ON claim",
        "",
        "a claim is immutable",
    ),
    _refuse("claim_stays", "BEFORE DELETE ON claim", "", "a claim is never deleted"),
    _refuse(
        "claim_steps",
        "BEFORE UPDATE OF state ON claim",
        f"OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN ({_steps(CLAIM_STEPS)})",
        "not a step of a claim",
    ),
    _refuse(
        "claim_written_off_stays",
        "BEFORE UPDATE OF state ON claim",
        f"OLD.state = '{ClaimState.WRITTEN_OFF}' AND NEW.state <> OLD.state AND NOT EXISTS "
        "(SELECT 1 FROM binding b JOIN slot s ON s.id = b.slot WHERE b.claim = NEW.id AND b.released IS NOT NULL "
        "AND s.state = 'included' AND s.succeeded = 1 AND b.succeeded IS NOT 0)",
        "a claim that is written off stays so unless its transaction succeeds",
    ),
    _refuse(
        "claim_keeps_its_nonce",
        "BEFORE UPDATE OF state ON claim",
        f"NEW.state IN ({_UNBOUND}) AND EXISTS (SELECT 1 FROM binding b WHERE b.claim = NEW.id AND b.released IS NULL)",
        "the claim still owns a nonce",
    ),
    _refuse(
        "claim_bound_has_nonce",
        "BEFORE UPDATE OF state ON claim",
        f"NEW.state NOT IN ({_UNBOUND}) AND NEW.kind = 'claim' AND NOT EXISTS "
        "(SELECT 1 FROM binding b WHERE b.claim = NEW.id AND b.released IS NULL)",
        "the claim owns no nonce",
    ),
    _refuse(
        "claim_follows_its_slot",
        "BEFORE UPDATE OF state ON claim",
        f"OLD.state <> NEW.state AND NEW.state IN ({_MINED}) AND NOT EXISTS "
        "(SELECT 1 FROM binding b JOIN slot s ON s.id = b.slot "
        "WHERE b.claim = NEW.id AND b.released IS NULL AND s.state = NEW.state AND s.succeeded = 1 "
        # The transaction of a batch succeeds whatever becomes of its claims: each needs a word of its own.
        f"AND (b.succeeded = 1 OR (b.succeeded IS NULL AND s.kind <> '{BATCH}')))",
        "the transaction of the claim is not that far",
    ),
    _refuse(
        "claim_reopens_with_its_slot",
        "BEFORE UPDATE OF state ON claim",
        f"OLD.state <> NEW.state AND NEW.state = '{ClaimState.REOPENED}' AND NOT EXISTS "
        "(SELECT 1 FROM binding b JOIN slot s ON s.id = b.slot "
        "WHERE b.claim = NEW.id AND b.released IS NULL AND s.state = 'open')",
        "the transaction of the claim is still in a block",
    ),
    # slots
    _refuse("slot_begins", "BEFORE INSERT ON slot", "NEW.state <> 'open'", "a nonce begins as open"),
    _refuse(
        "slot_is_immutable", "BEFORE UPDATE OF id, chain_id, sender, nonce, kind ON slot", "", "a nonce is immutable"
    ),
    _refuse("slot_stays", "BEFORE DELETE ON slot", "", "a nonce is never deleted"),
    _refuse(
        "slot_steps",
        "BEFORE UPDATE OF state ON slot",
        f"OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN ({_steps(SLOT_STEPS)})",
        "not a step of a nonce",
    ),
    _refuse(
        "slot_mined_by_its_attempt",
        "BEFORE UPDATE OF mined_hash ON slot",
        "NEW.mined_hash IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM attempt a WHERE a.slot = NEW.id AND a.tx_hash = NEW.mined_hash)",
        "the mined transaction is none of ours",
    ),
    # bindings
    _refuse(
        "binding_begins",
        "BEFORE INSERT ON binding",
        "NEW.released IS NOT NULL OR NEW.succeeded IS NOT NULL "
        "OR (SELECT state FROM claim WHERE id = NEW.claim) IS NOT 'planned' "
        "OR (SELECT state FROM slot WHERE id = NEW.slot) IS NOT 'open'",
        "only a planned claim is bound, to an open nonce",
    ),
    _refuse(
        "binding_holds",
        "BEFORE UPDATE OF released ON binding",
        "NOT EXISTS (SELECT 1 FROM slot s WHERE s.id = OLD.slot AND (s.state IN ('burned', 'foreign') "
        "OR (s.state IN ('confirmed', 'final') AND (s.succeeded = 0 OR OLD.succeeded = 0))))",
        "the nonce is not proven spent",
    ),
    _refuse(
        "binding_judged_in_a_block",
        "BEFORE UPDATE OF succeeded ON binding",
        "NEW.succeeded IS NOT NULL AND NEW.succeeded IS NOT OLD.succeeded AND NOT (OLD.succeeded IS NULL AND EXISTS "
        "(SELECT 1 FROM slot s WHERE s.id = OLD.slot AND s.state = 'included' AND s.succeeded = 1))",
        "a claim is judged once, by the block of its transaction",
    ),
    _refuse(
        "binding_forgets_with_its_block",
        "BEFORE UPDATE OF succeeded ON binding",
        "NEW.succeeded IS NULL AND OLD.succeeded IS NOT NULL "
        "AND (SELECT state FROM slot WHERE id = OLD.slot) IS NOT 'open'",
        "the block that judged the claim still stands",
    ),
    _refuse(
        "binding_released_once",
        "BEFORE UPDATE OF released ON binding",
        "OLD.released IS NOT NULL",
        "the binding is released for ever",
    ),
    _refuse("binding_is_immutable", "BEFORE UPDATE OF claim, slot ON binding", "", "a binding is immutable"),
    _refuse("binding_stays", "BEFORE DELETE ON binding", "", "a binding is never deleted"),
    # attempts
    _refuse(
        "attempt_of_open_slot",
        "BEFORE INSERT ON attempt",
        "(SELECT state FROM slot WHERE id = NEW.slot) IS NOT 'open'",
        "the nonce is spent",
    ),
    _refuse(
        "attempt_is_immutable",
        "BEFORE UPDATE OF id, tx_hash, slot, number, raw, max_fee_per_gas_wei, max_priority_fee_per_gas_wei, gas_limit "
        "ON attempt",
        "",
        "an attempt is immutable",
    ),
    _refuse("attempt_stays", "BEFORE DELETE ON attempt", "", "an attempt is never deleted"),
    # payments
    _refuse("payment_is_immutable", "BEFORE UPDATE ON payment", "", "a payment is immutable"),
)


def _add_fee(row: str, sign: str) -> str:
    """Fees are paid in the chain's own coin, which needs no name."""
    return _add_to_total("fee", f"{row}.chain_id", "''", f"{row}.fee_wei", sign)


def _effect(name: str, when: str, statements: str) -> tuple[str, str]:
    return name, f"CREATE TRIGGER {name} {when} BEGIN {statements} END"


def _add_to_total(kind: str, scope: str, token: str, amount: str, sign: str) -> str:
    """Add the decimal text to the running total, or take it away; nothing for null."""
    return f"""INSERT INTO total (kind, scope, token, place, amount)
  SELECT '{kind}', {scope}, {token}, place, {"-" if sign == "-" else ""}{limb_of(amount)} FROM {PLACES} WHERE {has_limb(amount)}
  ON CONFLICT DO UPDATE SET amount = amount + excluded.amount;"""


def _add_payment(row: str, sign: str) -> str:
    return " ".join(
        _add_to_total(kind, f"{row}.venue", f"{row}.token", f"{row}.{kind}_amount", sign)
        for kind in ("host", "treasury")
    )


_EFFECTS = (
    _effect(
        "token_counted",
        "AFTER INSERT ON token",
        "UPDATE job SET generated = NEW.start + NEW.count, updated_at = unixepoch('subsec') WHERE id = NEW.job;",
    ),
    _effect("claim_counted", "AFTER INSERT ON claim", f"{_count_claim(with_old=False)} {_ADVANCE}"),
    _effect("claim_recounted", "AFTER UPDATE OF state, paid ON claim", _count_claim(with_old=True)),
    _effect(
        "claim_frees_its_range",
        f"AFTER UPDATE OF state ON claim WHEN NEW.state = '{ClaimState.VOID}' AND OLD.state <> NEW.state",
        "UPDATE job SET next_start = min(next_start, NEW.range_start) WHERE id = NEW.job;",
    ),
    _effect(
        "payment_settles",
        "AFTER INSERT ON payment",
        f"UPDATE claim SET paid = 1 WHERE paid = 0 AND {_PAID_CLAIMS.format('NEW')}; {_add_payment('NEW', '+')}",
    ),
    _effect(
        "payment_forgotten",
        "AFTER DELETE ON payment",
        f"UPDATE claim SET paid = 0 WHERE paid = 1 AND {_PAID_CLAIMS.format('OLD')}; {_add_payment('OLD', '-')}",
    ),
    _effect(
        "fee_added_up",
        "AFTER UPDATE OF fee_wei ON slot WHEN OLD.fee_wei IS NOT NEW.fee_wei",
        f"{_add_fee('OLD', '-')} {_add_fee('NEW', '+')}",
    ),
)

TRIGGERS: dict[str, str] = dict(_REFUSALS + _EFFECTS)
"""Name and SQL of every trigger of the newest version."""
