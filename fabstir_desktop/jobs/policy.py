"""When to claim: one pure function.

A claim takes everything a job has unclaimed. While one of its claims is on the way, its tokens gather into the next: a
second claim in flight would gain nothing and doubles what an unclear answer puts in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import ClaimReason


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """The host's and the contract's rules. Token counts; `minimum_tokens` is the contract's."""

    threshold_tokens: int = 100
    minimum_tokens: int = 1
    maximum_tokens: int | None = None
    keep_tokens: int = 0
    """Left unclaimed while tokens stream, so that the last claim is not below a contract's minimum."""


@dataclass(frozen=True, slots=True)
class ClaimNow:
    """Claim `[start, end)` of the job."""

    start: int
    end: int
    reason: ClaimReason


@dataclass(frozen=True, slots=True)
class ClaimLater:
    """No claim now; `why` is shown to the host as it is."""

    why: str
    is_busy: bool = False
    """Another claim of the job is on its way: ask again when it is closed."""


def decide_claim(
    account: JobAccount, policy: ClaimPolicy, *, trigger: ClaimReason | None = None
) -> ClaimNow | ClaimLater:
    """Decide whether the job's unclaimed tokens are claimed now.

    `trigger` is None while tokens stream (only the threshold counts); otherwise the event that asks for a claim of whatever
    is there. Never pads: below the contract's minimum nothing is claimed.
    """
    if account.open_claims:
        return ClaimLater("one claim is already on its way", is_busy=True)
    available = account.claimable
    if available <= 0:
        return ClaimLater("nothing unclaimed")
    if available < policy.minimum_tokens:
        return ClaimLater(f"needs {policy.minimum_tokens} tokens, has {available}")
    # Where a void claim left a small gap, what lies behind it counts too: the gap must not hold the rest back.
    needed = max(policy.threshold_tokens, policy.minimum_tokens) + policy.keep_tokens
    if trigger is None and account.uncovered < needed:
        return ClaimLater(f"{available} of {needed} tokens until the next checkpoint")
    if trigger is None and account.next_end is None:  # in a gap nothing is kept: what comes lies behind it
        available -= policy.keep_tokens
    count = available if policy.maximum_tokens is None else min(available, policy.maximum_tokens)
    return ClaimNow(account.next_start, account.next_start + count, trigger or ClaimReason.THRESHOLD)
