"""When to claim, and what an account says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import ClaimReason
from fabstir_desktop.jobs.policy import (
    ClaimLater,
    ClaimNow,
    ClaimPolicy,
    ClaimWorth,
    decide_claim,
    due_threshold,
    hold_back,
    is_deadline_due,
)


def account(
    generated: int,
    *,
    claimed: int = 0,
    written_off: int = 0,
    reserved: int = 0,
    open_claims: int = 0,
    next_start: int | None = None,
    next_end: int | None = None,
) -> JobAccount:
    return JobAccount(
        job_id=1,
        session_id="s",
        generated=generated,
        claimed=claimed,
        proven=0,
        settled=0,
        written_off=written_off,
        reserved=reserved,
        open_claims=open_claims,
        next_start=claimed + written_off + reserved if next_start is None else next_start,
        session_open=True,
        updated_at=0.0,
        next_end=next_end,
    )


@pytest.mark.parametrize(("generated", "claims"), [(0, False), (99, False), (100, True), (101, True), (1000, True)])
def test_a_checkpoint_is_due_at_the_threshold(generated: int, claims: bool) -> None:
    decision = decide_claim(account(generated), ClaimPolicy())
    assert (decision == ClaimNow(0, generated, ClaimReason.THRESHOLD)) == claims


@pytest.mark.parametrize("trigger", [reason for reason in ClaimReason if reason is not ClaimReason.THRESHOLD])
def test_an_event_claims_whatever_is_there(trigger: ClaimReason) -> None:
    assert decide_claim(account(7), ClaimPolicy(), trigger=trigger) == ClaimNow(0, 7, trigger)
    assert isinstance(decide_claim(account(0), ClaimPolicy(), trigger=trigger), ClaimLater)


def test_while_a_claim_is_on_its_way_tokens_gather_into_the_next() -> None:
    waiting = decide_claim(account(500, claimed=100, open_claims=1), ClaimPolicy(), trigger=ClaimReason.FORCED)
    assert isinstance(waiting, ClaimLater)
    assert decide_claim(account(500, claimed=100), ClaimPolicy()) == ClaimNow(100, 500, ClaimReason.THRESHOLD)


def test_below_the_contracts_minimum_nothing_is_claimed_and_nothing_padded() -> None:
    policy = ClaimPolicy(threshold_tokens=100, minimum_tokens=100)
    decision = decide_claim(account(99), policy, trigger=ClaimReason.SESSION_END)
    assert decision == ClaimLater("needs 100 tokens, has 99")


def test_why_not_is_said_as_the_host_will_read_it() -> None:
    assert decide_claim(account(40), ClaimPolicy()) == ClaimLater("40 of 100 tokens until the next checkpoint")
    assert decide_claim(account(40, claimed=40), ClaimPolicy()) == ClaimLater("nothing unclaimed")


def test_no_more_than_the_contracts_maximum_is_claimed_at_once() -> None:
    assert decide_claim(account(500), ClaimPolicy(maximum_tokens=120)) == ClaimNow(0, 120, ClaimReason.THRESHOLD)


def test_while_tokens_stream_a_remainder_is_kept_for_the_last_claim() -> None:
    policy = ClaimPolicy(threshold_tokens=100, minimum_tokens=100, keep_tokens=100)
    assert isinstance(decide_claim(account(199), policy), ClaimLater)
    assert decide_claim(account(230), policy) == ClaimNow(0, 130, ClaimReason.THRESHOLD)
    assert decide_claim(account(230), policy, trigger=ClaimReason.SESSION_END) == ClaimNow(
        0, 230, ClaimReason.SESSION_END
    )


def test_a_gap_is_claimed_whole_even_where_a_remainder_is_kept() -> None:
    holey = account(500, claimed=100, next_start=0, next_end=150)
    policy = ClaimPolicy(threshold_tokens=100, minimum_tokens=100, keep_tokens=100)
    assert decide_claim(holey, policy) == ClaimNow(0, 150, ClaimReason.THRESHOLD)


def test_a_gap_is_claimed_exactly_and_does_not_hold_the_rest_back() -> None:
    holey = account(500, claimed=100, next_start=0, next_end=40)
    assert (holey.unclaimed, holey.uncovered, holey.claimable) == (400, 400, 40)
    assert decide_claim(holey, ClaimPolicy()) == ClaimNow(0, 40, ClaimReason.THRESHOLD)


def test_reserved_tokens_are_unclaimed_but_not_claimable() -> None:
    held = account(100, reserved=60, open_claims=1)
    assert (held.unclaimed, held.claimable) == (100, 40)


@given(
    covered=st.integers(0, 10**6),
    uncovered=st.integers(0, 10**6),
    gap=st.none() | st.integers(1, 10**6),
    policy=st.builds(
        ClaimPolicy,
        threshold_tokens=st.integers(1, 10**4),
        minimum_tokens=st.integers(1, 10**4),
        maximum_tokens=st.none() | st.integers(10**4, 10**6),
        keep_tokens=st.integers(0, 1000),
    ),
    trigger=st.none() | st.sampled_from(ClaimReason),
)
def test_a_decision_never_claims_more_than_there_is(
    covered: int, uncovered: int, gap: int | None, policy: ClaimPolicy, trigger: ClaimReason | None
) -> None:
    given_account = account(covered + uncovered, claimed=covered, next_start=0 if gap else covered, next_end=gap)
    decision = decide_claim(given_account, policy, trigger=trigger)
    if isinstance(decision, ClaimNow):
        count = decision.end - decision.start
        assert decision.start == given_account.next_start
        assert policy.minimum_tokens <= count <= uncovered
        assert trigger is not None or gap is not None or uncovered - count >= policy.keep_tokens
        assert gap is None or decision.end <= gap
        assert policy.maximum_tokens is None or count <= policy.maximum_tokens
        assert trigger is not None or uncovered >= policy.threshold_tokens
    else:
        assert decision.why


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 1_000), st.integers(1, 200), st.booleans())
def test_no_threshold_lets_a_job_stall_at_the_limit_of_what_may_be_unproven(
    threshold: int, limit: int, minimum: int, keeps: bool
) -> None:
    """Tokens come one by one until prompts wait; the tracker asks at each multiple of what makes a claim due."""
    if minimum > limit - limit % 2 and limit > 1:
        return  # no claim that the contract takes fits below the limit
    policy = ClaimPolicy(threshold, minimum, keep_tokens=minimum if keeps else 0, exposure_tokens=limit)
    step = due_threshold(threshold, limit)
    asked = range(step, limit + 1, step)
    decisions = [decide_claim(account(tokens), policy) for tokens in asked]
    claims = [one for one in decisions if isinstance(one, ClaimNow)]
    assert claims or minimum > max(asked)
    for one in claims:
        assert one.end - one.start >= minimum
        assert one.reason in (ClaimReason.THRESHOLD, ClaimReason.EXPOSURE)


def test_too_much_unproven_is_claimed_at_half_the_limit_and_says_so() -> None:
    policy = ClaimPolicy(threshold_tokens=10**9, exposure_tokens=5_000)
    assert isinstance(decide_claim(account(2_499), policy), ClaimLater)
    assert decide_claim(account(2_500), policy) == ClaimNow(0, 2_500, ClaimReason.EXPOSURE)
    usual = ClaimPolicy(threshold_tokens=100, exposure_tokens=5_000)
    assert decide_claim(account(100), usual) == ClaimNow(0, 100, ClaimReason.THRESHOLD)


def test_near_the_deadline_a_remainder_is_kept_unless_nothing_could_be_claimed_then() -> None:
    policy = ClaimPolicy(threshold_tokens=100, minimum_tokens=100, keep_tokens=100)
    assert decide_claim(account(230), policy, trigger=ClaimReason.DEADLINE) == ClaimNow(0, 130, ClaimReason.DEADLINE)
    assert decide_claim(account(150), policy, trigger=ClaimReason.DEADLINE) == ClaimNow(0, 150, ClaimReason.DEADLINE)
    assert decide_claim(account(230), policy, trigger=ClaimReason.FORCED) == ClaimNow(0, 230, ClaimReason.FORCED)


@given(st.floats(0, 10**6), st.floats(0, 10**6), st.floats(0, 10**4))
def test_a_deadline_is_met_when_half_of_its_time_has_passed_or_little_is_left(
    passed_s: float, window_s: float, margin_s: float
) -> None:
    due = is_deadline_due(passed_s, window_s, window_s, margin_s)
    assert due == (window_s - passed_s <= window_s / 2 or window_s - passed_s <= margin_s)


@given(
    tokens=st.integers(1, 10**7),
    price=st.integers(0, 10**18),
    cost=st.integers(0, 10**21),
    reason=st.sampled_from(ClaimReason),
    holds=st.booleans(),
)
def test_only_a_claim_that_loses_money_is_held_and_only_where_the_host_wants_it(
    tokens: int, price: int, cost: int, reason: ClaimReason, holds: bool
) -> None:
    held = hold_back(ClaimNow(5, 5 + tokens, reason), ClaimPolicy(holds_uneconomic=holds), ClaimWorth(price, cost))
    is_always_made = reason in (ClaimReason.FORCED, ClaimReason.EXPOSURE)
    assert (held is not None) == (holds and price > 0 and tokens * price < cost and not is_always_made)
    if held is not None:
        enough = int(held.why.split("with ")[1].split()[0])
        assert enough * price >= cost > (enough - 1) * price, "it says with how many tokens it pays"


def test_a_claim_whose_worth_is_not_known_is_made() -> None:
    assert hold_back(ClaimNow(0, 100, ClaimReason.THRESHOLD), ClaimPolicy(holds_uneconomic=True), None) is None
