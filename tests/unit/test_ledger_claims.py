"""Claims, nonces and signed transactions: the legal ways."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from ledger_support import HOST, attempt, bytes32, count, fact, opened, payment, plan

from fabstir_desktop.errors import LedgerRefused
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import Claim, ClaimState, Slot, SlotState
from fabstir_desktop.jobs.policy import ClaimNow, ClaimPolicy, decide_claim
from fabstir_desktop.ledger.ledger import Ledger


async def bound(ledger: Ledger, job_id: int, start: int, end: int, nonce: int = 0) -> tuple[Claim, Slot]:
    claim = await plan(ledger, job_id, start, end)
    slot = await ledger.bind([claim.claim_id], sender=HOST, nonce=nonce, attempt=attempt(job_id, start, end, nonce))
    return await ledger.claim(claim.claim_id), slot


async def account_of(ledger: Ledger, job_id: int) -> JobAccount:
    account = await ledger.account(job_id)
    assert account is not None
    return account


async def ladder(ledger: Ledger, job_id: int = 1) -> tuple[int, int, int, int, int, int]:
    a = await account_of(ledger, job_id)
    return a.reserved, a.claimed, a.proven, a.settled, a.written_off, a.open_claims


async def test_a_claim_climbs_the_ladder_one_rung_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 150)
        claim = await plan(ledger, 1, 0, 100)
        assert (claim.state, claim.sequence, claim.tokens) == (ClaimState.PLANNED, 1, 100)
        assert await ladder(ledger) == (100, 0, 0, 0, 0, 1)
        sent = attempt("first")
        slot = await ledger.bind([claim.claim_id], sender=HOST, nonce=3, attempt=sent)
        assert (slot.state, slot.nonce, slot.claim_ids, slot.attempts) == (
            SlotState.OPEN,
            3,
            (claim.claim_id,),
            (sent,),
        )
        assert await ladder(ledger) == (0, 100, 0, 0, 0, 1)
        await ledger.mark_included(slot.slot_id, fact(sent, 5))
        assert await ladder(ledger) == (0, 100, 0, 0, 0, 1)
        await ledger.mark_confirmed(slot.slot_id)
        assert await ladder(ledger) == (0, 100, 100, 0, 0, 0)
        await ledger.record_payments([payment(1, sent, 5)], cursor_block=5, cursor_hash=bytes32(5))
        assert await ladder(ledger) == (0, 100, 100, 100, 0, 0)
        await ledger.mark_final(slot.slot_id)
        assert await ladder(ledger) == (0, 100, 100, 100, 0, 0)
        assert (await ledger.claim(claim.claim_id)).state is ClaimState.FINAL
        assert (await account_of(ledger, 1)).next_start == 100


async def test_planning_the_same_range_again_gives_the_same_claim(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        first = await plan(ledger, 1, 0, 100)
        assert await plan(ledger, 1, 0, 100) == first
        assert await ledger.claim_record(first.proof_hash) == b"record"
        assert await ledger.claim_record(bytes(32)) is None
        assert await ledger.last_proof_hash(1) == first.proof_hash
        assert await ledger.last_proof_hash(2) == bytes(32)


async def test_every_step_twice_is_the_step_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim, slot = await bound(ledger, 1, 0, 100)
        mined = fact(slot.attempts[0], 5)
        for step in (
            lambda: ledger.add_attempt(slot.slot_id, slot.attempts[0]),
            lambda: ledger.mark_reorged(slot.slot_id),
            lambda: ledger.mark_included(slot.slot_id, mined),
            lambda: ledger.mark_confirmed(slot.slot_id),
            lambda: ledger.record_payments([payment(1, slot.attempts[0], 5)], cursor_block=5, cursor_hash=bytes32(5)),
            lambda: ledger.mark_settled(claim.claim_id),
            lambda: ledger.mark_final(slot.slot_id),
        ):
            await step()
            before = (await ledger.slots(HOST), await ledger.claims(), await ledger.earnings(), await ledger.journal())
            await step()
            assert (
                await ledger.slots(HOST),
                await ledger.claims(),
                await ledger.earnings(),
                await ledger.journal(),
            ) == before


async def test_a_fee_bump_is_one_more_attempt_of_the_same_nonce(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        _claim, slot = await bound(ledger, 1, 0, 100, nonce=8)
        bump = attempt("bump", fee_wei=2**70)
        slot = await ledger.add_attempt(slot.slot_id, bump)
        assert slot.attempts[1] == bump
        assert slot.last_sent_at is None
        await ledger.note_send(bump.tx_hash, "already known")
        assert (await ledger.slots(HOST, [SlotState.OPEN]))[0].last_sent_at is not None
        assert await ledger.next_nonce(HOST) == 9
        assert await ledger.next_nonce("0xother") is None
        await ledger.mark_included(slot.slot_id, fact(bump, 5))
        states = {view.tx_hash: (view.state, view.replaces) for view in await ledger.transaction_views()}
    first = "0x" + slot.attempts[0].tx_hash.hex()
    assert states == {first: ("replaced", None), "0x" + bump.tx_hash.hex(): ("included", first)}


async def test_a_reorganisation_reopens_the_claim_with_its_nonce(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim, slot = await bound(ledger, 1, 0, 100)
        sent = slot.attempts[0]
        await ledger.mark_included(slot.slot_id, fact(sent, 5))
        await ledger.mark_confirmed(slot.slot_id)
        await ledger.record_payments([payment(1, sent, 5)], cursor_block=6, cursor_hash=bytes32(6))
        await ledger.mark_reorged(slot.slot_id)
        await ledger.forget_payments_from(5)
        assert (await ledger.claim(claim.claim_id)).state is ClaimState.REOPENED
        assert await ladder(ledger) == (0, 100, 0, 0, 0, 1)
        assert await ledger.event_cursor() == (4, b"")
        again = await ledger.slot_of_claim(claim.claim_id)
        assert again is not None
        assert (again.slot_id, again.attempts, again.state) == (slot.slot_id, (sent,), SlotState.OPEN)
        await ledger.mark_included(slot.slot_id, fact(sent, 7, fork=1))
        await ledger.record_payments([payment(1, sent, 7)], cursor_block=7, cursor_hash=bytes32(7))
        await ledger.mark_confirmed(slot.slot_id)
        assert await ladder(ledger) == (0, 100, 100, 100, 0, 0)


async def test_another_block_for_the_same_transaction_is_a_reorganisation_between(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim, slot = await bound(ledger, 1, 0, 100)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 6, succeeded=False, fork=1))
        assert (await ledger.claim(claim.claim_id)).state is ClaimState.BOUND
        assert (await ledger.slots(HOST))[0].block_number == 6


@pytest.mark.parametrize("outcome", [ClaimState.VOID, ClaimState.HELD, ClaimState.WRITTEN_OFF, ClaimState.PLANNED])
async def test_a_revert_releases_the_claim_to_its_outcome(tmp_path: Path, outcome: ClaimState) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim, slot = await bound(ledger, 1, 0, 100)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5, succeeded=False))
        assert (await ledger.claim(claim.claim_id)).state is ClaimState.BOUND, (
            "it blocks its job until the revert is deep"
        )
        await ledger.void_reverted(slot.slot_id, note="the job has ended", outcome=outcome)
        after = await ledger.claim(claim.claim_id)
        assert (after.state, after.note) == (outcome, "the job has ended")
        assert await ledger.slot_of_claim(claim.claim_id) is None
        view = (await ledger.transaction_views())[0]
        assert (view.state, view.error, view.claims[0].end) == ("reverted", "the job has ended", 100)


async def test_what_was_written_off_counts_as_paid_when_its_transaction_succeeds_after_a_reorganisation(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 100)
        claim, slot = await bound(ledger, 1, 0, 100)
        sent = slot.attempts[0]
        await ledger.mark_included(slot.slot_id, fact(sent, 5, succeeded=False))
        await ledger.void_reverted(slot.slot_id, note="the job has ended", outcome=ClaimState.WRITTEN_OFF)
        with pytest.raises(LedgerRefused):
            await ledger.move_claim(claim.claim_id, ClaimState.VOID, "")
        connection = apsw.Connection(str(path))
        with pytest.raises(apsw.ConstraintError, match="written off"):
            connection.execute("UPDATE claim SET state = 'void' WHERE id = ?", (claim.claim_id,))
        connection.close()
        await count(ledger, 1, 70)
        await ledger.mark_reorged(slot.slot_id)
        account = await account_of(ledger, 1)
        assert (account.written_off, account.claimed) == (100, 0), "nothing has succeeded yet"
        for _twice in range(2):
            await ledger.mark_included(slot.slot_id, fact(sent, 6, fork=1))
        account = await account_of(ledger, 1)
        assert (account.written_off, account.proven, account.next_start, account.claimable) == (0, 100, 100, 70)
        await ledger.mark_final(slot.slot_id)
        assert (await ledger.job_view(1)).unclaimed == 70  # type: ignore[union-attr]


async def test_the_range_of_a_void_claim_is_claimed_again_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 150)
        first, slot = await bound(ledger, 1, 0, 100)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        await ledger.mark_confirmed(slot.slot_id)
        await bound(ledger, 1, 100, 150, nonce=1)
        await count(ledger, 1, 150)
        await ledger.mark_reorged(slot.slot_id)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 6, succeeded=False, fork=1))
        await ledger.void_reverted(slot.slot_id, note="refused")
        account = await account_of(ledger, 1)
        assert (account.next_start, account.next_end, account.claimable, account.uncovered) == (0, 100, 100, 250)
        other = (await ledger.slots(HOST, [SlotState.OPEN]))[0]
        await ledger.mark_included(other.slot_id, fact(other.attempts[0], 7))
        await ledger.mark_confirmed(other.slot_id)
        decision = decide_claim(await account_of(ledger, 1), ClaimPolicy(threshold_tokens=200))
        assert isinstance(decision, ClaimNow)
        assert (decision.start, decision.end) == (0, 100)
        with pytest.raises(LedgerRefused, match="one claim"):
            await plan(ledger, 1, 0, 101)
        again = await plan(ledger, 1, 0, 100)
        assert again.claim_id != first.claim_id
        assert (await account_of(ledger, 1)).next_start == 150


async def test_a_nonce_spent_by_another_plans_its_claims_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim, slot = await bound(ledger, 1, 0, 100)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        await ledger.mark_reorged(slot.slot_id)
        await ledger.free_slot(slot.slot_id, state=SlotState.FOREIGN, note="another program uses this key")
        assert (await ledger.claim(claim.claim_id)).state is ClaimState.PLANNED
        assert (await ledger.transaction_views())[0].state == "dropped"
        again = await ledger.bind([claim.claim_id], sender=HOST, nonce=1, attempt=attempt("again"))
        assert (await ledger.slot_of_claim(claim.claim_id)) == again


async def test_claims_of_several_jobs_share_one_nonce(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        claims = []
        for job_id in (1, 2, 3):
            await count(ledger, job_id, 100)
            claims.append((await plan(ledger, job_id, 0, 100)).claim_id)
        slot = await ledger.bind(claims, sender=HOST, nonce=0, attempt=attempt("batch"))
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        await ledger.mark_final(slot.slot_id)
        assert [claim.claim_id for claim in await ledger.claims(states=[ClaimState.FINAL])] == claims
        view = (await ledger.transaction_views(slot_id=slot.slot_id))[0]
        assert [claimed.job_id for claimed in view.claims] == [1, 2, 3]


async def test_a_cancelling_transaction_carries_no_claim(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        slot = await ledger.bind([], sender=HOST, nonce=0, attempt=attempt("gap"), kind="cancel")
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        await ledger.mark_final(slot.slot_id)
        assert (await ledger.transaction_views())[0].kind == "cancel"


async def test_binding_is_all_or_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim = await plan(ledger, 1, 0, 100)
        with pytest.raises(LedgerRefused):
            await ledger.bind([claim.claim_id, 999], sender=HOST, nonce=0, attempt=attempt("x"))
        assert await ledger.slots(HOST) == []
        assert (await ledger.claim(claim.claim_id)).state is ClaimState.PLANNED


async def test_a_nonce_is_given_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        await bound(ledger, 1, 0, 100, nonce=4)
        with pytest.raises(LedgerRefused, match="UNIQUE"):
            await ledger.bind([], sender=HOST, nonce=4, attempt=attempt("other"), kind="cancel")


async def test_a_claim_is_held_released_and_written_off(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim = await plan(ledger, 1, 0, 100)
        await ledger.move_claim(claim.claim_id, ClaimState.HELD, "the contract is paused")
        assert await ladder(ledger) == (100, 0, 0, 0, 0, 1)
        await ledger.move_claim(claim.claim_id, ClaimState.PLANNED)
        await ledger.move_claim(claim.claim_id, ClaimState.WRITTEN_OFF, "the job has ended")
        assert await ladder(ledger) == (0, 0, 0, 0, 100, 0)
        account = await account_of(ledger, 1)
        assert (account.unclaimed, account.next_start) == (0, 100)
        with pytest.raises(LedgerRefused, match="not a step"):
            await ledger.move_claim(claim.claim_id, ClaimState.PLANNED)
        with pytest.raises(LedgerRefused, match="no claim 99"):
            await ledger.move_claim(99, ClaimState.HELD)


async def test_a_claim_from_elsewhere_owns_the_lowest_tokens_and_twice_is_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 250)
        for _ in range(2):
            await ledger.record_foreign(1, 100, bytes32("elsewhere"), "from another machine")
        account = await account_of(ledger, 1)
        assert (account.claimed, account.proven, account.settled, account.next_start, account.open_claims) == (
            100,
            100,
            100,
            100,
            0,
        )
        assert (await plan(ledger, 1, 100, 250)).sequence == 2


async def test_tokens_known_from_the_chain_alone_do_not_swallow_later_ones(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await ledger.record_foreign(1, 300, bytes32("restored"), "the ledger was lost")
        assert await count(ledger, 1, 50) == 350
        account = await account_of(ledger, 1)
        assert (account.claimable, account.next_start) == (50, 300)
        assert [(s.start, len(s.token_ids)) for s in await ledger.transcript(1, 300, 350)] == [(300, 50)]
        assert await ledger.transcript(1, 0, 300) == []


async def test_a_claim_from_elsewhere_fills_gaps_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 200)
        first, slot = await bound(ledger, 1, 0, 100)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        await ledger.mark_confirmed(slot.slot_id)
        await ledger.record_foreign(1, 100, bytes32("a"), "")
        await ledger.mark_reorged(slot.slot_id)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 6, succeeded=False, fork=1))
        await ledger.void_reverted(slot.slot_id, note="used proof")
        assert (await ledger.claim(first.claim_id)).state is ClaimState.VOID
        await ledger.record_foreign(1, 150, bytes32("b"), "")
        account = await account_of(ledger, 1)
    assert (account.generated, account.claimed, account.next_start) == (250, 250, 250)


async def test_a_payment_read_before_its_claim_is_proven_counts_once_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        _claim, slot = await bound(ledger, 1, 0, 100)
        assert (
            await ledger.record_payments([payment(1, slot.attempts[0], 5)] * 2, cursor_block=5, cursor_hash=bytes(32))
            == 1
        )
        assert await ledger.event_cursor() == (5, bytes(32))
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        assert (await account_of(ledger, 1)).settled == 0
        await ledger.mark_confirmed(slot.slot_id)
        assert (await account_of(ledger, 1)).settled == 100


async def test_a_contract_without_events_settles_by_hand(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        claim, slot = await bound(ledger, 1, 0, 100)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5))
        await ledger.mark_confirmed(slot.slot_id)
        await ledger.mark_settled(claim.claim_id)
        assert (await account_of(ledger, 1)).settled == 100


@pytest.mark.parametrize("outcome", [ClaimState.VOID, ClaimState.HELD, ClaimState.PLANNED])
async def test_a_released_claim_whose_transaction_succeeds_after_all_is_not_claimed_twice(
    tmp_path: Path, outcome: ClaimState
) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 150)
        _claim, slot = await bound(ledger, 1, 0, 100)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 5, succeeded=False))
        await ledger.void_reverted(slot.slot_id, note="refused", outcome=outcome)
        await ledger.mark_reorged(slot.slot_id)
        await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], 6, fork=1))
        account = await account_of(ledger, 1)
    assert (account.claimed, account.next_start, account.claimable, account.open_claims) == (100, 100, 50, 0)
