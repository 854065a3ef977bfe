"""Batches in the ledger: one nonce, many claims, each with an outcome of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_rules import check_rows
from ledger_support import HOST, attempt, count, fact, memory_database, new_claim, opened, plan

from fabstir_desktop.errors import LedgerRefused
from fabstir_desktop.jobs.claims import Attempt, ClaimState, Slot, SlotState
from fabstir_desktop.ledger import claims, slots, tokens
from fabstir_desktop.ledger.ledger import Ledger

OUTCOMES = (ClaimState.VOID, ClaimState.HELD, ClaimState.WRITTEN_OFF)
TYPE_4 = b"\x04"


async def batched(ledger: Ledger, jobs: int, nonce: int = 0) -> Slot:
    """A batch with the first 100 tokens of each job, signed and stored."""
    ids = []
    for job_id in range(1, jobs + 1):
        await count(ledger, job_id, 150)
        ids.append((await plan(ledger, job_id, 0, 100)).claim_id)
    return await ledger.bind(ids, sender=HOST, nonce=nonce, attempt=attempt("batch"), kind="batch")


async def states(ledger: Ledger) -> list[ClaimState]:
    return [claim.state for claim in await ledger.claims()]


@given(
    st.lists(st.booleans(), min_size=1, max_size=10),
    st.lists(st.booleans(), min_size=10, max_size=10),
    st.sampled_from(OUTCOMES),
)
def test_each_claim_of_a_batch_has_its_own_end_whatever_the_pattern_and_a_reorganisation_between(
    first: list[bool], again: list[bool], outcome: ClaimState
) -> None:
    """Mined with one pattern, its failures let go, reorganised, mined with another: no token twice, none lost."""
    db = memory_database()
    ids = []
    for job_id in range(1, len(first) + 1):
        tokens.count_tokens(db, tokens.open_ticket(db, 1, job_id, "s"), range(100))
        ids.append(claims.plan_claim(db, 1, new_claim(job_id, 0, 100)).claim_id)
    slot = slots.bind(db, 84532, ids, sender=HOST, nonce=3, attempt=attempt("batch"), kind="batch")
    slots.mark_included(db, slot.slot_id, fact(attempt("batch"), 5), dict(zip(ids, first, strict=True)))
    slots.mark_confirmed(db, slot.slot_id)
    assert [claims.read_claim(db, one).state is ClaimState.CONFIRMED for one in ids] == first
    for one in ids:  # those that succeeded are not in the way of it
        slots.release_failed(db, slot.slot_id, one, "refused", outcome)
    found = [claims.read_claim(db, one).state for one in ids]
    assert found == [ClaimState.CONFIRMED if good else outcome for good in first]
    assert not slots.read_slots_with_failures(db, 84532, HOST)
    check_rows(db)

    second = again[: len(first)]
    slots.mark_reorged(db, slot.slot_id)
    slots.mark_included(db, slot.slot_id, fact(attempt("batch"), 6, fork=1), dict(zip(ids, second, strict=True)))
    slots.mark_final(db, slot.slot_id)
    check_rows(db)
    for job_id, (good, good_again) in enumerate(zip(first, second, strict=True), start=1):
        account = claims.read_account(db, 1, job_id)
        assert account is not None
        is_paid_on_chain = good_again
        if outcome is ClaimState.WRITTEN_OFF and not good:
            assert (account.claimed, account.written_off) == ((100, 0) if good_again else (0, 100))
        assert account.claimed >= (100 if is_paid_on_chain else 0)
        assert account.claimable == 0 if is_paid_on_chain else True, "what the chain has paid is never claimed again"
    db.close()


async def test_a_batch_needs_a_word_about_each_of_its_claims(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        slot = await batched(ledger, 3)
        for outcomes in (None, {}, dict.fromkeys(slot.claim_ids[:2], True), dict.fromkeys((*slot.claim_ids, 99), True)):
            with pytest.raises(LedgerRefused, match="outcome of each claim"):
                await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5), outcomes)
        assert (await ledger.slots(HOST))[0].state is SlotState.OPEN


async def test_one_failing_claim_of_three_is_let_go_and_claimed_again_while_the_others_are_proven(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        slot = await batched(ledger, 3)
        first, failing, last = slot.claim_ids
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5), {first: True, failing: False, last: True})
        assert await states(ledger) == [ClaimState.INCLUDED, ClaimState.BOUND, ClaimState.INCLUDED]
        await ledger.mark_confirmed(slot.slot_id)
        (found,) = await ledger.slots_with_failures(HOST)
        assert (found.failed_ids, found.carried_ids) == ((failing,), (first, last))
        await ledger.release_failed(slot.slot_id, failing, note="reverted: closed", outcome=ClaimState.VOID)
        await ledger.release_failed(slot.slot_id, failing, note="reverted: closed", outcome=ClaimState.VOID)
        assert await states(ledger) == [ClaimState.CONFIRMED, ClaimState.VOID, ClaimState.CONFIRMED]
        assert (await ledger.reverts(2, 0))[0] == 1
        view = (await ledger.transaction_views())[0]
        assert (view.state, view.error) == ("confirmed", "1 of 3 claims failed: reverted: closed")
        await plan(ledger, 2, 0, 150)
        await ledger.mark_final(slot.slot_id)
        assert (await states(ledger))[:3] == [ClaimState.FINAL, ClaimState.VOID, ClaimState.FINAL]


async def test_a_batch_that_reverts_as_a_whole_lets_all_its_claims_go(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        slot = await batched(ledger, 2)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5, succeeded=False))
        await ledger.void_reverted(slot.slot_id, note="out of gas", outcome=ClaimState.HELD)
        assert await states(ledger) == [ClaimState.HELD] * 2


async def test_a_batch_whose_nonce_another_spent_plans_all_its_claims_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        slot = await batched(ledger, 2)
        await ledger.free_slot(slot.slot_id, state=SlotState.FOREIGN, note="")
        assert await states(ledger) == [ClaimState.PLANNED] * 2


def sent(kind: bytes, *parts: object) -> Attempt:
    plain = attempt(*parts)
    return Attempt(plain.tx_hash, kind + plain.raw, 1, 1, 60_000)


@pytest.mark.parametrize(
    ("mined", "expected"), [(None, 9), ("delegating", 9), ("emptied", 8)], ids=["open", "delegated", "emptied"]
)
async def test_a_delegation_uses_two_nonces_unless_it_was_replaced_by_nothing(
    tmp_path: Path, mined: str | None, expected: int
) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        delegating, emptied = sent(TYPE_4, "delegating"), sent(b"\x02", "emptied")
        slot = await ledger.bind([], sender=HOST, nonce=7, attempt=delegating, kind="delegation")
        await ledger.add_attempt(slot.slot_id, emptied)
        if mined:
            await ledger.mark_included(slot.slot_id, fact(delegating if mined == "delegating" else emptied, 5))
        assert await ledger.next_nonce(HOST) == expected


async def test_a_delegation_whose_nonce_another_spent_has_used_none_after_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        slot = await ledger.bind([], sender=HOST, nonce=7, attempt=sent(TYPE_4, 1), kind="delegation")
        await ledger.free_slot(slot.slot_id, state=SlotState.FOREIGN, note="")
        assert await ledger.next_nonce(HOST) == 8
