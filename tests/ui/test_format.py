"""Amounts, ids and ages as text: exact, and unknown is never a zero."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.jobs.views import TokenAmount
from fabstir_desktop.ui import format as fmt

USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"


@given(st.integers(-(2**256), 2**256), st.integers(0, 18))
def test_a_decimal_keeps_every_digit(amount: int, decimals: int) -> None:
    assert (
        Decimal(fmt.exact_decimal(amount, decimals)).scaleb(decimals).compare(Decimal(amount)) == 0
        or len(str(abs(amount))) > 28
    )
    whole, _, fraction = fmt.exact_decimal(amount, decimals).partition(".")
    assert int(whole.replace("-", "") + fraction.ljust(decimals, "0")) == abs(amount)


@given(st.integers(0, 2**128))
def test_a_shortened_amount_is_never_more_than_the_amount(amount: int) -> None:
    short = fmt.short_decimal(amount, 18)
    assert Decimal(short.rstrip("…")) * 10**18 <= amount
    if not short.endswith("…"):
        assert short == fmt.exact_decimal(amount, 18)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (TokenAmount("ETH", 1), "0.000000000000000001 ETH"),
        (TokenAmount("ETH", 10**18), "1 ETH"),
        (TokenAmount(USDC, 41_500), "0.0415 USDC"),
        (TokenAmount("0x" + "ab" * 20, 12), f"12 units of 0x{'ab' * 20}"),
    ],
)
def test_an_amount_is_written_with_its_own_decimals(amount: TokenAmount, text: str) -> None:
    assert fmt.exact_amount(amount) == text


def test_amounts_of_two_tokens_stand_side_by_side() -> None:
    written = fmt.amounts((TokenAmount("ETH", 10**18), TokenAmount(USDC, 2_000_000)))
    assert written == "1 ETH  +  2 USDC"


def test_unknown_is_a_dash_and_not_a_zero() -> None:
    assert {fmt.wei(None), fmt.count(None), fmt.age(None), fmt.size(None), fmt.amounts(()), fmt.rate(None)} == {
        fmt.UNKNOWN
    }
    assert fmt.count(0) == "0"
    assert fmt.wei(0) == "0 ETH"


def test_fees_are_written_in_eth_however_small_and_whole_in_the_tool_tip() -> None:
    assert fmt.wei(440_000_000_123) == "0.0000004400… ETH"
    assert fmt.wei(440_000_000_000) == "0.00000044 ETH"
    assert fmt.wei(1) == "0.000000000000000001 ETH"
    assert fmt.wei(10**13) == "0.00001 ETH"
    assert fmt.wei(440_000_000_123, exact=True) == "0.000000440000000123 ETH"


def test_a_job_id_beyond_2_to_the_53_is_exact_where_it_fits_and_shortened_by_its_ends_else() -> None:
    assert fmt.short_job(999_999_999_999) == "999999999999"
    assert fmt.short_job(2**256 - 1) == "11579…39935"


def test_ages_use_two_units() -> None:
    assert [fmt.duration(seconds) for seconds in (5, 61, 3700, 90_000)] == ["5 s", "1 min", "1 h 1 min", "1 d 1 h"]


def test_an_explorer_link_exists_for_known_chains_only() -> None:
    assert fmt.explorer_link(84532, "tx", "0xab") == "https://sepolia.basescan.org/tx/0xab"
    assert fmt.explorer_link(131277322940537, "tx", "0xab") is None
