"""Job ids: one strict reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.errors import UserError
from fabstir_desktop.jobs.ids import MAX_UINT256, IdInvalid, Venue, parse_job_id


@given(st.integers(0, MAX_UINT256))
def test_every_number_of_256_bits_is_read_in_each_of_its_spellings(number: int) -> None:
    assert parse_job_id(number) == parse_job_id(str(number)) == parse_job_id(f"{number}n") == number


NOT_IDS: list[object] = [
    -1,
    MAX_UINT256 + 1,
    str(MAX_UINT256 + 1),
    "-1",
    "+1",
    "01",
    "00",
    "",
    " 1",
    "1 ",
    "1\n",
    "1.0",
    "1e3",
]
NOT_IDS += [
    "0x1f",
    "n",
    "1nn",
    "1_000",
    "\u0661",
    "\uff11",
    "9" * 79,
    True,
    False,
    1.0,
    float("nan"),
    None,
    [],
    {},
    b"1",
    "null",
]


@pytest.mark.parametrize("value", NOT_IDS, ids=repr)
def test_anything_else_is_refused_in_plain_words(value: object) -> None:
    with pytest.raises(IdInvalid, match="job_id"):
        parse_job_id(value)


@given(st.text(max_size=90) | st.floats() | st.binary(max_size=10) | st.integers())
def test_whatever_comes_is_an_id_or_refused(value: object) -> None:
    try:
        number = parse_job_id(value)
    except UserError:
        return
    assert isinstance(value, int | str)
    assert 0 <= number <= MAX_UINT256
    assert str(value).removesuffix("n") == str(number)


def test_a_venue_names_its_contract_as_hosts_know_it() -> None:
    names = {
        interface: Venue(1, "0x", interface).contract_name for interface in ("proof_system", "job_marketplace", "other")
    }
    assert names == {"proof_system": "ProofSystem", "job_marketplace": "JobMarketplace", "other": "other"}
