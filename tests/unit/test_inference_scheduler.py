"""The scheduler's books are those of the cache, no stream sees another's tokens, and nobody starves."""

from __future__ import annotations

import random

import pytest

from fabstir_desktop.inference.scheduler import (
    CacheAction,
    Cut,
    FillPrefix,
    Keep,
    Move,
    Restore,
    Row,
    Scheduler,
    Stream,
)

PREFIX = tuple(range(900, 920))


class CacheModel:
    """A KV cache that is nothing but lists of tokens, and refuses what the real one would."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.cells: list[list[int]] = [[] for _ in scheduler.slots]
        self.kept: dict[tuple[str, str], list[int]] = {}

    def carry_out(self, actions: list[CacheAction]) -> None:
        for action in actions:
            match action:
                case Cut(slot, start):
                    assert start <= len(self.cells[slot])
                    del self.cells[slot][start:]
                case FillPrefix(slot):
                    assert not self.cells[slot]
                    self.cells[slot] = list(PREFIX)
                case Keep(slot, owner, tokens):
                    assert tuple(self.cells[slot]) == tokens
                    self.kept[owner] = list(tokens)
                case Restore(slot, owner, start):
                    assert not self.cells[slot]
                    self.cells[slot] = self.kept[owner][:start]
                case Move(source, target):
                    assert not self.cells[target]
                    self.cells[target], self.cells[source] = self.cells[source], []

    def compute(self, rows: list[Row]) -> None:
        slots = [row.slot for row in rows]
        assert slots == sorted(set(slots))
        for row in rows:
            assert len(self.cells[row.slot]) == row.position
            self.cells[row.slot].extend(row.tokens)

    def check_books(self) -> None:
        assert [slot.tokens for slot in self.scheduler.slots] == self.cells
        running = sorted(stream.slot for stream in self.scheduler.streams.values())
        assert len(set(running)) == len(running)
        for stream in self.scheduler.streams.values():
            assert self.scheduler.slots[stream.slot].stream is stream


def prompt(random_source: random.Random, conversation: int, turns: int) -> tuple[int, ...]:
    """The prompts of a conversation begin alike and grow; those of two conversations differ after the template."""
    return PREFIX + tuple(conversation * 1000 + n for n in range(10 + turns * 15)) + (random_source.randrange(10**6),)


@pytest.mark.parametrize("seed", range(60))
def test_a_stream_is_computed_on_its_own_tokens_alone_whatever_joins_moves_and_leaves(seed: int) -> None:
    random_source = random.Random(seed)
    scheduler = Scheduler(random_source.randint(1, 6), unit_tokens=64, prefix=PREFIX if seed % 3 else ())
    cache = CacheModel(scheduler)
    history: dict[int, list[int]] = {}
    turns = dict.fromkeys(range(8), 0)
    number = 0
    for _ in range(300):
        act = random_source.random()
        if act < 0.3 and len(scheduler.streams) < len(scheduler.slots):
            number += 1
            conversation = random_source.randrange(8)
            turns[conversation] += 1
            owner = ("job", str(conversation)) if random_source.random() < 0.7 else None
            busy = [stream.owner for stream in scheduler.streams.values()]
            owner = None if owner in busy else owner
            ids = prompt(random_source, conversation, turns[conversation])
            stream = Stream(number, ids, f"job{conversation % 3}", owner)
            cache.carry_out(scheduler.join(stream))
            history[number] = list(ids)
            assert stream.remaining >= 1
        elif act < 0.4 and scheduler.streams:
            scheduler.leave(random_source.choice(list(scheduler.streams)))
        elif act < 0.45 and scheduler.streams:
            stream = random_source.choice(list(scheduler.streams.values()))
            stream.held = not stream.held
        else:
            cache.carry_out(scheduler.compact())
            running = sorted(stream.slot for stream in scheduler.streams.values())
            assert not running or running[-1] - running[0] + 1 == len(running)
            rows = scheduler.rows(random_source.choice([8, 16, 200]))
            cache.compute(rows)
            for row in rows:
                mine = history[row.stream.number]
                assert cache.cells[row.slot] == mine[: len(cache.cells[row.slot])]
                if row.wants_token:
                    assert cache.cells[row.slot] == mine
                    token = random_source.randrange(10**6)
                    mine.append(token)
                    scheduler.sampled(row, token)
        cache.check_books()


def test_the_next_prompt_of_a_conversation_reads_only_what_is_new() -> None:
    scheduler = Scheduler(4, prefix=PREFIX)
    first = Stream(1, PREFIX + tuple(range(100)), owner=("job", "s"))
    scheduler.join(first)
    scheduler.rows(512)
    scheduler.leave(1)
    second = Stream(2, PREFIX + tuple(range(100)) + (7, 8, 9), owner=("job", "s"))
    assert scheduler.join(second) == []
    assert second.remaining == 3


def test_a_conversation_that_lost_its_slot_comes_back_from_what_was_kept() -> None:
    scheduler = Scheduler(1)
    cache = CacheModel(scheduler)
    for number, owner, base in ((1, "a", 0), (2, "b", 5000), (3, "a", 0)):
        stream = Stream(number, tuple(range(base, base + 60 + number)), owner=("job", owner))
        actions = scheduler.join(stream)
        cache.carry_out(actions)
        cache.compute(scheduler.rows(512))
        cache.check_books()
        scheduler.leave(number)
        if number == 3:
            assert Restore(0, ("job", "a"), 61) in actions


def test_nothing_of_one_conversation_is_reused_for_another_but_the_template() -> None:
    scheduler = Scheduler(1, prefix=PREFIX)
    text = PREFIX + tuple(range(200))
    scheduler.join(Stream(1, text, "job", ("job", "mine")))
    scheduler.rows(512)
    scheduler.leave(1)
    stranger = Stream(2, text, "other", ("other", "mine"))
    actions = scheduler.join(stranger)
    assert stranger.done == len(PREFIX)
    assert [type(action) for action in actions] == [Keep, Cut, FillPrefix]


def test_a_long_prompt_is_read_in_chunks_beside_running_streams() -> None:
    scheduler = Scheduler(2)
    runner = Stream(1, (1, 2, 3))
    scheduler.join(runner)
    scheduler.sampled(scheduler.rows(100)[0], 4)
    scheduler.join(Stream(2, tuple(range(1500))))
    steps = 0
    while scheduler.streams[2].next_id is None:
        rows = scheduler.rows(100)
        steps += 1
        assert [len(row.tokens) for row in rows if row.stream is runner] == [1]
        assert sum(len(row.tokens) for row in rows) <= 101
        for row in rows:
            if row.wants_token:
                scheduler.sampled(row, 5)
    assert steps == 15


def test_with_nobody_waiting_for_tokens_a_whole_unit_is_read_at_once() -> None:
    scheduler = Scheduler(8, unit_tokens=512)
    for number in range(8):
        scheduler.join(Stream(number, tuple(range(60))))
    assert sum(len(row.tokens) for row in scheduler.rows(16)) == 480


def test_a_job_with_many_prompts_takes_no_more_than_its_share_of_reading() -> None:
    scheduler = Scheduler(5, unit_tokens=100)
    for number in range(4):
        scheduler.join(Stream(number, tuple(range(1000)), "greedy"))
    scheduler.join(Stream(4, tuple(range(1000)), "modest"))
    read = {"greedy": 0, "modest": 0}
    for _ in range(10):
        for row in scheduler.rows(100):
            read[row.stream.job_key] += len(row.tokens)
    assert read == {"greedy": 500, "modest": 500}


def test_a_held_stream_rests_and_goes_on_where_it_was() -> None:
    scheduler = Scheduler(2)
    stream = Stream(1, (1, 2))
    scheduler.join(stream)
    scheduler.sampled(scheduler.rows(9)[0], 3)
    stream.held = True
    assert scheduler.rows(9) == []
    stream.held = False
    assert [list(row.tokens) for row in scheduler.rows(9)] == [[3]]
