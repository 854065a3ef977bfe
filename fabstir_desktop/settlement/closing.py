"""When a session of a contract that pays at completion is closed by the host, and how. Decisions are pure, without IO.

A claim always comes before the end, for what is unproven then is never paid. But a session that went too long without a proof
takes none any more, and stays open until somebody closes it: what was proven in it must not wait for what cannot be.
"""

from __future__ import annotations

from enum import StrEnum

from fabstir_desktop.errors import CallReverted
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import WAITING_STATES
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.contracts.base import JobFacts, RefusalKind, SettlementContract
from fabstir_desktop.settlement.proof_store import ProofStore
from fabstir_desktop.wallet.signer import Signer

TIME_OUT_GRACE_S = 3600.0
"""A session with nothing proven pays the host nothing when it is timed out, but its customer pays a fee when he ends it himself:
so long after its time-out he is waited for."""
FREE_RETRIES = 1
FIRST_REST_S = 60.0
LONGEST_REST_S = 6 * 3600.0
"""What was reverted is sent again at once; after each further revert it rests four times as long, for it costs gas."""


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


def rest_after_reverts_s(reverts: int) -> float:
    """How long what was reverted so often rests since it was last made, in seconds."""
    if reverts <= FREE_RETRIES:
        return 0.0
    return min(LONGEST_REST_S, FIRST_REST_S * 4.0 ** min(reverts - FREE_RETRIES - 1, 10))


class LastTry:
    """Asks the contract whether what is unproven in a job can still be claimed, before its session is closed."""

    def __init__(self, ledger: Ledger, contract: SettlementContract, proofs: ProofStore, signer: Signer) -> None:
        self._ledger = ledger
        self._contract = contract
        self._proofs = proofs
        self._signer = signer

    async def may_be_claimed(self, account: JobAccount, facts: JobFacts) -> bool:
        """Whether the contract would take a claim, or refuses it for a cause that may pass.

        Raises ChainError, LedgerError, SignerLocked.
        """
        for claim in await self._ledger.claims(job_id=account.job_id, states=WAITING_STATES):
            return await self._is_taken(claim.calldata)
        tokens = min(account.claimable, facts.remaining_tokens)
        if tokens < max(1, self._contract.rules.minimum_tokens, facts.first_claim_minimum):
            return False
        start = account.next_start
        made = await self._proofs.make(account.job_id, start, start + tokens, self._signer)
        return await self._is_taken(self._contract.encode_claim(account.job_id, tokens, made.proof))

    async def _is_taken(self, calldata: bytes) -> bool:
        try:
            await self._contract.simulate(self._signer.address, calldata)
        except CallReverted as error:
            return self._contract.explain(error.reason).kind is not RefusalKind.CLOSED
        return True
