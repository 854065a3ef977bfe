"""One claim, from unclaimed tokens to stored and sent bytes.

The order: read the job, prove, simulate, estimate, and only then fix the range (PLANNED) and take a nonce (BOUND). A
process that dies in between has either nothing to undo, or a planned claim that `resume` takes up with the same proof.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fabstir_desktop.errors import Bug, CallReverted
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import BATCH, Claim, ClaimReason, ClaimState, Slot
from fabstir_desktop.jobs.events import ClaimChanged, JobChanged, TransactionChanged
from fabstir_desktop.jobs.landed import LandedClaim
from fabstir_desktop.jobs.policy import ClaimLater, ClaimNow, ClaimPolicy, decide_claim, hold_back
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.agreement import agreeing
from fabstir_desktop.settlement.alerts import claim_worth, tell_margin
from fabstir_desktop.settlement.batching import batch_gas_limit
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.classifier import TAKEN
from fabstir_desktop.settlement.contracts.base import JobFacts, Refusal, RefusalKind, SettlementContract
from fabstir_desktop.settlement.fees import Quote
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.settlement.payable import most_payable
from fabstir_desktop.settlement.proof_store import ProofStore, SignedProof
from fabstir_desktop.settlement.resting import rest_after_reverts_s
from fabstir_desktop.settlement.verdicts import is_closed_for_good
from fabstir_desktop.wallet.batch_calls import BatchCall, encode_batch
from fabstir_desktop.wallet.signer import Signer

log = logging.getLogger(__name__)

RETRY_S: dict[RefusalKind, float] = {
    RefusalKind.TOO_FAST: 2.0,
    RefusalKind.PAUSED: 60.0,
    RefusalKind.UNKNOWN: 30.0,
    RefusalKind.BAD_PROOF: 300.0,
}
"""How long to wait before a refused claim is tried again; other refusals: `LONG_RETRY_S`."""
LONG_RETRY_S = 60.0
HELD_RETRY_S = 60.0
"""A claim that is held back for its gas is weighed again so often: it has grown by then, or gas is cheaper."""
NOTE_BEGINS = "not claimed:"


class ClaimRefused(ClaimWaits):
    """The contract would refuse the claim just now; `refusal` says why."""

    def __init__(self, refusal: Refusal, *, retry_s: float, problem: Problem) -> None:
        super().__init__(refusal.plain, retry_s=retry_s, problem=problem)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Submitted:
    """A claim that went out: `accepted` tells whether a node has surely taken it."""

    claim: Claim
    tx_hash: str
    accepted: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """A claim that is planned and may be signed; `reverts` is how often a transaction of it failed before."""

    claim: Claim
    quote: Quote
    reverts: int = 0


class Claimer:
    """Makes claims of one signer against one contract."""

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        contract: SettlementContract,
        signer: Signer,
        outbox: Outbox,
        proofs: ProofStore,
        board: ProblemBoard,
        feed: Feed,
        *,
        threshold_tokens: int,
        exposure_tokens: int | None = None,
        holds_uneconomic: bool = False,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._contract = contract
        self._signer = signer
        self._outbox = outbox
        self._proofs = proofs
        self._board = board
        self._feed = feed
        self._threshold_tokens = threshold_tokens
        self._exposure_tokens = exposure_tokens
        self._holds_uneconomic = holds_uneconomic

    @property
    def policy(self) -> ClaimPolicy:
        """The host's threshold and the contract's minimum."""
        minimum = self._contract.rules.minimum_tokens
        # Where small claims are refused, so much is kept back that the last claim of a session is large enough.
        kept = minimum if minimum > 1 else 0
        return ClaimPolicy(
            self._threshold_tokens,
            minimum,
            keep_tokens=kept,
            holds_uneconomic=self._holds_uneconomic,
            exposure_tokens=self._exposure_tokens,
        )

    async def claim(self, job_id: int, trigger: ClaimReason | None) -> Submitted | ClaimLater:
        """Claim what the job has, if it is time. Raises ClaimWaits, ChainError, LedgerError, SignerLocked."""
        prepared = await self.prepare(job_id, trigger)
        return prepared if isinstance(prepared, ClaimLater) else await self.send(prepared)

    async def resume(self, claim: Claim) -> Submitted | ClaimLater:
        """Bind and send a claim that is planned (or held, and its cause may be gone). Raises like `claim`."""
        prepared = await self.prepare_again(claim)
        return prepared if isinstance(prepared, ClaimLater) else await self.send(prepared)

    async def prepare(self, job_id: int, trigger: ClaimReason | None) -> Prepared | ClaimLater:
        """Plan a claim of what the job has, if it is time, up to the moment before it gets a nonce. Raises like `claim`."""
        account = await self._ledger.account(job_id)
        if account is None:
            return ClaimLater("the job has no tokens")
        decision = decide_claim(account, self.policy, trigger=trigger)
        if isinstance(decision, ClaimLater):
            return decision
        facts = await self._contract.read_job(job_id)
        if facts is not None:
            decision = await self._fit(account, decision, facts)
            if isinstance(decision, ClaimLater):
                return decision
        return await self._make(job_id, decision, facts)

    async def prepare_again(self, claim: Claim) -> Prepared | ClaimLater:
        """The same for a claim that is planned, or held. Raises like `claim`."""
        if claim.host.lower() != self._signer.address.lower():
            await self._ledger.move_claim(claim.claim_id, ClaimState.VOID, "planned with another key")
            raise ClaimWaits("it was planned with another key and is planned anew", retry_s=0.0)
        try:
            quote, reverts = await self._price(claim.job_id, claim.start, claim.calldata)
        except ClaimRefused as refused:
            later = await self._let_go(claim, refused.refusal)
            if later is None:
                raise
            return later
        if claim.state is ClaimState.HELD:
            await self._ledger.move_claim(claim.claim_id, ClaimState.PLANNED)
        return Prepared(claim, quote, reverts)

    async def _make(self, job_id: int, decision: ClaimNow, facts: JobFacts | None) -> Prepared:
        made = await self._proofs.make(job_id, decision.start, decision.end, self._signer)
        tokens = decision.end - decision.start
        calldata = self._contract.encode_claim(job_id, tokens, made.proof)
        try:
            quote, reverts = await self._price(job_id, decision.start, calldata)
        except ClaimRefused as refused:
            if refused.refusal.kind is RefusalKind.REPLAYED:
                await self._note_landed(job_id, tokens, made.record.proof_hash)
            covered = await self._covered(job_id, tokens, refused.refusal)
            if covered == 0:
                raise
            return await self._make(job_id, replace(decision, end=decision.start + covered), facts)
        await self._weigh(job_id, decision, facts, quote)
        return Prepared(await self._plan(job_id, decision, made), quote, reverts)

    async def _weigh(self, job_id: int, decision: ClaimNow, facts: JobFacts | None, quote: Quote) -> None:
        """Say where a claim earns less than its gas. Raises ClaimWaits where the host wants such claims held back."""
        worth = claim_worth(facts, quote)
        held = hold_back(decision, self.policy, worth)
        # What is left at the end is claimed however little it is: of that nothing is said, unless it is held.
        if held is not None or decision.reason in (ClaimReason.THRESHOLD, ClaimReason.EXPOSURE):
            tell_margin(self._board, job_id, worth, decision.end - decision.start)
        if held is not None:
            await self._note(job_id, f"{NOTE_BEGINS} {held.why}")
            raise ClaimWaits(held.why, retry_s=HELD_RETRY_S)

    async def _covered(self, job_id: int, tokens: int, refusal: Refusal) -> int:
        """For a contract that cannot be asked: how many of the tokens its deposit still covers, if that is the cause."""
        if refusal.kind is not RefusalKind.DEPOSIT or self._contract.has_jobs or tokens <= 1:
            return 0
        found = await most_payable(self._contract, self._signer, job_id, tokens - 1)
        return found if found >= max(1, self.policy.minimum_tokens) else 0

    async def _plan(self, job_id: int, decision: ClaimNow, made: SignedProof) -> Claim:
        calldata = self._contract.encode_claim(job_id, decision.end - decision.start, made.proof)
        claim = await self._ledger.plan_claim(
            job_id,
            decision.start,
            decision.end,
            reason=decision.reason,
            host=self._signer.address,
            record=made.record.record,
            proof_hash=made.record.proof_hash,
            proof=made.proof,
            calldata=calldata,
        )
        self._feed.publish(ClaimChanged(job_id, claim.claim_id, claim.tokens, claim.state, None, ""))
        return claim

    async def _price(self, job_id: int, start: int, calldata: bytes) -> tuple[Quote, int]:
        """Simulate and quote: both refuse a claim that would revert before it owns a nonce. Raises ClaimRefused.

        Also tells how often the claim was reverted before.
        """
        reverts = await self._rest_after_reverts(job_id, start)
        try:
            _, quote = await asyncio.gather(
                self._contract.simulate(self._signer.address, calldata),
                self._outbox.quote(self._contract.address, calldata, reverts=reverts),
            )
        except CallReverted as error:
            raise await self._refused(job_id, self._contract.explain(error.reason)) from None
        self._board.clear("T02", "C05", subject=str(job_id))
        await self._note(job_id, "")
        return quote, reverts

    async def _rest_after_reverts(self, job_id: int, start: int) -> int:
        """How often the claim was reverted though its simulation had passed. Raises ClaimWaits while it rests: each
        revert costs gas, and what the simulation cannot see may never change."""
        reverts, last_at = await self._ledger.reverts(job_id, start)
        rest_s = rest_after_reverts_s(reverts)
        left_s = min(rest_s, last_at + rest_s - time.time())
        if left_s > 0:
            why = f"its transaction was reverted {reverts} times though a trial passed; it is tried again later"
            raise ClaimWaits(why, retry_s=left_s)
        return reverts

    async def _let_go(self, claim: Claim, refusal: Refusal) -> ClaimLater | None:
        """A claim without a nonce that can never be made as it is gives its tokens free, or up; None: it may be yet.

        Raises ClaimWaits where the job's tokens are to be planned anew.
        """
        if refusal.kind is RefusalKind.CLOSED and await is_closed_for_good(self._client, self._contract, claim.job_id):
            return await self._give_up(claim, refusal)
        if refusal.kind is RefusalKind.DEPOSIT:
            await self._ledger.move_claim(claim.claim_id, ClaimState.VOID, refusal.plain)
            raise ClaimWaits("the deposit covers less by now; it is planned anew", retry_s=0.0)
        if refusal.kind is RefusalKind.REPLAYED and await self._has_landed(claim.proof_hash):
            log.warning("Job %d: a claim of %d tokens is already on chain", claim.job_id, claim.tokens)
            note, proof = "already on chain with the same proof", claim.proof_hash
            await self._ledger.absorb(
                LandedClaim(claim.job_id, claim.tokens, proof, proof, note, claim.end, is_exact=True)
            )
            raise ClaimWaits("it is on chain already; what is left is planned anew", retry_s=0.0)
        return None

    async def send(self, prepared: Prepared) -> Submitted:
        """Give a claim its nonce and send it. Raises like `claim`; then it stays planned."""
        claim, quote = prepared.claim, prepared.quote
        if quote.calldata != claim.calldata:
            raise Bug(f"claim {claim.claim_id} would be sent with other calldata than was stored")
        slot = await self._outbox.bind(self._contract.address, [claim], quote)
        return (await self._send_slot(slot, [claim]))[0]

    async def send_together(self, batch: Sequence[Prepared]) -> list[Submitted]:
        """Give several claims one nonce, as calls that the host's account makes to the contract, in their order.

        Raises like `claim`; then they all stay planned.
        """
        claims = [prepared.claim for prepared in batch]
        calls = [BatchCall(self._contract.address, one.quote.gas_limit, one.claim.calldata) for one in batch]
        calldata = encode_batch(calls)
        quote = await self._outbox.price(calldata, batch_gas_limit(calls, calldata))
        slot = await self._outbox.bind(self._outbox.sender, claims, quote, kind=BATCH)
        return await self._send_slot(slot, claims)

    async def _send_slot(self, slot: Slot, claims: Sequence[Claim]) -> list[Submitted]:
        tx_hash = "0x" + slot.attempts[-1].tx_hash.hex()
        accepted = (await self._outbox.send(slot)).answer in TAKEN
        for claim in claims:
            self.announce_sent(claim, slot, accepted)
        return [Submitted(claim, tx_hash, accepted) for claim in claims]

    def announce_sent(self, claim: Claim, slot: Slot, accepted: bool) -> None:
        """Log and publish that a claim is out, or signed and waiting for a node to take it."""
        tx_hash = "0x" + slot.attempts[-1].tx_hash.hex()
        note = ""
        if accepted:
            log.info("Checkpoint submitted successfully for job %d - tx_hash: %s", claim.job_id, tx_hash)
        else:
            note = "signed and stored; no node has confirmed that it took it"
            log.warning(
                "Checkpoint for job %d is signed and stored, but no node took it yet; it is sent again", claim.job_id
            )
        self._feed.publish(ClaimChanged(claim.job_id, claim.claim_id, claim.tokens, ClaimState.BOUND, tx_hash, note))
        self._feed.publish(TransactionChanged(slot.slot_id))

    async def _fit(self, account: JobAccount, decision: ClaimNow, facts: JobFacts) -> ClaimNow | ClaimLater:
        """Cut the claim to what the contract can pay. Raises ClaimWaits where it would be refused."""
        job_id = account.job_id
        if not facts.exists:
            raise await self._refused(job_id, Refusal(RefusalKind.UNKNOWN_JOB, "the contract does not know this job"))
        if facts.host.lower() != self._signer.address.lower():
            text = f"the job belongs to host {facts.host}, your key's address is {self._signer.address}"
            raise await self._refused(job_id, Refusal(RefusalKind.NOT_OURS, text))
        if not facts.is_open:
            refusal = Refusal(RefusalKind.CLOSED, "the job was already ended")
            if await is_closed_for_good(self._client, self._contract, job_id):
                return await self._write_off(job_id, decision, refusal)
            raise await self._refused(job_id, refusal)
        tokens = min(decision.end - decision.start, facts.remaining_tokens)
        if tokens < facts.first_claim_minimum <= min(account.claimable, facts.remaining_tokens):
            tokens = facts.first_claim_minimum  # nothing is kept back of what makes the session payable at all
        if tokens < facts.first_claim_minimum:
            await self._note(
                job_id,
                f"{NOTE_BEGINS} {min(account.claimable, facts.remaining_tokens)} of {facts.first_claim_minimum} tokens until "
                "this session can be paid at all",
            )
            return ClaimLater(
                f"the first claim of this job needs {facts.first_claim_minimum} tokens, there are {tokens}"
            )
        if tokens < max(1, self.policy.minimum_tokens):
            text = f"the deposit is used up; {account.claimable} tokens are not covered"
            raise await self._refused(job_id, Refusal(RefusalKind.DEPOSIT, text))
        return ClaimNow(decision.start, decision.start + tokens, decision.reason)

    async def forfeit(self, job_id: int, why: str) -> int:
        """Write off what an ended job has unclaimed, too little for a claim or too late, once its end cannot be reorganised
        away; returns how many tokens that were. Raises ChainError, LedgerError, SignerLocked."""
        account = await self._ledger.account(job_id)
        if account is None or account.open_claims or account.claimable <= 0:
            return 0
        if not await is_closed_for_good(self._client, self._contract, job_id):
            return 0
        start, end = account.next_start, account.next_start + account.claimable
        made = await self._proofs.make(job_id, start, end, self._signer)
        claim = await self._plan(job_id, ClaimNow(start, end, ClaimReason.SESSION_END), made)
        unverified = "" if self._client.pool.is_verified else " (unverified: one RPC)"
        await self._ledger.move_claim(claim.claim_id, ClaimState.WRITTEN_OFF, f"{why}{unverified}")
        return claim.tokens

    async def _write_off(self, job_id: int, decision: ClaimNow, refusal: Refusal) -> ClaimLater:
        """Say for good that the tokens cannot be paid, and why; they are not tried again."""
        made = await self._proofs.make(job_id, decision.start, decision.end, self._signer)
        return await self._give_up(await self._plan(job_id, decision, made), refusal)

    async def _give_up(self, claim: Claim, refusal: Refusal) -> ClaimLater:
        job_id = claim.job_id
        unverified = "" if self._client.pool.is_verified else " (unverified: one RPC)"
        note = f"{claim.tokens} tokens cannot be paid: {refusal.plain} before they were claimed{unverified}"
        await self._ledger.move_claim(claim.claim_id, ClaimState.WRITTEN_OFF, note)
        await self._ledger.note_job(job_id, note)
        self._board.report(problem("T02", f"Job {job_id}: {note}.", subject=str(job_id)))
        self._feed.publish(ClaimChanged(job_id, claim.claim_id, claim.tokens, ClaimState.WRITTEN_OFF, None, note))
        return ClaimLater(note)

    async def _refused(self, job_id: int, refusal: Refusal) -> ClaimRefused:
        """Tell the host, once, why a job cannot be claimed; the tokens stay in the ledger."""
        await self._note(job_id, f"{NOTE_BEGINS} {refusal.plain}")
        told = problem(
            "C05" if refusal.kind is RefusalKind.PAUSED else "T02",
            f"Job {job_id} cannot be claimed: {refusal.plain}. Its tokens stay in the ledger.",
            subject=str(job_id),
            advice="Check that your key is the job's host." if refusal.kind is RefusalKind.NOT_OURS else "",
        )
        return ClaimRefused(refusal, retry_s=RETRY_S.get(refusal.kind, LONG_RETRY_S), problem=told)

    async def _note(self, job_id: int, note: str) -> None:
        """Change the job's remark, if it is one about claiming."""
        view = await self._ledger.job_view(job_id)
        if view is None or view.note == note or (not note and not view.note.startswith(NOTE_BEGINS)):
            return
        await self._ledger.note_job(job_id, note)
        self._feed.publish(JobChanged(job_id))

    async def _note_landed(self, job_id: int, tokens: int, proof_hash: bytes) -> None:
        """The contract has this very proof: the claim landed without this ledger knowing; its tokens are paid."""
        if not await self._has_landed(proof_hash):
            return
        note = "already on chain with the same proof"
        log.warning("Job %d: a claim of %d tokens is %s; it is not made again", job_id, tokens, note)
        await self._ledger.record_foreign(job_id, tokens, proof_hash, note, proof_hash=proof_hash)

    async def _has_landed(self, proof_hash: bytes) -> bool:
        """Whether the contract says that it has the proof; one that cannot be asked says nothing, see `history`."""
        with agreeing():
            return await self._contract.is_proof_used(self._signer.address, proof_hash) is True
