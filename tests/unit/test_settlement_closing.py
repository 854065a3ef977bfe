"""When a session is closed, and how long a reverted end rests: pure decisions, and the order of what is asked."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.settlement import completer as completing
from fabstir_desktop.settlement.closing import (
    TIME_OUT_GRACE_S,
    Closing,
    is_timed_out,
    next_closing,
)
from fabstir_desktop.settlement.completer import COMPLETE, Completer
from fabstir_desktop.settlement.contracts.base import JobFacts
from fabstir_desktop.settlement.resting import FIRST_REST_S, LONGEST_REST_S, rest_after_reverts_s

HOST = "0x" + "ab" * 20
CONTRACT = "0x" + "cd" * 20
MINIMUM = 100


@st.composite
def accounts(draw: st.DrawFn) -> JobAccount:
    settled = draw(st.integers(0, 300))
    proven = settled + draw(st.integers(0, 300))
    claimed = proven + draw(st.sampled_from([0, 0, 120]))
    reserved, free = draw(st.sampled_from([0, 0, 150])), draw(st.integers(0, 300))
    generated = claimed + reserved + free
    busy = int(claimed > proven) + int(reserved > 0)
    return JobAccount(1, "s", generated, claimed, proven, settled, 0, reserved, busy, claimed, False, 0.0)


@st.composite
def sessions(draw: st.DrawFn) -> JobFacts:
    proven_at, longest_end = draw(st.integers(0, 5_000)), draw(st.integers(0, 9_000))
    window_s, first = draw(st.integers(60, 3_600)), draw(st.sampled_from([0, 100, 500]))
    paid = draw(st.integers(0, 600))
    return JobFacts(
        1, HOST, 1, draw(st.integers(0, 1_500)), paid, is_open=True, first_claim_minimum=first,
        completable_at=proven_at + 35, deadline=min(longest_end, proven_at + window_s), proof_deadline=proven_at + window_s,
    )  # fmt: skip


@given(sessions(), accounts(), st.integers(0, 20_000))
def test_nothing_is_closed_that_can_be_claimed_and_nothing_that_pays_waits_for_ever(
    facts: JobFacts, account: JobAccount, now: int
) -> None:
    step = next_closing(facts, account, minimum_tokens=MINIMUM, now=now)
    payable = min(account.claimable + account.reserved, facts.remaining_tokens)
    can_be_claimed = payable >= max(MINIMUM, facts.first_claim_minimum) and now <= (facts.proof_deadline or 0)
    assert (step is Closing.CLAIM) == can_be_claimed
    owed = account.proven - account.settled
    if step is Closing.COMPLETE:
        assert owed > 0
        assert now >= (facts.completable_at or 0)
    if step is Closing.TIME_OUT:
        assert owed == 0, "a completion pays sooner"
        assert account.claimed == account.settled, "a claim is on its way"
        assert is_timed_out(facts, now=now - TIME_OUT_GRACE_S)
    for later in (facts.deadline, facts.proof_deadline, facts.completable_at):
        now = max(now, int(later or 0) + 1)
    ending = next_closing(facts, account, minimum_tokens=MINIMUM, now=now + TIME_OUT_GRACE_S)
    if owed:
        assert ending is Closing.COMPLETE
    elif account.claimed == account.settled:
        assert ending is Closing.TIME_OUT


@given(st.integers(0, 60))
def test_what_reverts_again_and_again_rests_longer_and_never_for_ever(reverts: int) -> None:
    rest_s = rest_after_reverts_s(reverts)
    assert 0 <= rest_s <= rest_after_reverts_s(reverts + 1) <= LONGEST_REST_S
    assert (rest_s == 0) == (reverts < 2)
    assert rest_s >= FIRST_REST_S * (reverts - 1) or rest_s == LONGEST_REST_S


class Chain:
    """A contract and an outbox that take everything, and count it."""

    address = CONTRACT
    sender = HOST

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def simulate(self, host: str, calldata: bytes) -> None:
        """It passes."""

    async def quote(self, to: str, calldata: bytes, *, reverts: int) -> None:
        """Any price."""

    async def bind(self, to: str, claims: object, quote: object, *, kind: str) -> Any:
        self.sent.append(kind)
        return SimpleNamespace(slot_id=1, attempts=(SimpleNamespace(tx_hash=bytes(32), raw=b"mine"),))

    async def send(self, slot: object) -> Any:
        return SimpleNamespace(answer="sent")


@pytest.mark.parametrize(
    ("reverts", "ago_s", "goes"), [(0, 0, True), (1, 0, True), (2, 30, False), (2, 61, True), (5, 1_000, False)]
)
async def test_a_completion_that_was_reverted_rests_by_what_the_ledger_knows(
    monkeypatch: pytest.MonkeyPatch, reverts: int, ago_s: int, goes: bool
) -> None:
    payloads = {b"mine": (CONTRACT, b"end 1"), b"other": (CONTRACT, b"end 2"), b"elsewhere": (HOST, b"end 1")}
    monkeypatch.setattr(completing, "read_payload", payloads.__getitem__)

    def slot(raw: bytes, created_at: float) -> Any:
        return SimpleNamespace(attempts=(SimpleNamespace(raw=raw),), created_at=created_at)

    now = time.time()
    known = [slot(b"mine", now - ago_s)] * reverts + [slot(b"other", now), slot(b"elsewhere", now)] * 5

    async def reverted_slots(sender: str, kind: str) -> list[Any]:
        assert (sender, kind) == (HOST, COMPLETE)
        return known

    chain = Chain()
    quiet: Any = SimpleNamespace(publish=lambda _: None)
    completer = Completer(
        cast("Any", SimpleNamespace(reverted_slots=reverted_slots)),
        cast("Any", None), cast("Any", chain), cast("Any", chain), quiet, quiet,
        has_session=lambda _: False, forfeit=cast("Any", None), last_try=cast("Any", None), poll_s=2.0,
    )  # fmt: skip
    wait_s = await completer._send(1, COMPLETE, b"end 1")
    assert chain.sent == [COMPLETE] * goes
    assert wait_s is not None
    if not goes:
        assert wait_s > 5
