"""Whatever happens in whatever order: ranges stay disjoint, a nonce carries one batch, an event twice is an event once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import apsw
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from ledger_rules import check_rows
from ledger_support import HOST, attempt, bytes32, fact, memory_database, new_claim, payment

from fabstir_desktop.errors import LedgerRefused
from fabstir_desktop.jobs.claims import Claim, ClaimState, Slot, SlotState
from fabstir_desktop.jobs.policy import ClaimNow, ClaimPolicy, decide_claim
from fabstir_desktop.ledger import claims, payments, slots, tokens

DONE: Counter[str] = Counter()
"""How often each step was taken, so that a hunt that never met one is noticed."""

JOBS = st.integers(1, 3)
PICK = st.integers(0, 10**6)


class LedgerMachine(RuleBasedStateMachine):
    """Drives the ledger's own functions on one database, each in a savepoint as the writer does."""

    def __init__(self) -> None:
        super().__init__()
        self.db = memory_database()
        self.tickets: dict[int, int] = {}
        self.generated: dict[int, int] = {}
        self.block = 1
        self.nonce = 0
        self.serial = 0
        self.paid = False

    def teardown(self) -> None:
        self.db.close()

    def do(self, step: Callable[[], object], *, twice: bool = False) -> bool:
        """Run a step; a refusal changes nothing. `twice`: the same again changes nothing either."""
        before = self.rows()
        try:
            self.db.execute("SAVEPOINT step")
            step()
        except (LedgerRefused, apsw.ConstraintError):
            self.db.execute("ROLLBACK TO step; RELEASE step")
            assert self.rows() == before
            return False
        self.db.execute("RELEASE step")
        DONE[step.__code__.co_qualname.split(".")[1]] += self.rows() != before
        if twice:
            once = self.rows()
            step()
            assert self.rows() == once
        return True

    def rows(self) -> list[object]:
        tables = ("ticket", "token", "claim", "slot", "binding", "attempt", "payment", "venue")
        found: list[object] = [self.db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
        return [
            *found,
            self.db.execute("SELECT id, generated, claimed, proven, settled, reserved, next_start FROM job").fetchall(),
        ]

    def slot(self, pick: int, *states: SlotState) -> Slot | None:
        found = slots.read_slots(self.db, 84532, HOST, states)
        return found[pick % len(found)] if found else None

    def some_claim(self, pick: int, *states: ClaimState) -> Claim | None:
        found = claims.read_claims(self.db, 1, None, states, 1000)
        return found[pick % len(found)] if found else None

    def has_slot(self, *states: SlotState) -> bool:
        return self.slot(0, *states) is not None

    # --- tokens -----------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """Something to claim from the first step on."""
        for job in (1, 2, 3):
            self.count_tokens(job, 60)

    @rule(job=JOBS, count=st.integers(1, 60))
    def count_tokens(self, job: int, count: int) -> None:
        if job not in self.tickets:
            self.tickets[job] = tokens.open_ticket(self.db, 1, job, f"session-{job % 2}")
        ticket = self.tickets[job]
        total = tokens.count_tokens(self.db, ticket, range(count))
        self.generated[job] = self.generated.get(job, 0) + count
        assert total == self.generated[job]

    @precondition(lambda self: self.tickets)
    @rule(job=JOBS)
    def end_answer(self, job: int) -> None:
        ticket = self.tickets.pop(job, None)
        if ticket is not None:
            tokens.close_ticket(self.db, ticket, "stop")
            assert not self.do(lambda: tokens.count_tokens(self.db, ticket, [1]))

    # --- claims -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: claims.read_unclaimed(self.db, 1))
    @rule(job=JOBS, threshold=st.integers(1, 120), maximum=st.none() | st.integers(1, 80))
    def plan_by_policy(self, job: int, threshold: int, maximum: int | None) -> None:
        account = claims.read_account(self.db, 1, job)
        if account is None:
            return
        decision = decide_claim(account, ClaimPolicy(threshold, maximum_tokens=maximum))
        if isinstance(decision, ClaimNow):
            new = new_claim(job, decision.start, decision.end)
            assert self.do(lambda: claims.plan_claim(self.db, 1, new), twice=True), (
                "the policy plans what the ledger refuses"
            )

    @rule(job=JOBS, start=st.integers(0, 300), length=st.integers(1, 100))
    def plan_anything(self, job: int, start: int, length: int) -> None:
        self.do(lambda: claims.plan_claim(self.db, 1, new_claim(job, start, start + length)))

    @rule(pick=PICK, state=st.sampled_from(ClaimState))
    def move_any_claim(self, pick: int, state: ClaimState) -> None:
        claim = self.some_claim(pick)
        if claim is not None:
            self.do(lambda: claims.move_claim(self.db, claim.claim_id, state, "moved"))

    @precondition(lambda self: self.some_claim(0, ClaimState.PLANNED) is not None)
    @rule(picks=st.lists(PICK, min_size=1, max_size=3), reuse=st.booleans())
    def bind(self, picks: list[int], reuse: bool) -> None:
        chosen = {claim.claim_id for pick in picks if (claim := self.some_claim(pick, ClaimState.PLANNED))}
        if not chosen:
            return
        self.serial += 1
        nonce = max(0, self.nonce - 1) if reuse else self.nonce
        sent = attempt("bind", self.serial)
        if self.do(
            lambda: slots.bind(self.db, 84532, sorted(chosen), sender=HOST, nonce=nonce, attempt=sent, kind="claim")
        ):
            self.nonce = nonce + 1

    @precondition(lambda self: self.has_slot(SlotState.OPEN))
    @rule(pick=PICK)
    def bump(self, pick: int) -> None:
        slot = self.slot(pick)
        self.serial += 1
        sent = attempt("bump", self.serial)
        if slot is not None:
            done = self.do(lambda: slots.add_attempt(self.db, slot.slot_id, sent), twice=True)
            assert done == (slot.state is SlotState.OPEN)

    # --- the chain --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.has_slot(SlotState.OPEN))
    @rule(pick=PICK, which=PICK, succeeded=st.booleans(), fork=st.integers(0, 1))
    def include(self, pick: int, which: int, succeeded: bool, fork: int) -> None:
        slot = self.slot(pick, SlotState.OPEN, SlotState.INCLUDED, SlotState.CONFIRMED)
        if slot is not None:
            self.block += 1
            mined = fact(slot.attempts[which % len(slot.attempts)], self.block, succeeded=succeeded, fork=fork)
            assert self.do(lambda: slots.mark_included(self.db, slot.slot_id, mined), twice=True)

    @precondition(lambda self: self.has_slot(SlotState.INCLUDED))
    @rule(pick=PICK)
    def confirm(self, pick: int) -> None:
        if slot := self.slot(pick):
            done = self.do(lambda: slots.mark_confirmed(self.db, slot.slot_id), twice=True)
            assert done == (slot.state in (SlotState.INCLUDED, SlotState.CONFIRMED, SlotState.FINAL))

    @precondition(lambda self: self.has_slot(SlotState.CONFIRMED))
    @rule(pick=PICK)
    def finalise(self, pick: int) -> None:
        if slot := self.slot(pick):
            self.do(lambda: slots.mark_final(self.db, slot.slot_id), twice=True)

    @precondition(lambda self: self.has_slot(SlotState.INCLUDED, SlotState.CONFIRMED))
    @rule(pick=PICK)
    def reorganise(self, pick: int) -> None:
        if slot := self.slot(pick):
            done = self.do(lambda: slots.mark_reorged(self.db, slot.slot_id), twice=True)
            assert done == (slot.state in (SlotState.OPEN, SlotState.INCLUDED, SlotState.CONFIRMED))

    @precondition(lambda self: self.has_slot(SlotState.INCLUDED, SlotState.CONFIRMED))
    @rule(
        pick=PICK,
        outcome=st.sampled_from([ClaimState.VOID, ClaimState.HELD, ClaimState.WRITTEN_OFF, ClaimState.PLANNED]),
    )
    def void(self, pick: int, outcome: ClaimState) -> None:
        if slot := self.slot(pick):
            done = self.do(lambda: slots.void_reverted(self.db, slot.slot_id, "reverted", outcome), twice=False)
            assert not done or slot.succeeded is False or not slots._carried(self.db, slot.slot_id)

    @precondition(lambda self: self.has_slot(SlotState.OPEN))
    @rule(pick=PICK, state=st.sampled_from([SlotState.BURNED, SlotState.FOREIGN]))
    def free(self, pick: int, state: SlotState) -> None:
        if slot := self.slot(pick):
            done = self.do(lambda: slots.free_slot(self.db, slot.slot_id, state, "spent by another"))
            assert not done or slot.state in (SlotState.OPEN, state)

    @rule(job=JOBS, count=st.integers(1, 150))
    def find_foreign(self, job: int, count: int) -> None:
        self.serial += 1
        tx_hash = bytes32("foreign", self.serial)
        assert self.do(lambda: claims.record_foreign(self.db, 1, job, count, tx_hash, "elsewhere"), twice=True)
        account = claims.read_account(self.db, 1, job)
        assert account is not None
        assert account.generated >= self.generated.get(job, 0)
        self.generated[job] = account.generated

    @precondition(lambda self: self.has_slot(SlotState.INCLUDED, SlotState.CONFIRMED, SlotState.FINAL))
    @rule(pick=PICK)
    def pay(self, pick: int) -> None:
        slot = self.slot(pick, SlotState.INCLUDED, SlotState.CONFIRMED, SlotState.FINAL)
        if slot is None or not slot.succeeded:
            return
        paid = [
            payment(claims.read_claim(self.db, claim_id).job_id, attempt(), slot.block_number or 0, log_index=index)
            for index, claim_id in enumerate(slot.claim_ids)
        ]
        paid = [
            type(one)(one.job_id, slot.mined_hash, *[getattr(one, name) for name in one.__slots__[2:]]) for one in paid
        ]  # type: ignore[arg-type]
        assert self.do(lambda: payments.record_payments(self.db, 1, paid, self.block, bytes32(self.block)), twice=True)
        self.paid = True

    @precondition(lambda self: self.paid)
    @rule(block=st.integers(0, 20))
    def forget(self, block: int) -> None:
        assert self.do(lambda: payments.forget_payments_from(self.db, 1, block), twice=True)

    # --- always -----------------------------------------------------------------------------------------------------

    @invariant()
    def rows_agree(self) -> None:
        """Every count follows from the rows; ranges are disjoint; a nonce carries one batch."""
        generated = check_rows(self.db, thorough=False)
        assert {job: total for job, total in generated.items() if total} == {
            job: n for job, n in self.generated.items() if n
        }

    @invariant()
    def no_token_succeeded_twice(self) -> None:
        """Claims whose transaction stands on the chain cover each token once."""
        covered: dict[int, int] = {}
        rows = self.db.execute(
            "SELECT c.job, c.range_end - c.range_start FROM claim c JOIN binding b ON b.claim = c.id "
            "JOIN slot s ON s.id = b.slot WHERE b.released IS NULL AND s.succeeded = 1 UNION ALL "
            "SELECT job, range_end - range_start FROM claim WHERE kind = 'foreign'"
        )
        for job, count in rows:
            covered[job] = covered.get(job, 0) + count
        for job, generated in self.db.execute("SELECT id, generated FROM job"):
            assert covered.get(job, 0) <= generated


LedgerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedgerKeepsItsPromises = LedgerMachine.TestCase


def walk(seed: int, steps: int) -> None:
    """A long life with likely steps more often, which a search for small failures does not reach."""
    chance = random.Random(seed)
    machine = LedgerMachine()
    machine.begin()

    def pick() -> int:
        return chance.randrange(10**6)

    def job() -> int:
        return chance.randint(1, 3)

    def next_start() -> int:
        account = claims.read_account(machine.db, 1, 1)
        return account.next_start if account and chance.random() < 0.7 else chance.randrange(300)

    likely = {
        3: lambda: machine.count_tokens(job(), chance.randint(1, 60)),
        1: lambda: machine.end_answer(job()),
        4: lambda: machine.plan_by_policy(job(), chance.randint(1, 60), chance.choice((None, 50))),
        2: lambda: machine.plan_anything(job(), next_start(), chance.randint(1, 40)),
        5: lambda: machine.bind([pick()], reuse=chance.random() < 0.1),
        1.1: lambda: machine.bump(pick()),
        6: lambda: machine.include(pick(), pick(), succeeded=chance.random() < 0.7, fork=chance.randint(0, 1)),
        4.1: lambda: machine.confirm(pick()),
        0.5: lambda: machine.finalise(pick()),
        1.2: lambda: machine.reorganise(pick()),
        2.1: lambda: machine.void(
            pick(), chance.choice((ClaimState.VOID, ClaimState.VOID, ClaimState.HELD, ClaimState.PLANNED))
        ),
        1.4: lambda: machine.free(pick(), chance.choice((SlotState.BURNED, SlotState.FOREIGN))),
        1.3: lambda: machine.move_any_claim(pick(), chance.choice(list(ClaimState))),
        0.3: lambda: machine.find_foreign(job(), chance.randint(1, 150)),
        2.2: lambda: machine.pay(pick()),
        0.6: lambda: machine.forget(chance.randrange(machine.block + 1)),
    }
    actions = list(likely.items())
    for _ in range(steps):
        chance.choices([action for _weight, action in actions], [weight for weight, _action in actions])[0]()
        machine.rows_agree()
        machine.no_token_succeeded_twice()
    machine.teardown()


def test_long_lives_keep_the_promises_and_meet_every_step() -> None:
    DONE.clear()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for number in range(60):
        walk(seed + number, 100)
    steps = {"plan_by_policy", "plan_anything", "move_any_claim", "bind", "bump", "include", "confirm", "finalise"}
    steps |= {"reorganise", "void", "free", "find_foreign", "pay", "forget"}
    assert all(DONE[step] > 3 for step in steps), DONE


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_very_many_long_lives_keep_the_promises() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for number in range(20_000):
        walk(seed + number, 50)
