"""Fees: floor, cap, and bumps that pools accept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.settlement.fees import (
    GWEI,
    MAXIMUM_TIP_WEI,
    MINIMUM_BASE_FEE_WEI,
    FeeMarket,
    FeeOffer,
    bump_due,
    bump_helps,
    bumped,
    first_offer,
    gas_limit_for,
    median,
)

wei = st.integers(min_value=0, max_value=10**15)
markets = st.builds(FeeMarket, wei, st.lists(wei, max_size=25).map(tuple))


@given(markets, st.integers(min_value=1, max_value=10**15), wei)
def test_no_offer_is_ever_above_the_cap(market: FeeMarket, cap_wei: int, minimum_tip_wei: int) -> None:
    offer = first_offer(market, cap_wei, minimum_tip_wei=minimum_tip_wei)
    if offer is not None:
        assert market.base_fee_wei <= offer.max_fee_per_gas_wei <= cap_wei
        assert offer.max_priority_fee_per_gas_wei <= offer.max_fee_per_gas_wei


@given(markets)
def test_an_offer_outlives_a_doubled_base_fee_where_the_cap_allows(market: FeeMarket) -> None:
    offer = first_offer(market, 10**18)
    assert offer is not None
    assert offer.max_fee_per_gas_wei >= 2 * market.base_fee_wei + offer.max_priority_fee_per_gas_wei
    assert offer.max_fee_per_gas_wei > 2 * MINIMUM_BASE_FEE_WEI
    assert 100 <= offer.max_priority_fee_per_gas_wei <= MAXIMUM_TIP_WEI


@given(st.builds(FeeOffer, st.integers(1, 10**15), st.integers(0, 10**15)), markets, st.integers(1, 10**15))
def test_a_bump_raises_both_fields_by_an_eighth_and_respects_the_cap(
    offer: FeeOffer, market: FeeMarket, cap_wei: int
) -> None:
    dearer = bumped(offer, first_offer(market, cap_wei), cap_wei)
    if dearer is not None:
        assert dearer.max_fee_per_gas_wei <= cap_wei
        assert dearer.max_priority_fee_per_gas_wei <= dearer.max_fee_per_gas_wei
        for new, old in (
            (dearer.max_fee_per_gas_wei, offer.max_fee_per_gas_wei),
            (dearer.max_priority_fee_per_gas_wei, offer.max_priority_fee_per_gas_wei),
        ):
            assert new * 8 >= old * 9
            assert new > old


def test_bumps_of_single_wei_are_bumps() -> None:
    for value, expected in ((1, 3), (5, 7), (9, 12), (10, 13), (11, 14)):
        dearer = bumped(FeeOffer(value, value), None, GWEI)
        assert dearer == FeeOffer(expected, expected)


def test_a_market_above_the_cap_gives_no_offer() -> None:
    assert first_offer(FeeMarket(60 * GWEI), 50 * GWEI) is None
    offer = first_offer(FeeMarket(40 * GWEI), 50 * GWEI)
    assert offer is not None
    assert offer.max_fee_per_gas_wei == 50 * GWEI


def test_a_bump_helps_only_where_the_price_is_what_holds_it_up() -> None:
    assert bump_helps(FeeOffer(100, 100), FeeMarket(100))
    assert not bump_helps(FeeOffer(10**9, 100), FeeMarket(100))
    assert bump_helps(FeeOffer(10**9, 100), FeeMarket(100, (5000, 5000)))


def test_bumps_come_at_growing_distances_and_end() -> None:
    assert [bump_due(waited, 1, 30.0) for waited in (29.9, 30.0)] == [False, True]
    assert [bump_due(waited, 3, 30.0) for waited in (119.0, 120.0)] == [False, True]
    assert not bump_due(10**6, 7, 30.0)


def test_the_median_and_the_gas_limit() -> None:
    assert median(()) == 0
    assert median((5, 1, 9)) == 5
    assert median((1, 2, 3, 4)) == 2
    assert gas_limit_for(100_001) == 120_002
    assert gas_limit_for(900_000) == 1_000_000
    assert gas_limit_for(1_500_000) == 1_500_000
