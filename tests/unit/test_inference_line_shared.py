"""A full line is shared: no address and no job can keep all others out of it, and who does not pay gives way."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabstir_desktop.errors import EngineBusy
from fabstir_desktop.inference.line import WaitingLine
from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.jobs.generation import GenerationRequest, Message, SamplingParameters

LIMITS = EngineLimits()


def request(name: str, job: str = "", client: str = "127.0.0.1") -> GenerationRequest:
    return GenerationRequest(name, (Message("user", "x"),), 5, SamplingParameters(), job_key=job, client=client)


def full_of_free_prompts(client: str = "127.0.0.1") -> WaitingLine:
    line = WaitingLine(LIMITS)
    for number in range(LIMITS.queue_length):
        line.enter(request(f"free-{number}", client=client), 0.0)
    return line


def test_prompts_that_nobody_pays_for_give_way_to_jobs_the_last_one_first() -> None:
    line = full_of_free_prompts()
    for number in range(LIMITS.queue_length):
        line.enter(request(f"paid-{number}", job=str(number), client=f"203.0.113.{number}"), 1.0)
        [(entry, busy)] = line.overdue(1.0)
        assert entry.request.request_id == f"free-{31 - number}"
        assert busy.retry_after_s > 0
        assert len(line) == LIMITS.queue_length


def test_ten_addresses_with_two_jobs_each_do_not_keep_another_out() -> None:
    line = WaitingLine(LIMITS)
    for number in range(100):
        address, job = f"203.0.113.{number % 10}", f"{number % 20}"
        try:
            line.enter(request(f"flood-{number}", job=job, client=address), 0.0)
        except EngineBusy:
            continue
    assert len(line) == LIMITS.queue_length
    line.enter(request("honest", job="mine", client="198.51.100.1"), 1.0)
    assert any(entry.request.request_id == "honest" for entry in line._waiting)
    assert len(line.overdue(1.0)) == 1


def test_who_gave_way_and_left_by_itself_is_told_nothing_more() -> None:
    line = full_of_free_prompts()
    last = line._waiting[-1]
    line.enter(request("paid", job="1"), 0.0)
    line.leave(last)
    assert line.overdue(0.0) == []


def test_all_who_gave_way_are_among_those_who_are_sent_off() -> None:
    line = full_of_free_prompts()
    line.enter(request("paid", job="1"), 0.0)
    assert len(line.clear()) == LIMITS.queue_length + 1
    assert line.overdue(0.0) == []


arrivals = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 25)), min_size=30, max_size=200)


@settings(max_examples=200)
@given(arrivals)
def test_nobody_is_refused_while_another_has_two_places_more(coming: list[tuple[int, int]]) -> None:
    line = WaitingLine(LIMITS)
    for number, (address, job) in enumerate(coming):
        jobs = Counter(entry.request.job_key for entry in line._waiting)
        clients = Counter(entry.request.client for entry in line._waiting)
        mine = request(f"r{number}", job=f"job-{job}", client=f"203.0.113.{address}")
        is_at_its_own_limit = jobs[mine.job_key] >= 2 or clients[mine.client] >= 4
        greediest = max(clients.values(), default=0) - clients[mine.client]
        if is_at_its_own_limit or (len(line) == LIMITS.queue_length and greediest < 2):
            with contextlib.suppress(EngineBusy):  # it may be refused, for a job that has much it need not be
                line.enter(mine, 0.0)
        else:
            line.enter(mine, 0.0)
        assert len(line) <= LIMITS.queue_length
    told = [entry.request.request_id for entry, _ in line.overdue(0.0)]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("job", ["", "5"])
def test_equal_shares_stay_first_come_first_served(job: str) -> None:
    line = WaitingLine(LIMITS)
    for number in range(LIMITS.queue_length):
        line.enter(request(f"r{number}", job=f"job-{number}", client=f"203.0.113.{number}"), 0.0)
    with pytest.raises(EngineBusy, match="full"):
        line.enter(request("late", job=job, client="198.51.100.1"), 0.0)
    assert line.overdue(0.0) == []
