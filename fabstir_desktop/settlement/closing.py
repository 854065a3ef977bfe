"""When a session of a contract that pays at completion is closed by the host, and how. Pure, without IO.

A claim always comes before the end, for what is unproven then is never paid. But a session that went too long without a proof
takes none any more, and stays open until somebody closes it: what was proven in it must not wait for what cannot be.
"""

from __future__ import annotations

from enum import StrEnum

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.settlement.contracts.base import JobFacts

TIME_OUT_GRACE_S = 3600.0
"""A session with nothing proven pays the host nothing when it is timed out, but its customer pays a fee when he ends it himself:
so long after its time-out he is waited for."""


class Closing(StrEnum):
    """What is to be done about an open session that nobody uses any more."""

    WAIT = "wait"
    CLAIM = "claim"  # first what is unproven
    COMPLETE = "complete"
    TIME_OUT = "time_out"


def next_closing(facts: JobFacts, account: JobAccount, *, minimum_tokens: int, now: float) -> Closing:
    """The next step for an open session without a customer; `now` is the chain's time, in seconds since the epoch."""
    payable = min(account.claimable + account.reserved, facts.remaining_tokens)
    takes_proofs = facts.proof_deadline is None or now <= facts.proof_deadline
    if payable >= max(1, minimum_tokens, facts.first_claim_minimum) and takes_proofs:
        return Closing.CLAIM
    if account.proven > account.settled:
        return Closing.COMPLETE if now >= (facts.completable_at or 0.0) else Closing.WAIT
    if account.claimed > account.settled:
        return Closing.WAIT  # a claim is on its way
    return Closing.TIME_OUT if is_timed_out(facts, now=now - TIME_OUT_GRACE_S) else Closing.WAIT


def is_timed_out(facts: JobFacts, *, now: float) -> bool:
    """Whether anyone may close the session by its time-out."""
    return facts.deadline is not None and now > facts.deadline
