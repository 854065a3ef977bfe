"""What became of what was sent: receipts, reorganisations, lost and foreign transactions.

Silence is never evidence. A null receipt, an unknown hash, an error or a time-out moves nothing; the answer to all of
them is to send the stored bytes again. A nonce is freed only when the transaction that spent it is found in a block that
cannot be reorganised, is none of ours, and no endpoint has a receipt of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from fabstir_desktop.errors import ChainError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import BATCH, DELEGATION, DEPLOYMENT, Claim, ClaimState, Payment, Slot, SlotState
from fabstir_desktop.jobs.events import ClaimChanged, JobChanged, TransactionChanged
from fabstir_desktop.jobs.landed import LandedClaim
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.alerts import tell_late
from fabstir_desktop.settlement.apart import Apart
from fabstir_desktop.settlement.attribution import Attribution
from fabstir_desktop.settlement.batch_judge import WHOLE_REVERT, BatchJudge, goes_to, mined_fact
from fabstir_desktop.settlement.board import ProblemBoard, reverted_problem, silent_endpoint_problem
from fabstir_desktop.settlement.chain_client import BlockRef, ChainClient, Receipt
from fabstir_desktop.settlement.contracts.base import RefusalKind, SettlementContract
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.settlement.payments import own_payments
from fabstir_desktop.settlement.spenders import SpenderReader
from fabstir_desktop.settlement.spent_nonces import GapWatch, is_spent_everywhere, spender_in, spending_block
from fabstir_desktop.settlement.verdicts import Verdicts

log = logging.getLogger(__name__)

PARALLEL_READS = 16
ERRANDS = (DELEGATION, DEPLOYMENT)
"""Transactions that concern the account itself: no contract has anything to judge in them."""


@dataclass(slots=True)
class Progress:
    """What one look at the chain changed. `jobs` may have more to claim now."""

    head: BlockRef | None = None
    jobs: set[int] = field(default_factory=set)
    confirmed: list[tuple[Claim, str, tuple[Payment, ...]]] = field(default_factory=list)
    paid: list[Payment] = field(default_factory=list)
    """What the receipts of this pass say was paid."""
    open_slots: int = 0
    unproven_slots: int = 0


class Reconciler:
    """Compares one sender's slots with the chain."""

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        contract: SettlementContract,
        outbox: Outbox,
        board: ProblemBoard,
        feed: Feed,
        attribution: Attribution,
        *,
        confirmations: int,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._contract = contract
        self._outbox = outbox
        self._board = board
        self._feed = feed
        self._spenders = SpenderReader(client, contract, attribution, outbox.sender)
        self._confirmations = confirmations
        self._verdicts = Verdicts(client, contract)
        self._apart = Apart(board)
        self._batches = BatchJudge(ledger, client, contract, board, feed, self._verdicts, self._apart)
        self._reads = asyncio.Semaphore(PARALLEL_READS)
        self._gaps = GapWatch()
        self._progress = Progress()
        """What was found and not yet handed over."""

    async def look(self, *, finality: bool = False) -> Progress:
        """One pass over every slot that can still change. Raises ChainError, LedgerError.

        Each finding is stored as it is made; what a pass found before it failed is in the next one's answer.
        """
        progress = self._progress
        await self._pass_over(progress, finality=finality)
        self._progress = Progress()
        return progress

    async def _pass_over(self, progress: Progress, *, finality: bool) -> None:
        progress.head, progress.open_slots, progress.unproven_slots = None, 0, 0
        slots = await self._ledger.slots(self._outbox.sender, [SlotState.OPEN, SlotState.INCLUDED, SlotState.CONFIRMED])
        if not slots:
            return
        head = progress.head = await self._client.head()
        slots = await self._undo_reorganised(slots, head, progress)
        open_slots = [slot for slot in slots if slot.state is SlotState.OPEN]
        await self._follow_open(open_slots, head, progress)
        await self._deepen(head, progress)
        self._apart.look_is_over()
        if finality:
            await self._finalise(head)
        remaining = await self._ledger.slots(self._outbox.sender, [SlotState.OPEN, SlotState.INCLUDED])
        progress.open_slots = sum(slot.state is SlotState.OPEN for slot in remaining)
        progress.unproven_slots = len(remaining)
        await tell_late(self._board, self._ledger, [slot for slot in remaining if slot.state is SlotState.OPEN])

    async def head(self) -> BlockRef:
        """The newest block. Raises ChainError."""
        return await self._client.head()

    # --- blocks that are gone ---------------------------------------------------------------------------------------

    async def _undo_reorganised(self, slots: list[Slot], head: BlockRef, progress: Progress) -> list[Slot]:
        """Reopen slots whose block is no longer part of the chain; newest block first, for what lies below a good
        block is good too."""
        mined = {slot.block_number: slot.block_hash for slot in slots if slot.block_number is not None}
        gone: set[tuple[int | None, bytes | None]] = set()
        for number, block_hash in sorted(mined.items(), reverse=True):
            block = await self._client.block(number) if number <= head.number else None
            if block is not None and block.block_hash == block_hash:
                break
            if block is None and number > head.number and not await self._is_behind_for_sure(number):
                break  # a node that lags tells nothing
            gone.add((number, block_hash))
        if not gone:
            return slots
        for slot in slots:
            if (slot.block_number, slot.block_hash) in gone:
                await self._reopen(slot, progress)
        return await self._ledger.slots(self._outbox.sender, [SlotState.OPEN, SlotState.INCLUDED, SlotState.CONFIRMED])

    async def _is_behind_for_sure(self, number: int) -> bool:
        """Whether every endpoint that answers has a head below the block: then the chain itself went back."""
        answers = await self._client.pool.ask_all("eth_blockNumber")
        heads = [int(answer, 16) for answer in answers if isinstance(answer, str)]
        return bool(heads) and max(heads) < number

    async def _reopen(self, slot: Slot, progress: Progress) -> None:
        log.warning("The block of nonce %d was reorganised away; its transaction is sent again", slot.nonce)
        await self._ledger.mark_reorged(slot.slot_id)
        self._outbox.resend_soon(slot)
        await self._publish(slot, ClaimState.REOPENED, "its block was reorganised away; confirming again")
        progress.jobs.update(await self._job_ids(slot))

    # --- open slots -------------------------------------------------------------------------------------------------

    async def _follow_open(self, slots: Sequence[Slot], head: BlockRef, progress: Progress) -> None:
        receipts = await asyncio.gather(*(self._own_receipt(slot, head) for slot in slots))
        missing = [slot for slot, receipt in zip(slots, receipts, strict=True) if receipt is None]
        for slot, receipt in zip(slots, receipts, strict=True):
            if receipt is not None and slot.kind == BATCH:
                await self._apart.take(slot.nonce, self._include(slot, receipt, progress))
            elif receipt is not None:
                await self._include(slot, receipt, progress)
        if not missing:
            return
        count = await self._client.transaction_count(self._outbox.sender)
        self._outbox.nonce_looks_used = False
        await self._fill_gaps(count, missing)
        for slot in missing:
            if slot.nonce >= count:
                await self._send_again(slot)
            else:
                await self._apart.take(slot.nonce, self._examine_spent(slot, head, progress))

    async def _fill_gaps(self, count: int, open_slots: Sequence[Slot]) -> None:
        """A nonce below ours that nobody uses (a foreign transaction was reorganised away) holds up every claim."""
        lowest = min(slot.nonce for slot in open_slots)
        if lowest <= count:
            self._gaps.missing(count, open_slots, frozenset())
            return
        known = frozenset(one for slot in await self._ledger.slots(self._outbox.sender) for one in slot.nonces)
        for nonce in self._gaps.missing(count, open_slots, known):
            filler = await self._outbox.fill_gap(nonce)
            if filler is not None:
                self._feed.publish(TransactionChanged(filler.slot_id))

    async def _own_receipt(self, slot: Slot, head: BlockRef) -> Receipt | None:
        """The receipt of any attempt, if its block is really part of the chain."""
        for attempt in reversed(slot.attempts):
            async with self._reads:
                receipt = await self._client.receipt(attempt.tx_hash)
                if receipt is not None and await self._is_canonical(receipt, head):
                    return receipt
        return None

    async def _is_canonical(self, receipt: Receipt, head: BlockRef) -> bool:
        if receipt.block_number == head.number:
            return receipt.block_hash == head.block_hash
        if receipt.block_number > head.number:
            return False
        block = await self._client.block(receipt.block_number)
        return block is not None and block.block_hash == receipt.block_hash

    async def _include(self, slot: Slot, receipt: Receipt, progress: Progress) -> None:
        outcomes = await self._batches.outcomes(slot, receipt) if slot.kind == BATCH and receipt.succeeded else None
        await self._ledger.mark_included(slot.slot_id, mined_fact(receipt), outcomes)
        if receipt.succeeded:
            await self._publish(slot, ClaimState.INCLUDED, "")
        else:
            self._feed.publish(TransactionChanged(slot.slot_id))
        progress.jobs.update(await self._job_ids(slot))

    async def _send_again(self, slot: Slot) -> None:
        claims = [await self._ledger.claim(claim_id) for claim_id in slot.claim_ids]
        if not self._is_elsewhere(slot):
            slot = await self._outbox.bump_if_it_helps(slot)
        if not self._outbox.resend_due(slot):
            return
        was_accepted = self._outbox.is_accepted(slot)
        answer = await self._outbox.send(slot)
        if not self._is_elsewhere(slot):
            slot = await self._outbox.mend(slot, answer)
        if self._outbox.is_accepted(slot) and not was_accepted:
            await self._publish(slot, ClaimState.BOUND, "")
            for claim in claims:
                tx_hash = "0x" + slot.attempts[-1].tx_hash.hex()
                log.info("Checkpoint submitted successfully for job %d - tx_hash: %s", claim.job_id, tx_hash)

    # --- nonces spent by something else -----------------------------------------------------------------------------

    async def _examine_spent(self, slot: Slot, head: BlockRef, progress: Progress) -> None:
        """The nonce is spent and no receipt of ours is visible: find the spender before anything is believed."""
        if await self._is_anywhere(slot):
            return
        number = await spending_block(self._client, self._outbox.sender, slot.nonce, head)
        if number is None:
            await self._burn_without_history(slot, progress)
            return
        spender = await spender_in(self._client, self._outbox.sender, slot.nonce, number)
        if spender is None or spender.tx_hash in {attempt.tx_hash for attempt in slot.attempts}:
            return
        self._outbox.foreign_use(slot.nonce)
        claims = await self._claims(slot)
        is_guarded = not self._is_elsewhere(slot) and await self._verdicts.replay_is_refused(claims)
        tag = "safe" if is_guarded else "finalized"
        if number > await self._client.settled_number(tag, head):
            return  # it could still be reorganised away, and ours be mined after all
        contract = next(iter(goes_to(slot)), self._contract.address)
        landed = await self._spenders.claims_of(spender, claims, contract)
        if landed is not None:
            note = f"its nonce was used by 0x{spender.tx_hash.hex()}"
            await self._free(slot, SlotState.FOREIGN, note, progress, landed)

    async def _burn_without_history(self, slot: Slot, progress: Progress) -> None:
        """Nobody can say what spent the nonce. Its claims get another only where that cannot pay twice: the contract
        itself refuses a second copy and does not have the first, and every endpoint has seen the nonce spent below what
        can be reorganised. What the contract does have is paid, by whatever transaction."""
        claims = await self._claims(slot)
        if self._is_elsewhere(slot) or not await self._verdicts.replay_is_refused(claims):
            return
        if not await is_spent_everywhere(self._client, self._outbox.sender, slot.nonce, "safe"):
            return
        note = "its nonce was used by a transaction that no RPC can show any more"
        landed = await self._verdicts.landed_of(claims, note)
        if not landed or len(landed) < len(claims):
            self._outbox.foreign_use(slot.nonce)
        await self._free(slot, SlotState.BURNED, note, progress, landed)

    async def _free(
        self, slot: Slot, state: SlotState, note: str, progress: Progress, landed: Sequence[LandedClaim] = ()
    ) -> None:
        log.warning("Nonce %d: %s, none of ours: its claims get another", slot.nonce, note)
        await self._ledger.free_slot(slot.slot_id, state=state, note=note, landed=landed)
        self._outbox.nonces.wants_history = True
        self._outbox.forget(slot)
        self._feed.publish(TransactionChanged(slot.slot_id))
        progress.jobs.update(await self._job_ids(slot))

    async def _is_anywhere(self, slot: Slot) -> bool:
        """Whether any endpoint has a receipt of ours, or could not be asked: it might be the one that has it."""
        for attempt in slot.attempts:
            answers = await self._client.receipts_everywhere(attempt.tx_hash)
            if any(isinstance(answer, ChainError) for answer in answers):
                self._board.raise_(silent_endpoint_problem(slot.nonce, self._client.pool.names_of_silent(answers)))
                return True
            if any(isinstance(answer, Receipt) for answer in answers):
                return True
        self._board.clear("C07")
        return False

    def _is_elsewhere(self, slot: Slot) -> bool:
        """Whether it goes to another contract than the one set now, which can judge nothing of it and must not get it:
        it is sent and waited for as it is, and a revert is judged when its contract is set again."""
        if slot.kind in ERRANDS:
            return False
        return any(target != self._contract.address.lower() for target in goes_to(slot))

    # --- depth ------------------------------------------------------------------------------------------------------

    async def _deepen(self, head: BlockRef, progress: Progress) -> None:
        for slot in await self._ledger.slots(self._outbox.sender, [SlotState.INCLUDED]):
            if slot.block_number is None or head.number - slot.block_number + 1 < self._confirmations:
                continue
            if slot.succeeded:
                await self._confirm(slot, progress)
            elif not slot.claim_ids:
                await self._ledger.mark_confirmed(slot.slot_id)  # a completion that came too early: it is made again
            elif not self._is_elsewhere(slot) and await self._has_bound_claims(slot):
                await self._apart.take(slot.nonce, self._settle_revert(slot, head, progress))
        progress.jobs.update(await self._batches.settle_failures(self._outbox.sender, head))

    async def _confirm(self, slot: Slot, progress: Progress) -> None:
        if self._is_elsewhere(slot):
            await self._ledger.mark_confirmed(slot.slot_id)
            self._outbox.forget(slot)
            return
        payments: list[Payment] = []
        tx_hash = slot.mined_hash or slot.attempts[-1].tx_hash
        receipt = await self._client.receipt(tx_hash)
        if receipt is not None:
            payments = await own_payments(self._ledger, self._contract, receipt.logs)
        await self._ledger.mark_confirmed(slot.slot_id)
        progress.paid += payments
        self._outbox.forget(slot)
        for claim in await self._claims(slot):
            own = tuple(one for one in payments if one.job_id == claim.job_id)
            progress.confirmed.append((claim, "0x" + tx_hash.hex(), own))
            progress.jobs.add(claim.job_id)

    async def _has_bound_claims(self, slot: Slot) -> bool:
        return any(claim.state is ClaimState.BOUND for claim in await self._claims(slot))

    async def _claims(self, slot: Slot) -> list[Claim]:
        """The claims that the slot carries now."""
        return [await self._ledger.claim(claim_id) for claim_id in slot.carried_ids]

    async def _settle_revert(self, slot: Slot, head: BlockRef, progress: Progress) -> None:
        """A mined revert, deep enough: say why, and free, hold or write off what it claimed."""
        claims = await self._claims(slot)
        said = WHOLE_REVERT if slot.kind == BATCH else await self._verdicts.revert_reason(claims[0], slot)
        refusal, outcome = await self._verdicts.follow(said, claims)
        if not await self._verdicts.may_move_on(slot, claims, outcome, refusal.kind, head):
            return
        note = f"reverted: {refusal.plain}"
        is_on_chain = refusal.kind is RefusalKind.REPLAYED
        await self._ledger.void_reverted(slot.slot_id, note=note, outcome=outcome, is_on_chain=is_on_chain)
        self._outbox.forget(slot)
        for claim in claims:
            log.error("Checkpoint failed for job %d - %s", claim.job_id, note)
            is_over = outcome is ClaimState.WRITTEN_OFF
            tell = self._board.report if is_over or is_on_chain else self._board.raise_
            tell(reverted_problem(claim.job_id, claim.tokens, refusal.plain, outcome, is_on_chain=is_on_chain))
            self._feed.publish(JobChanged(claim.job_id))
            progress.jobs.add(claim.job_id)
        await self._publish(slot, outcome, note)

    async def _finalise(self, head: BlockRef) -> None:
        confirmed = await self._ledger.slots(self._outbox.sender, [SlotState.CONFIRMED])
        if not confirmed:
            return
        final = await self._client.settled_number("finalized", head)
        for slot in confirmed:
            if slot.failed_ids:
                continue  # it is looked at until its failed claims are settled
            if slot.block_number is not None and slot.block_number <= final:
                await self._ledger.mark_final(slot.slot_id)
                await self._publish(slot, ClaimState.FINAL, "")

    async def _publish(self, slot: Slot, state: ClaimState, note: str) -> None:
        tx_hash = "0x" + (slot.mined_hash or slot.attempts[-1].tx_hash).hex()
        for claim_id in slot.claim_ids:
            claim = await self._ledger.claim(claim_id)
            if claim.state is state or state is ClaimState.BOUND:  # not what a batch has let go, or what failed in it
                self._feed.publish(ClaimChanged(claim.job_id, claim_id, claim.tokens, state, tx_hash, note))
        self._feed.publish(TransactionChanged(slot.slot_id))

    async def _job_ids(self, slot: Slot) -> set[int]:
        return {(await self._ledger.claim(claim_id)).job_id for claim_id in slot.claim_ids}
