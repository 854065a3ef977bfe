"""Threads are taken away while cores are contended, and come back; a quiet machine keeps them all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.inference.threads import FIRST_PATIENCE_S, WINDOW_S, ThreadGovernor


def run(governor: ThreadGovernor, seconds: float, cores: float, step_s: float = 0.05) -> list[int]:
    """Steps on a machine that gives the process at most `cores` cores."""
    used = []
    for _ in range(round(seconds / step_s)):
        used.append(governor.threads)
        governor.note(step_s, step_s * min(cores, governor.threads))
    return used


def test_a_quiet_machine_keeps_all_threads() -> None:
    assert set(run(ThreadGovernor(8), 120, cores=8)) == {8}


def test_small_interruptions_cost_no_thread() -> None:
    assert set(run(ThreadGovernor(4), 120, cores=3.4)) == {4}


def test_a_machine_shared_with_a_compiler_gets_threads_back() -> None:
    governor = ThreadGovernor(2)
    used = run(governor, 120, cores=1.0)
    assert used[round(3 * WINDOW_S / 0.05)] == 1, "within three windows"
    assert used.count(2) < 0.1 * len(used), "tries are rare"


def test_all_threads_are_back_soon_after_the_others_are_gone() -> None:
    governor = ThreadGovernor(2)
    run(governor, 3, cores=1.0)
    assert governor.threads == 1
    run(governor, FIRST_PATIENCE_S + 1, cores=2)
    assert governor.threads == 2


def test_the_wait_for_pages_at_the_beginning_is_no_contention() -> None:
    governor = ThreadGovernor(2)
    governor.note(3.0, 0.5)
    assert governor.threads == 2


@given(
    full=st.integers(1, 64),
    steps=st.lists(st.tuples(st.floats(1e-6, 5), st.floats(0, 1)), max_size=300),
)
def test_the_number_stays_between_one_and_all(full: int, steps: list[tuple[float, float]]) -> None:
    governor = ThreadGovernor(full)
    for wall_s, share in steps:
        governor.note(wall_s, wall_s * share * governor.threads)
        assert 1 <= governor.threads <= full
