"""What became of each claim of a mined batch, and what follows for those that failed.

A failed claim of a batch that succeeded goes the way of a claim whose transaction was reverted, alone; the others are
proven with their block. Nothing is judged by the batch's status.
"""

from __future__ import annotations

import logging

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import Claim, ClaimState, MinedFact, Slot, SlotState
from fabstir_desktop.jobs.events import ClaimChanged, JobChanged, TransactionChanged
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.abi import revert_reason
from fabstir_desktop.settlement.agreement import agreeing
from fabstir_desktop.settlement.apart import Apart
from fabstir_desktop.settlement.batching import Verdict, calls_inside, order_of, read_results, verdict
from fabstir_desktop.settlement.board import ProblemBoard, reverted_problem
from fabstir_desktop.settlement.chain_client import BlockRef, ChainClient, Receipt
from fabstir_desktop.settlement.contracts.base import Refusal, RefusalKind, SettlementContract
from fabstir_desktop.settlement.verdicts import Verdicts
from fabstir_desktop.wallet.signer import read_payload

log = logging.getLogger(__name__)

WHOLE_REVERT = Refusal(RefusalKind.TOO_FAST, "the batch ran out of gas as a whole; its claims are made anew")
"""A batch that reverts has made no call: that says nothing about any of its claims."""
DEEP_ENOUGH = (SlotState.CONFIRMED, SlotState.FINAL)


def goes_to(slot: Slot) -> tuple[str, ...]:
    """The contracts that a stored transaction calls, lower case; none for one that only concerns the account itself."""
    to, calldata = read_payload(slot.attempts[0].raw)
    calls = calls_inside(slot.sender, to, calldata)
    return tuple(target.lower() for target, data in calls if data or target.lower() != slot.sender.lower())


class BatchJudge:
    """Judges batches of claims against one contract. Methods raise ChainError, LedgerError."""

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        contract: SettlementContract,
        board: ProblemBoard,
        feed: Feed,
        verdicts: Verdicts,
        apart: Apart,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._contract = contract
        self._board = board
        self._feed = feed
        self._verdicts = verdicts
        self._apart = apart

    async def outcomes(self, slot: Slot, receipt: Receipt) -> dict[int, bool]:
        """Whether each claim of the batch succeeded, by claim id, from a receipt that is part of the chain."""
        claims = [await self._ledger.claim(claim_id) for claim_id in slot.claim_ids]
        _to, calldata = read_payload(slot.attempts[0].raw)
        index_of = order_of(calldata, claims)
        results = read_results(receipt.logs, slot.sender)
        landed = {(seen.job_id, seen.proof_hash) for seen in self._contract.claims_in(receipt.logs)}
        is_ours = self._is_ours(slot)
        outcomes = {}
        for claim in claims:
            found = verdict(
                results.get(index_of[claim.claim_id]),
                has_event=(claim.job_id, claim.proof_hash) in landed,
                event_expected=is_ours and self._contract.has_claim_events,
            )
            outcomes[claim.claim_id] = await self._believe(found, claim)
        return outcomes

    async def _believe(self, found: Verdict, claim: Claim) -> bool:
        if found is Verdict.ASK:
            with agreeing():
                return await self._contract.is_proof_used(claim.host, claim.proof_hash) is not False
        return found is Verdict.SUCCEEDED

    async def settle_failures(self, sender: str, head: BlockRef) -> set[int]:
        """Hold, free or write off claims that failed in batches which are deep enough; returns their jobs."""
        jobs: set[int] = set()
        for slot in await self._ledger.slots_with_failures(sender):
            if slot.state in DEEP_ENOUGH and self._is_ours(slot):
                for claim_id in slot.failed_ids:
                    await self._apart.take(slot.nonce, self._settle(slot, claim_id, head, jobs))
        return jobs

    def _is_ours(self, slot: Slot) -> bool:
        """Whether its calls go to the contract that is set now, the only one that can be asked about them."""
        return set(goes_to(slot)) <= {self._contract.address.lower()}

    async def _settle(self, slot: Slot, claim_id: int, head: BlockRef, jobs: set[int]) -> None:
        """Adds the claim's job to `jobs` when it is settled."""
        claim = await self._ledger.claim(claim_id)
        refusal, outcome = await self._verdicts.follow(await self._reason(slot, claim), [claim])
        if not await self._verdicts.may_move_on(slot, [claim], outcome, refusal.kind, head):
            return
        note = f"reverted: {refusal.plain}"
        is_on_chain = refusal.kind is RefusalKind.REPLAYED
        await self._ledger.release_failed(
            slot.slot_id, claim.claim_id, note=note, outcome=outcome, is_on_chain=is_on_chain
        )
        log.error("Checkpoint failed for job %d - %s", claim.job_id, note)
        is_over = outcome is ClaimState.WRITTEN_OFF
        tell = self._board.report if is_over or is_on_chain else self._board.raise_
        tell(reverted_problem(claim.job_id, claim.tokens, refusal.plain, outcome, is_on_chain=is_on_chain))
        tx_hash = "0x" + (slot.mined_hash or slot.attempts[-1].tx_hash).hex()
        self._feed.publish(ClaimChanged(claim.job_id, claim.claim_id, claim.tokens, outcome, tx_hash, note))
        self._feed.publish(JobChanged(claim.job_id))
        self._feed.publish(TransactionChanged(slot.slot_id))
        jobs.add(claim.job_id)

    async def _reason(self, slot: Slot, claim: Claim) -> Refusal:
        """The contract's answer as the batch reports it; where it has none to give, the contract is asked anew."""
        receipt = await self._client.receipt(slot.mined_hash or b"")
        if receipt is not None:
            _to, calldata = read_payload(slot.attempts[0].raw)
            result = read_results(receipt.logs, slot.sender).get(order_of(calldata, [claim])[claim.claim_id])
            said = revert_reason(result.reason) if result is not None else None
            if said is not None:
                return self._contract.explain(said)
        return await self._verdicts.revert_reason(claim, slot)


def mined_fact(receipt: Receipt) -> MinedFact:
    """A receipt as the ledger keeps it."""
    return MinedFact(
        receipt.tx_hash,
        receipt.block_number,
        receipt.block_hash,
        receipt.succeeded,
        receipt.gas_used,
        receipt.fee_wei,
    )
