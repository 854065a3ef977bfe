"""When gas money is little: one set of numbers, told twice, never while there is enough."""

from __future__ import annotations

import pytest

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.gas_money import ALERT_CHECKPOINTS, WARN_CHECKPOINTS
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.gas_problems import low_gas_problem


@pytest.mark.parametrize(
    ("left", "subject"),
    [
        (WARN_CHECKPOINTS + 1, None),
        (WARN_CHECKPOINTS, ""),
        (ALERT_CHECKPOINTS + 1, ""),
        (ALERT_CHECKPOINTS, "nearly out"),
    ],
)
def test_the_host_is_told_at_fifty_and_again_at_ten(left: int, subject: str | None) -> None:
    found = low_gas_problem(left)
    assert (None if found is None else found.subject) == subject
    assert found is None or str(left) in found.message


def test_only_one_of_the_two_stands() -> None:
    board = ProblemBoard(Feed())
    for left in (40, 5, 40):
        low = low_gas_problem(left)
        assert low is not None
        board.keep("G01", (low.subject,))
        board.raise_(low)
        assert board.standing == [low]
