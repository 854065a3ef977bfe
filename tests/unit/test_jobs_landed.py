"""Claims of a lost history meet the ledger of an old backup: nothing is claimed twice, nothing that was made since is lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_rules import check_rows
from ledger_support import bytes32, memory_database, new_claim

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.landed import LandedClaim, missing_nonces, own_tokens_begin
from fabstir_desktop.ledger import claims, recovery, tokens

SIZES = st.integers(1, 60)


def account_of(db: object) -> JobAccount:
    account = claims.read_account(db, 1, 7)  # type: ignore[arg-type]
    assert account is not None
    return account


@settings(max_examples=300, deadline=None)
@given(
    before=SIZES,
    lost=st.integers(0, 60),
    cuts=st.sets(st.integers(1, 119)),
    claimed=st.integers(0, 120),
    since=st.integers(0, 60),
    planned=st.booleans(),
    foreign=st.lists(SIZES, max_size=2),
)
# long: one story from the backup to the end
def test_no_token_of_a_lost_history_is_claimed_twice_and_none_made_since_is_lost(
    before: int,
    lost: int,
    cuts: set[int],
    claimed: int,
    since: int,
    planned: bool,
    foreign: list[int],
) -> None:
    db = memory_database()
    ticket = tokens.open_ticket(db, 1, 7, "session")
    tokens.count_tokens(db, ticket, range(before))
    if since:
        tokens.count_tokens(db, ticket, range(since))
    if planned:
        claims.plan_claim(db, 1, new_claim(7, 0, before))
    end = min(claimed, before + lost)
    edges = [0, *sorted(cut for cut in cuts if cut < end), end]
    history = [(start, stop) for start, stop in pairwise(edges) if stop > start]
    for number, (start, stop) in enumerate(history):
        account = replace(account_of(db), next_start=0 if planned and number == 0 else account_of(db).next_start)
        is_exact = stop <= before  # the ledger has these very tokens, and their proof
        own_from = own_tokens_begin(account, stop - start, at_opening=before, is_exact=is_exact)
        landed = LandedClaim(7, stop - start, bytes32(number), bytes32("tx", number), "lost", own_from)
        for _ in range(2):
            recovery.absorb(db, 1, landed)
        check_rows(db, thorough=False)
    covered = {
        place
        for start, stop in db.execute("SELECT range_start, range_end FROM claim WHERE state = 'final'")
        for place in range(start, stop)
    }
    assert set(range(min(end, before))) <= covered, "a token that was paid can be claimed again"
    assert not covered & set(range(before, before + since)), "a token made since is taken for paid"
    own = before + since - min(end, before)
    assert account_of(db).uncovered + account_of(db).reserved == own
    for tokens_elsewhere in foreign:  # told by a total, after all that was read
        account = account_of(db)
        begin = own_tokens_begin(account, tokens_elsewhere, at_opening=before, is_exact=False)
        assert account.next_start <= begin <= max(account.generated, account.next_start)


@given(
    next_start=st.integers(0, 300),
    more=st.integers(0, 300),
    at_opening=st.integers(0, 600),
    count=SIZES,
    minimum=st.integers(1, 100),
    is_exact=st.booleans(),
)
def test_a_gap_that_could_never_be_claimed_is_not_left(
    next_start: int, more: int, at_opening: int, count: int, minimum: int, is_exact: bool
) -> None:
    account = JobAccount(7, "", next_start + more, 0, 0, 0, 0, 0, 0, next_start, False, 0.0)
    begin = own_tokens_begin(account, count, at_opening=at_opening, is_exact=is_exact, minimum_tokens=minimum)
    if is_exact:
        assert begin == next_start + count
    else:
        assert begin >= min(at_opening, account.generated), "a token that may be paid is claimed again"
        assert begin == account.generated or account.generated - begin >= minimum


@given(known=st.sets(st.integers(0, 40)), below=st.integers(0, 45))
def test_missing_nonces_are_those_below_the_count_that_nobody_knows(known: set[int], below: int) -> None:
    ranges = missing_nonces(sorted(known), below)
    found = [nonce for one in ranges for nonce in one]
    assert found == sorted(set(range(below)) - known)
    assert all(one.stop < other.start for one, other in pairwise(ranges)), "each as one range"
