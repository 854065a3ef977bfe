"""Token buckets: the burst, the long run, and a bound on how many names are remembered."""

from __future__ import annotations

from fabstir_desktop.server.rates import Rate


def test_the_burst_is_there_at_once_and_the_rate_in_the_long_run() -> None:
    rate = Rate(per_second=2, burst=3)
    assert [rate.take("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.take("a", 0.5) == 0
    assert rate.take("a", 0.5) == 0.5
    taken = sum(rate.take("a", 1 + second / 10) == 0 for second in range(1000))
    assert 200 <= taken <= 204


def test_names_do_not_take_from_each_other() -> None:
    rate = Rate(per_second=1, burst=1)
    assert [rate.take(name, 0.0) for name in "abc"] == [0, 0, 0]
    assert rate.take("a", 0.0) == 1.0


def test_names_without_end_are_forgotten_and_the_busy_one_is_not() -> None:
    rate = Rate(per_second=1, burst=2)
    now = 0.0
    for number in range(20_000):
        now += 0.001
        rate.take(f"name {number}", now)
        rate.take("busy", now)
    assert len(rate._bucket_by_name) <= 4096
    assert rate.take("busy", now) > 0
