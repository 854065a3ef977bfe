"""The tables of steps: what a claim and a nonce may do."""

from __future__ import annotations

from fabstir_desktop.jobs.claims import (
    CLAIM_STEPS,
    OPEN_STATES,
    PROVEN_STATES,
    SENT_STATES,
    SLOT_STEPS,
    ClaimState,
    SlotState,
)

SPENT = {SlotState.BURNED, SlotState.FOREIGN, SlotState.FINAL}


def reachable(steps: frozenset[tuple[ClaimState, ClaimState]], start: ClaimState) -> set[ClaimState]:
    found, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        for before, after in steps:
            if before is state and after not in found:
                found.add(after)
                waiting.append(after)
    return found


def test_every_state_is_reached_from_the_beginning() -> None:
    assert reachable(CLAIM_STEPS, ClaimState.PLANNED) == set(ClaimState)


def test_what_is_over_stays_over() -> None:
    over = {ClaimState.FINAL, ClaimState.VOID, ClaimState.WRITTEN_OFF}
    back = (ClaimState.WRITTEN_OFF, ClaimState.VOID)  # only where its transaction succeeded after all: see the triggers
    assert [step for step in CLAIM_STEPS if step[0] in over] == [back]
    assert not [step for step in SLOT_STEPS if step[0] in SPENT]


def test_every_claim_can_still_end() -> None:
    over = {ClaimState.FINAL, ClaimState.VOID, ClaimState.WRITTEN_OFF}
    assert all(reachable(CLAIM_STEPS, state) & over for state in ClaimState)


def test_a_sent_claim_is_never_simply_written_off_once_it_was_mined() -> None:
    mined = {ClaimState.INCLUDED, ClaimState.CONFIRMED}
    free = {ClaimState.VOID, ClaimState.WRITTEN_OFF, ClaimState.PLANNED, ClaimState.HELD}
    assert not [step for step in CLAIM_STEPS if step[0] in mined and step[1] in free]


def test_no_step_leads_back_to_proven_without_a_block() -> None:
    assert {before for before, after in CLAIM_STEPS if after is ClaimState.CONFIRMED} == {ClaimState.INCLUDED}
    assert {before for before, after in CLAIM_STEPS if after is ClaimState.FINAL} == {ClaimState.CONFIRMED}
    assert {before for before, after in SLOT_STEPS if after in {SlotState.BURNED, SlotState.FOREIGN}} == {
        SlotState.OPEN
    }


def test_the_groups_of_states_fit_together() -> None:
    assert PROVEN_STATES < SENT_STATES
    assert not OPEN_STATES & PROVEN_STATES
    assert OPEN_STATES | PROVEN_STATES | {ClaimState.VOID, ClaimState.WRITTEN_OFF} == set(ClaimState)
