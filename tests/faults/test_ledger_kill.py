"""The process is killed at random moments, again and again on the same ledger: nothing acknowledged is ever lost."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import apsw
import ledger_child
import pytest
from forking import forking_context
from ledger_rules import check_file

from fabstir_desktop.ledger.schema import MIGRATIONS


def kill_rounds(path: Path, rounds: int, seed: int) -> Counter[str]:
    """Start, kill, check, repeat; returns where the kills hit."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    context = forking_context()
    hits: Counter[str] = Counter()
    acknowledged: dict[int, int] = dict.fromkeys(ledger_child.JOBS, 0)
    tried: dict[int, int] = dict.fromkeys(ledger_child.JOBS, 0)
    bound: dict[int, bytes] = {}
    for number in range(rounds):
        hits[one_round(context, path, chance, acknowledged, tried, bound)] += 1
        if not is_made(path):
            assert not any(acknowledged.values()), "what was acknowledged is in no file"
            continue
        if chance.random() < 0.5:
            generated = check_file(
                path, thorough=number % 10 == 0
            )  # checking recovers the log; else the next start does
            for job in generated:
                assert acknowledged[job] <= generated[job] <= tried[job], f"seed {seed}, round {number}"
            check_bound(path, bound)
    assert check_file(path).keys() == set(ledger_child.JOBS)
    hits["tokens"] = sum(acknowledged.values())
    hits["claims"] = len(bound)
    return hits


def is_made(path: Path) -> bool:
    """Whether the file has all its tables; a process killed while it made them leaves less, and the next one goes on."""
    if not path.exists():
        return False
    connection = apsw.Connection(str(path))
    version = connection.execute("PRAGMA user_version").get
    connection.close()
    return bool(version == len(MIGRATIONS))


def one_round(
    context: multiprocessing.context.BaseContext,
    path: Path,
    chance: random.Random,
    acknowledged: dict[int, int],
    tried: dict[int, int],
    bound: dict[int, bytes],
) -> str:
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=ledger_child.run, args=(str(path), chance.random(), told), daemon=True)  # type: ignore[attr-defined]
    process.start()
    told.close()
    last = "starting"
    kill_at = None
    delay = chance.choice((0.0, chance.uniform(0, 0.01), chance.uniform(0, 0.15)))
    waits_for_tokens = chance.random() < 0.6
    deadline = time.monotonic() + 30
    while True:
        now = time.monotonic()
        assert now < deadline, "the process counts no tokens"
        if kill_at is not None and now >= kill_at:
            break
        if not heard.poll(min(1.0, max(0.0, (kill_at or deadline) - now))):
            assert process.is_alive() or kill_at is None
            continue
        last = listen(heard, acknowledged, tried, bound) or last
        if kill_at is None and last == ("counted" if waits_for_tokens else "started"):
            kill_at = time.monotonic() + delay
    process.kill()
    process.join(30)
    assert process.exitcode == -9 or sys.platform == "win32"
    while (word := listen(heard, acknowledged, tried, bound)) is not None:
        last = word
    heard.close()
    return f"after {last}"


def listen(
    heard: Connection, acknowledged: dict[int, int], tried: dict[int, int], bound: dict[int, bytes]
) -> str | None:
    try:
        word, *facts = heard.recv()
    except (EOFError, OSError):
        return None
    if word == "tried":
        tried[facts[0]] += facts[1]
    elif word == "counted":
        assert facts[1] > acknowledged[facts[0]], "a total went back"
        acknowledged[facts[0]] = facts[1]
    elif word == "bound":
        assert facts[0] not in bound, "a nonce was given twice"
        bound[facts[0]] = facts[1]
    return str(word)


def check_bound(path: Path, bound: dict[int, bytes]) -> None:
    connection = apsw.Connection(str(path))
    stored = dict(
        connection.execute("SELECT s.nonce, a.tx_hash FROM slot s JOIN attempt a ON a.slot = s.id").fetchall()
    )
    connection.close()
    assert {nonce: stored.get(nonce) for nonce in bound} == bound, "an acknowledged transaction is gone"


@pytest.mark.timeout(120)
def test_no_acknowledged_token_or_transaction_is_lost_by_a_kill(tmp_path: Path) -> None:
    hits = kill_rounds(tmp_path / "ledger.db", 40, seed=random.randrange(2**32))
    assert hits["after started"], "some kills hit the opening"
    assert hits["after counted"] + hits["after tried"], "some kills hit the counting"
    assert hits["tokens"] > 100
    assert hits["claims"] > 3


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_acknowledged_token_or_transaction_is_lost_by_five_thousand_kills(tmp_path: Path) -> None:
    for part in range(50):  # a ledger for each hundred, so that checking stays quick
        hits = kill_rounds(tmp_path / f"{part}" / "ledger.db", 100, seed=random.randrange(2**32))
        assert hits["tokens"] > 100
