"""Who waits, for how long, and what happens after a death."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir_desktop.errors import EngineBusy
from fabstir_desktop.inference.line import WaitingLine, is_loopback
from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.inference.restarts import Death, Quarantine, Restart, RestartPolicy, prompt_hash
from fabstir_desktop.jobs.generation import GenerationRequest, Message, SamplingParameters

LIMITS = EngineLimits()


def request(number: int = 0, job: str = "", client: str = "127.0.0.1") -> GenerationRequest:
    return GenerationRequest(f"r{number}", (Message("user", "x"),), 5, SamplingParameters(), job_key=job, client=client)


def test_the_line_holds_32_and_says_the_position_when_full() -> None:
    line = WaitingLine(LIMITS)
    for number in range(32):
        line.enter(request(number), 0.0)
    with pytest.raises(EngineBusy) as caught:
        line.enter(request(99), 0.0)
    assert caught.value.position == 33
    assert len(line) == 32


def test_a_client_address_may_have_four_in_the_line_and_this_machine_more() -> None:
    line = WaitingLine(LIMITS)
    for number in range(4):
        line.enter(request(number, client="203.0.113.5"), 0.0)
    with pytest.raises(EngineBusy):
        line.enter(request(9, client="203.0.113.5"), 0.0)
    for number in range(6):
        line.enter(request(10 + number, client="127.0.0.1"), 0.0)
    assert len(line) == 10


def test_a_job_may_have_two_in_the_line() -> None:
    line = WaitingLine(LIMITS)
    line.enter(request(1, job="7"), 0.0)
    line.enter(request(2, job="7"), 0.0)
    with pytest.raises(EngineBusy):
        line.enter(request(3, job="7"), 0.0)


def test_the_job_with_the_fewest_streams_goes_first_and_within_a_job_who_came_first() -> None:
    line = WaitingLine(LIMITS)
    first = line.enter(request(1, job="busy"), 0.0)
    second = line.enter(request(2, job="busy"), 0.0)
    third = line.enter(request(3, job="calm"), 0.0)
    assert line.next(["busy", "busy"]) is third
    assert line.next(["busy", "busy"]) is first
    assert line.next([]) is second
    assert line.next([]) is None


def test_jobs_take_turns_also_where_there_is_only_one_stream() -> None:
    line = WaitingLine(LIMITS)
    served = []
    for number in range(8):  # `greedy` is always back in the line before the others
        for job in ("greedy", "greedy", "calm", "quiet"):
            if sum(entry.request.job_key == job for entry in line._waiting) < (2 if job == "greedy" else 1):
                line.enter(request(number, job=job), 0.0)
        chosen = line.next([])
        assert chosen is not None
        served.append(chosen.request.job_key)
    assert served[1:] in (["calm", "quiet", "greedy"] * 2 + ["calm"], ["quiet", "calm", "greedy"] * 2 + ["quiet"])


def test_of_endless_jobs_only_the_latest_turns_are_remembered() -> None:
    line = WaitingLine(LIMITS)
    for number in range(3000):
        line.enter(request(number, job=str(number)), 0.0)
        assert line.next([]) is not None
    assert len(line._had_turn) == 1024


def test_who_waited_30_seconds_is_told_so() -> None:
    line = WaitingLine(LIMITS)
    early = line.enter(request(1), 0.0)
    line.enter(request(2), 10.0)
    late = line.overdue(30.0)
    assert [entry for entry, _ in late] == [early]
    assert late[0][1].position == 1
    assert len(line) == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("", True),
     ("10.0.0.1", False), ("fe80::1%eth0", False), ("example", False)],
)  # fmt: skip
def test_loopback_is_recognised_in_every_spelling(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_restarts_wait_longer_each_time_and_after_five_deaths_in_ten_minutes_the_engine_counts_as_failed() -> None:
    policy = RestartPolicy(LIMITS)
    restarts = [policy.after_death(second) for second in range(7)]
    assert [restart.delay_s for restart in restarts] == [0.0, 1.0, 5.0, 15.0, 60.0, 60.0, 60.0]
    assert [restart.has_failed for restart in restarts] == [False] * 4 + [True] * 3
    assert [restart.deaths for restart in restarts] == [1, 2, 3, 4, 5, 6, 7]
    policy.reset()
    assert policy.after_death(8) == Restart(0.0, has_failed=False, deaths=1)


def test_deaths_longer_ago_than_ten_minutes_do_not_count() -> None:
    policy = RestartPolicy(LIMITS)
    assert [policy.after_death(hour * 3600.0).delay_s for hour in range(20)] == [0.0] * 20


def test_a_prompt_that_was_running_at_any_death_is_quarantined() -> None:
    quarantine = Quarantine()
    poison, other = prompt_hash([Message("user", "a")]), prompt_hash([Message("user", "b")])
    quarantine.blame([poison])
    assert quarantine.holds(poison)
    assert not quarantine.holds(other)


def test_the_quarantine_outlives_the_app_for_its_model_and_holds_no_text(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "prompt-quarantine.json"
    quarantine = Quarantine(store, "/m/a.gguf")
    poison = prompt_hash([Message("user", "the words themselves")])
    quarantine.blame([poison])
    quarantine.save()
    assert "words" not in store.read_text()
    assert Quarantine(store, "/m/a.gguf").holds(poison)
    assert not Quarantine(store, "/m/b.gguf").holds(poison)
    quarantine.forget("/m/a.gguf")
    quarantine.save()
    assert not Quarantine(store, "/m/a.gguf").holds(poison)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": "m", "prompts": ["zz"]}', '{"model": "m", "prompts": 3}'])
def test_a_damaged_quarantine_costs_nothing_else(tmp_path: Path, text: str) -> None:
    store = tmp_path / "q.json"
    store.write_text(text)
    assert not Quarantine(store, "m").holds(b"x" * 32)


def test_the_quarantine_is_bounded() -> None:
    quarantine = Quarantine()
    prompts = [number.to_bytes(32, "big") for number in range(1500)]
    quarantine.blame(prompts)
    assert not quarantine.holds(prompts[0])
    assert all(quarantine.holds(prompt) for prompt in prompts[-1000:])


def test_the_hash_of_a_conversation_depends_on_where_its_messages_end() -> None:
    assert prompt_hash([Message("user", "ab")]) != prompt_hash([Message("user", "a"), Message("user", "b")])


@pytest.mark.parametrize(
    ("death", "words"),
    [
        (Death(-11), "SIGSEGV"),
        (Death(-6, ("GGML_ASSERT(x) failed",)), "SIGABRT (a failed check in llama.cpp)"),
        (Death(1, ("CUDA error: out of memory",)), "exit code 1 (out of memory)"),
        (Death(0xC0000005), "Windows status 0xC0000005"),
        (Death(-9, hung="no token for 30 s"), "no token for 30 s"),
    ],
)
def test_the_cause_of_a_death_is_said_in_words(death: Death, words: str) -> None:
    assert death.cause == words
