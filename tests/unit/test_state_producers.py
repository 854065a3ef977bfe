"""The table of states is complete, and the product itself brings each of them about, with the table's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from state_producers import NOT_PRODUCED, PRODUCERS, produce

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.states import STATES, problem, state_of


@pytest.mark.parametrize("code", sorted(PRODUCERS))
async def test_the_product_brings_the_state_about(code: str, tmp_path: Path) -> None:
    found = await produce(code, tmp_path)
    assert found.message.endswith((".", "?"))
    assert found.message[0].isupper()
    assert (found.action, found.page) == (STATES[code].action, STATES[code].page)


def test_what_is_not_brought_about_is_known_with_its_reason() -> None:
    made_by_the_app = {"D02", "N01"}
    assert set(STATES) - set(PRODUCERS) - set(NOT_PRODUCED) == made_by_the_app


def test_a_code_of_another_version_is_shown_as_it_says_itself() -> None:
    strange = Problem("Z99", Severity.WARNING, "Something new.", "Look", page="logs")
    assert (state_of(strange).action, state_of(strange).page, state_of(strange).is_dismissible) == (
        "Look",
        "logs",
        False,
    )
    with pytest.raises(KeyError):
        problem("Z99", "Something new.")
