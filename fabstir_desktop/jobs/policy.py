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
    holds_uneconomic: bool = False
    """Claims that earn less than their gas wait, unless the host asks for them or prompts wait for the proof."""
    exposure_tokens: int | None = None
    """So many unproven tokens a job may gather before its prompts wait: at half of it they are claimed, whatever the
    threshold is."""

    @property
    def due_tokens(self) -> int:
        """Unclaimed tokens at which a claim is due while tokens stream, beside what is kept back."""
        return due_threshold(self.threshold_tokens, self.exposure_tokens)


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


@dataclass(frozen=True, slots=True)
class ClaimWorth:
    """What a token earns and what the claim costs, both in the smallest unit of the same money."""

    price_per_token_wei: int
    cost_wei: int

    @property
    def tokens_that_pay(self) -> int:
        """The fewest tokens whose claim earns its gas; the price is above zero."""
        return -(-self.cost_wei // self.price_per_token_wei)


def hold_back(decision: ClaimNow, policy: ClaimPolicy, worth: ClaimWorth | None) -> ClaimLater | None:
    """Whether a claim that is due is held back because it would earn less than its gas; None: it is made.

    `worth` is None where it is not known, or gas and tokens are paid in different money: then it is made. Tokens of a claim
    that is held gather into a larger one.
    """
    if not policy.holds_uneconomic or worth is None or worth.price_per_token_wei <= 0:
        return None
    if decision.reason in (ClaimReason.FORCED, ClaimReason.EXPOSURE):
        return None
    tokens, enough = decision.end - decision.start, worth.tokens_that_pay
    if tokens >= enough:
        return None
    return ClaimLater(f"a claim of {tokens} tokens would earn less than its gas; with {enough} it pays")


def due_threshold(threshold_tokens: int, exposure_tokens: int | None) -> int:
    """The threshold, but no more than half of what may be unproven: a claim is due long before prompts have to wait."""
    return threshold_tokens if exposure_tokens is None else min(threshold_tokens, max(1, exposure_tokens // 2))


def is_deadline_due(now: float, deadline: float, window_s: float, margin_s: float) -> bool:
    """Whether unproven tokens are claimed because of their deadline: half of the time for it has passed, or little is left.

    `now` and `deadline` in seconds since the epoch, `window_s` is the whole time that the contract gives.
    """
    return deadline - now <= max(margin_s, window_s / 2)


def decide_claim(
    account: JobAccount, policy: ClaimPolicy, *, trigger: ClaimReason | None = None
) -> ClaimNow | ClaimLater:
    """Decide whether the job's unclaimed tokens are claimed now.

    `trigger` is None while tokens stream (the threshold and the exposure count); otherwise the event that asks for a claim of
    whatever is there, or of all but what is kept back (the deadline, for the session goes on). Never pads: below the
    contract's minimum nothing is claimed. What is kept back never stands in the way of a claim that is due otherwise: where
    the rest would be below the minimum, or prompts wait for the proof, everything is claimed.
    """
    if account.open_claims:
        return ClaimLater("one claim is already on its way", is_busy=True)
    available = account.claimable
    if available <= 0:
        return ClaimLater("nothing unclaimed")
    if available < policy.minimum_tokens:
        return ClaimLater(f"needs {policy.minimum_tokens} tokens, has {available}")
    # Where a void claim left a small gap, what lies behind it counts too: the gap must not hold the rest back.
    needed = max(policy.due_tokens, policy.minimum_tokens) + policy.keep_tokens
    # Where the next question, `due_tokens` further on, would come after prompts have begun to wait, this is the last one.
    is_exposed = policy.exposure_tokens is not None and account.uncovered + policy.due_tokens > policy.exposure_tokens
    if trigger is None and account.uncovered < needed and not is_exposed:
        return ClaimLater(f"{available} of {needed} tokens until the next checkpoint")
    kept = policy.keep_tokens if trigger in (None, ClaimReason.DEADLINE) and account.next_end is None else 0
    if available - kept >= max(1, policy.minimum_tokens):  # in a gap nothing is kept: what comes lies behind it
        available -= kept
    count = available if policy.maximum_tokens is None else min(available, policy.maximum_tokens)
    return ClaimNow(account.next_start, account.next_start + count, trigger or _reason(account, policy))


def _reason(account: JobAccount, policy: ClaimPolicy) -> ClaimReason:
    """The threshold, if it is reached; else too much was unproven."""
    full = max(policy.threshold_tokens, policy.minimum_tokens) + policy.keep_tokens
    return ClaimReason.THRESHOLD if account.uncovered >= full else ClaimReason.EXPOSURE
