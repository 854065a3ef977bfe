"""What settlement sees coming, said before it costs money: waiting transactions, deadlines, deposits, claims that do not pay.

Judged from facts that others have read; nothing here asks the chain.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import Slot
from fabstir_desktop.jobs.policy import ClaimWorth
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.contracts.base import JobFacts
from fabstir_desktop.settlement.fees import Quote

LATE_AFTER_S = 120.0
"""A transaction that is in no block after this long is said; on Base one takes seconds."""
DEADLINE_WARNING_S = 900.0
LOW_HEADROOM_TOKENS = 100
OLD_HEAD_S = 60.0
GAS_MONEY = "ETH"


async def tell_late(board: ProblemBoard, ledger: Ledger, open_slots: Iterable[Slot], now: float | None = None) -> None:
    """T01 for each slot that waits longer than is usual, and no others; the subject is its newest transaction's hash.

    `now` in seconds since the epoch. Raises LedgerError.
    """
    now = time.time() if now is None else now
    subjects = set()
    for slot in open_slots:
        if now - slot.created_at <= LATE_AFTER_S:
            continue
        subject = "0x" + slot.attempts[-1].tx_hash.hex()
        subjects.add(subject)
        jobs = ", ".join([str((await ledger.claim(claim_id)).job_id) for claim_id in slot.claim_ids])
        what = f"The claim for job {jobs}" if jobs else f"The transaction with nonce {slot.nonce}"
        minutes = round((now - slot.created_at) / 60)
        board.raise_(problem("T01", f"{what} waits {minutes} minutes for a block.", subject=subject))
    board.keep("T01", subjects)


def tell_deadlines(board: ProblemBoard, near: Iterable[tuple[JobAccount, float]], now: float) -> None:
    """J02 for jobs whose unclaimed tokens are lost soon, and no others. Times in seconds since the epoch."""
    subjects = set()
    for account, deadline in near:
        if deadline - now < DEADLINE_WARNING_S:
            clock = time.strftime("%H:%M", time.localtime(deadline))
            subjects.add(str(account.job_id))
            message = f"Job {account.job_id}: {account.claimable} tokens must be claimed before {clock}, or they cannot be paid."
            board.raise_(problem("J02", message, subject=str(account.job_id)))
    board.keep("J02", subjects)


def tell_headroom(board: ProblemBoard, job_id: int, left_tokens: int) -> None:
    """J01 where the deposit covers little more."""
    if left_tokens >= LOW_HEADROOM_TOKENS:
        board.clear("J01", subject=str(job_id))
        return
    covers = f"{left_tokens} more tokens; generation will stop" if left_tokens > 0 else "no further token"
    board.report(problem("J01", f"Job {job_id}: its deposit covers {covers}.", subject=str(job_id)))


def claim_worth(facts: JobFacts | None, quote: Quote) -> ClaimWorth | None:
    """What the job's tokens earn and their claim costs; None where it is not known. Only ETH can be weighed against gas."""
    if facts is None or facts.token != GAS_MONEY or facts.price_per_token_wei <= 0:
        return None
    return ClaimWorth(facts.price_per_token_wei, quote.likely_cost_wei)


def tell_margin(board: ProblemBoard, job_id: int, worth: ClaimWorth | None, tokens: int) -> None:
    """G04 where a claim of so many tokens earns less than its gas."""
    if worth is None:
        return
    if tokens >= worth.tokens_that_pay:
        board.clear("G04", subject=str(job_id))
        return
    enough = -(-2 * worth.cost_wei // worth.price_per_token_wei)
    message = f"Job {job_id}: at {tokens} tokens a claim earns less than its gas."
    advice = f"Claim every {enough} tokens: then gas costs at most half of what is earned."
    board.report(problem("G04", message, subject=str(job_id), advice=advice))


def tell_head_age(board: ProblemBoard, age_s: float, rpc: str) -> None:
    """C04 where the newest block that the RPC knows is old: it lags, or the chain stands still."""
    if age_s <= OLD_HEAD_S:
        board.clear("C04")
        return
    span = f"{round(age_s)} s" if age_s < 120 else f"{round(age_s / 60)} minutes"
    board.raise_(problem("C04", f"Chain data is {span} old.", advice=f"{rpc} lags behind, or the chain stands still."))


def tell_limits(board: ProblemBoard, limited: Sequence[str], active: str) -> None:
    """C03 where an RPC limits requests and another answers instead, or the same later."""
    if not limited:
        board.clear("C03")
        return
    others = active not in limited
    then = f"{active} is asked instead" if others else "it is asked less often"
    board.raise_(problem("C03", f"The RPC {', '.join(limited)} limits requests; {then}."))
