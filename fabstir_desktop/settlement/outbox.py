"""Nonces, signatures, stored bytes: the only way out to the chain.

The order is the point. A claim's nonce, signed bytes and binding are committed in one transaction before the first byte
leaves; only stored bytes are ever sent; the same bytes may be sent any number of times. No answer of a node, no time-out
and no cancelled task gives a claim another nonce: only the reconciler may free one, with proof.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from fabstir_desktop.errors import CallReverted, RpcUnreachable
from fabstir_desktop.jobs.claims import DELEGATION, DEPLOYMENT, Attempt, Claim, Slot, SlotState
from fabstir_desktop.jobs.gas_money import format_eth
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.batching import check_payload
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard, ShortOfGasMoney
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.classifier import TAKEN, Answer, SendAnswer, best
from fabstir_desktop.settlement.fees import (
    FeeMarket,
    FeeOffer,
    Quote,
    bump_due,
    bump_helps,
    bumped,
    first_offer,
    gas_limit_for,
)
from fabstir_desktop.settlement.gas_problems import (
    gas_refused_problem,
    no_gas_problem,
    too_dear_problem,
)
from fabstir_desktop.settlement.nonces import NonceBook
from fabstir_desktop.settlement.outbox_memory import MarketRead, Sending
from fabstir_desktop.settlement.signing import sign_attempt, sign_borrowing
from fabstir_desktop.wallet.signer import SignedAuthorization, Signer, read_authorizations, read_payload

log = logging.getLogger(__name__)

FIRST_RESEND_POLLS = 7.5
RESEND_POLLS = 15.0
"""Unmined bytes are sent again after so many polls (15 s, then every 30 s, at two seconds a poll); the first bump likewise."""
MAXIMUM_IN_FLIGHT = 64
SIGNED_OVERHEAD_BYTES = 118
TYPICAL_CLAIM_GAS = 100_000
TYPICAL_CLAIM_BYTES = 400
FILLER_KIND = "cancel"
FILLER_GAS = 50_000
"""A transfer costs 21,000; an account that borrows code runs it when it receives."""
GAS_MENDS = 3
"""So often a gas limit that nodes refuse is estimated anew; then the host is told."""
ALONE = (DELEGATION, DEPLOYMENT)
"""Kinds that travel alone: a delegation uses two nonces, and what borrows its code must not be signed before it counts."""
GAS_RAISES = 4
"""After a revert the gas limit is raised, but no more often than this: to five times the estimate."""


class Outbox:
    """Quote, sign, store, send for one sender on one chain. With an address for a signer it only sends what is stored."""

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        signer: Signer | str,
        board: ProblemBoard,
        *,
        chain_id: int,
        fee_cap_wei: int,
        has_l1_fee: Callable[[], bool],
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._signer = signer
        self._board = board
        self._chain_id = chain_id
        self._fee_cap_wei = fee_cap_wei
        self._has_l1_fee = has_l1_fee
        self._resend_s = RESEND_POLLS * poll_s
        self._first_resend_s = FIRST_RESEND_POLLS * poll_s
        self._clock = clock
        self._market = MarketRead()
        self._sending: dict[int, Sending] = {}
        self._nonce_lock = asyncio.Lock()
        self.in_flight_limit = MAXIMUM_IN_FLIGHT
        self.is_delegated = False
        """The account borrows code (EIP-7702): pools take one transaction of it at a time."""
        self.claim_gas = TYPICAL_CLAIM_GAS
        self.nonce_looks_used = False
        """A node said that a nonce is taken: the reconciler should look at once."""
        self.nonces = NonceBook(ledger, board, self.sender, retry_s=self._resend_s / 100, clock=clock)

    @property
    def sender(self) -> str:
        """The address that sends."""
        return self._signer if isinstance(self._signer, str) else self._signer.address

    async def quote(self, to: str, calldata: bytes, *, reverts: int = 0) -> Quote:
        """Estimate gas and fees and see that they can be paid beside what is on its way.

        After `reverts` of the same claim each time half as much gas again is offered: the estimate may be what fails.
        Raises ClaimWaits (too many in flight, gas dearer than the cap, not enough gas money), CallReverted, ChainError.
        """
        estimate = await self._client.estimate_gas(to, calldata, sender=self.sender)
        extra = min(reverts, GAS_RAISES)
        quote = await self.price(calldata, gas_limit_for(estimate) * 3**extra // 2**extra)
        self.claim_gas = estimate
        return quote

    async def price(self, calldata: bytes, gas_limit: int) -> Quote:
        """The fees for a transaction whose gas limit is known. Raises ClaimWaits (gas dearer than the cap), ChainError."""
        market = await self._read_market()
        if market.market is None:
            raise RpcUnreachable("the fee market is unknown")
        offer = first_offer(market.market, self._fee_cap_wei)
        if offer is None:
            problem = too_dear_problem(market.market, self._fee_cap_wei)
            raise ClaimWaits("gas is dearer than your cap", retry_s=self._resend_s / 3, problem=problem)
        self._board.clear("G03")
        l1_fee = (
            await self._client.l1_fee_wei(len(calldata) + SIGNED_OVERHEAD_BYTES) * 3 // 2 if self._has_l1_fee() else 0
        )
        return Quote(calldata, gas_limit, offer, l1_fee)

    async def bind(
        self, to: str, claims: Sequence[Claim], quote: Quote, *, kind: str = "claim", borrow: str | None = None
    ) -> Slot:
        """Take the next nonce, sign, and store it all in one transaction. Nothing is sent here.

        `borrow` is the contract whose code the account borrows from then on (the zero address: none). Raises ClaimWaits,
        SignerLocked, LedgerError, ChainError; then no nonce was taken.
        """
        check_payload(self.sender, to, quote.calldata, claims)
        async with self._nonce_lock:
            market = await self._read_market()
            await self._check_room(quote, market.balance_wei, kind)
            nonce = await self.nonces.next(market.chain_count)
            borrowed = await sign_borrowing(self._signer, borrow, nonce)
            attempt = await self._sign(to, quote.calldata, nonce, quote.gas_limit, quote.offer, borrowed)
            slot = await self._ledger.bind(
                [claim.claim_id for claim in claims], sender=self.sender, nonce=nonce, attempt=attempt, kind=kind
            )
            self._sending_of(slot).attempt_head = market.head.number if market.head else -1
            return slot

    async def fill_gap(self, nonce: int) -> Slot | None:
        """Spend a nonce that nobody uses with a transfer of nothing to ourselves; None if there is no key or no money.

        Raises SignerLocked, LedgerError, ChainError; then nothing was stored.
        """
        async with self._nonce_lock:
            read = await self._read_market()
            offer = first_offer(read.market, self._fee_cap_wei) if read.market is not None else None
            if isinstance(self._signer, str) or offer is None:
                return None
            if await self._short_wei(offer.worst_cost_wei(FILLER_GAS), read.balance_wei) > 0:
                return None
            attempt = await self._sign(self.sender, b"", nonce, FILLER_GAS, offer)
            log.warning("Nonce %d is used by nobody and holds up later ones: it is spent on nothing", nonce)
            slot = await self._ledger.bind([], sender=self.sender, nonce=nonce, attempt=attempt, kind=FILLER_KIND)
        await self.send(slot)
        return slot

    async def send(self, slot: Slot) -> SendAnswer:
        """Hand the slot's newest stored bytes (the newest that can be paid) to every endpoint; remember what they said."""
        sending = self._sending_of(slot)
        attempt = slot.attempts[-1 - min(sending.steps_back, len(slot.attempts) - 1)]
        sending.sends += 1
        answers = await self._client.send_raw(attempt.raw, attempt.tx_hash)
        answer = best(answers) or SendAnswer("", Answer.RETRY, "no RPC is configured")
        await self._ledger.note_send(attempt.tx_hash, None if answer.answer in TAKEN else answer.text[:300])
        sending.answer = answer
        self._plan_next_send(sending, answer)
        self._react(slot, answer)
        return answer

    async def mend(self, slot: Slot, answer: SendAnswer) -> Slot:
        """Store another attempt of the same nonce and payload where a node refused the offer itself: its fee, or its gas.

        The slot as it was where nothing is to be mended, or the cap, the balance or the contract does not allow it.
        """
        if isinstance(self._signer, str) or answer.answer not in (Answer.FEE_LOW, Answer.BAD_GAS):
            return slot
        market = (await self._read_market()).market
        if market is None:
            return slot
        if answer.answer is Answer.FEE_LOW:
            return await self._mend_fee(slot, market, answer.minimum_tip_wei or 0)
        return await self._mend_gas(slot, market)

    async def _mend_fee(self, slot: Slot, market: FeeMarket, minimum_tip_wei: int) -> Slot:
        """A node that names the tip it wants gets it at once; one that does not waits for the usual steps."""
        if minimum_tip_wei > self._fee_cap_wei:
            self._board.raise_(too_dear_problem(market, self._fee_cap_wei))
        elif minimum_tip_wei > slot.attempts[-1].max_priority_fee_per_gas_wei:
            return await self.bump(slot, market, minimum_tip_wei=minimum_tip_wei)
        else:
            self._sending_of(slot).called_low = True
        return slot

    async def _mend_gas(self, slot: Slot, market: FeeMarket) -> Slot:
        sending = self._sending_of(slot)
        if sending.gas_mends >= GAS_MENDS or slot.kind == DELEGATION:  # what that needs no estimate tells
            return slot
        sending.gas_mends += 1
        to, calldata = read_payload(slot.attempts[-1].raw)
        try:
            estimate = await self._client.estimate_gas(to, calldata, sender=self.sender)
        except CallReverted:
            return slot  # what stands in the way is not the gas: a receipt or the contract will tell
        gas_limit = gas_limit_for(estimate)
        if gas_limit == slot.attempts[-1].gas_limit:
            return slot
        return await self.bump(slot, market, gas_limit=gas_limit)

    def resend_due(self, slot: Slot) -> bool:
        """Whether the slot's bytes should go out again now."""
        return self._clock() >= self._sending_of(slot).next_at

    def resend_soon(self, slot: Slot) -> None:
        """Send at the next occasion: the transaction may have left the pool."""
        self._sending_of(slot).next_at = 0.0

    def is_accepted(self, slot: Slot) -> bool:
        """Whether a node has taken the newest bytes, as far as this process knows."""
        return self._sending_of(slot).accepted

    def last_answer(self, slot: Slot) -> SendAnswer | None:
        """What nodes said last about the slot's bytes, as far as this process knows."""
        return self._sending_of(slot).answer

    def forget(self, slot: Slot) -> None:
        """The slot is closed."""
        self._sending.pop(slot.slot_id, None)

    async def bump_if_it_helps(self, slot: Slot) -> Slot:
        """Store a dearer attempt of the same nonce and payload where waiting is a matter of price; returns the slot."""
        waited_s = self._clock() - self._sending_of(slot).attempt_since
        if isinstance(self._signer, str) or not bump_due(waited_s, len(slot.attempts), self._resend_s):
            return slot
        read = await self._read_market()
        market, head = read.market, read.head
        newest = slot.attempts[-1]
        offer = FeeOffer(newest.max_fee_per_gas_wei, newest.max_priority_fee_per_gas_wei)
        sending = self._sending_of(slot)
        if market is None or head is None or not (sending.called_low or bump_helps(offer, market)):
            return slot
        if head.number <= sending.attempt_head:
            return slot  # no block came since: no fee would have helped
        if self.nonces.is_contested:
            return slot  # the other program might answer in kind
        return await self.bump(slot, market)

    async def bump(
        self,
        slot: Slot,
        market: FeeMarket,
        *,
        minimum_tip_wei: int = 0,
        gas_limit: int | None = None,
        borrows: bool = True,
    ) -> Slot:
        """Sign and store a replacement; the slot as it was if the cap or the balance does not allow one.

        It carries the very same but for the fee; without `borrows` no authorization, so that nodes take it which know none.
        """
        newest = slot.attempts[-1]
        offer = FeeOffer(newest.max_fee_per_gas_wei, newest.max_priority_fee_per_gas_wei)
        fresh = first_offer(market, self._fee_cap_wei, minimum_tip_wei=minimum_tip_wei)
        dearer = bumped(offer, fresh, self._fee_cap_wei)
        if dearer is None:
            self._board.raise_(too_dear_problem(market, self._fee_cap_wei))
            return slot
        limit = gas_limit or newest.gas_limit
        read = await self._read_market()
        if await self._short_wei(dearer.worst_cost_wei(limit), read.balance_wei, instead_of=slot) > 0:
            return slot  # the attempt that can be paid stays the one that is sent
        carried = (*read_payload(newest.raw), slot.nonce, limit)
        attempt = await self._sign(*carried, dearer, read_authorizations(newest.raw) if borrows else ())
        changed = await self._ledger.add_attempt(slot.slot_id, attempt)
        sending = self._sending_of(changed)
        sending.next_at, sending.attempt_since, sending.accepted = 0.0, self._clock(), False
        sending.attempt_head, sending.steps_back = read.head.number if read.head else -1, 0
        sending.called_low = False
        log.info("Raised the fee of nonce %d: attempt %d", slot.nonce, len(changed.attempts))
        return changed

    async def market_now(self) -> FeeMarket | None:
        """The fee market, at most two seconds old."""
        return (await self._read_market()).market

    def foreign_use(self, nonce: int) -> None:
        """A transaction that is not ours has used a nonce of this account."""
        self.nonces.foreign_use(nonce)

    def forget_market(self) -> None:
        """Read balance, nonce and fees anew at the next occasion."""
        self._market.read_at = -1e9

    async def is_full(self) -> bool:
        """Whether nothing more can be bound now, because of what is on its way."""
        open_slots = await self._ledger.slots(self.sender, [SlotState.OPEN])
        return len(open_slots) >= self._limit or any(slot.kind in ALONE for slot in open_slots)

    @property
    def _limit(self) -> int:
        return 1 if self.is_delegated or self.nonces.is_contested else self.in_flight_limit

    async def _short_wei(self, cost_wei: int, balance_wei: int, *, instead_of: Slot | None = None) -> int:
        """What is missing to pay for one more attempt beside all that is on its way; says so. `instead_of`: it replaces
        that slot's own."""
        open_slots = await self._ledger.slots(self.sender, [SlotState.OPEN])
        others = [slot for slot in open_slots if instead_of is None or slot.slot_id != instead_of.slot_id]
        short = sum(_worst_cost_wei(slot) for slot in others) + cost_wei - balance_wei
        if short > 0:
            self.forget_market()
            self._board.raise_(no_gas_problem(short))
        return short

    async def _check_room(self, quote: Quote, balance_wei: int, kind: str) -> None:
        open_slots = await self._ledger.slots(self.sender, [SlotState.OPEN])
        if any(slot.kind in ALONE for slot in open_slots) or (open_slots and kind in ALONE):
            raise ClaimWaits("the account's own change must be in a block before anything else is sent", retry_s=0.5)
        if len(open_slots) >= self._limit:
            raise ClaimWaits(f"{len(open_slots)} transactions are on their way; this one is next", retry_s=0.5)
        # Each open transaction also has its L1 share, which no fee field caps; they are alike, so this one's is taken.
        committed = sum(_worst_cost_wei(slot) + quote.l1_fee_wei for slot in open_slots)
        short = committed + quote.worst_cost_wei - balance_wei
        if short > 0:
            self.forget_market()
            raise ShortOfGasMoney(
                f"not enough gas money: short by {format_eth(short)} ETH", retry_s=3.0, problem=no_gas_problem(short)
            )
        self._board.clear("G02")

    async def _sign(
        self,
        to: str,
        calldata: bytes,
        nonce: int,
        gas_limit: int,
        offer: FeeOffer,
        borrowed: tuple[SignedAuthorization, ...] = (),
    ) -> Attempt:
        return await sign_attempt(
            self._signer, self._chain_id, to, calldata, nonce, gas_limit=gas_limit, offer=offer, borrowed=borrowed
        )

    async def _read_market(self) -> MarketRead:
        return await self._market.refreshed(self._client, self.sender, self._clock)

    def _sending_of(self, slot: Slot) -> Sending:
        return self._sending.setdefault(slot.slot_id, Sending(attempt_since=self._clock()))

    def _plan_next_send(self, sending: Sending, answer: SendAnswer) -> None:
        sending.accepted = sending.accepted or answer.answer in TAKEN
        if answer.answer in TAKEN:
            pause_s = self._first_resend_s if sending.sends == 1 else self._resend_s
        else:
            pause_s = min(self._resend_s, 2.0 ** min(sending.sends - 1, 5))
        sending.next_at = self._clock() + pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - only spreads load

    def _react(self, slot: Slot, answer: SendAnswer) -> None:
        match answer.answer:
            case Answer.NONCE_USED:
                self.nonce_looks_used = True
            case Answer.SENT | Answer.KNOWN:
                self.in_flight_limit = min(MAXIMUM_IN_FLIGHT, self.in_flight_limit + 1)
            case Answer.FUNDS:
                sending = self._sending_of(slot)
                sending.steps_back = min(sending.steps_back + 1, len(slot.attempts) - 1)
                self._board.raise_(no_gas_problem(None))
            case Answer.BAD_SIGNATURE:
                self._client.pool.distrust(answer.endpoint)
            case Answer.BAD_GAS if self._sending_of(slot).gas_mends >= GAS_MENDS:
                self._board.raise_(gas_refused_problem(slot.nonce, answer.text))
            case Answer.POOL_LIMIT:
                self.in_flight_limit = max(1, self.in_flight_limit // 2)
                log.warning("the pool takes no more; at most %d transactions at a time from now", self.in_flight_limit)
            case Answer.NONCE_AHEAD:
                for sending in self._sending.values():
                    sending.next_at = 0.0
            case Answer.UNKNOWN:
                told = (slot.nonce, answer.endpoint, answer.text[:300])
                log.warning("nonce %d: the RPC %s says %r; the same bytes are sent again", *told)
            case _:
                pass


def _worst_cost_wei(slot: Slot) -> int:
    return max(attempt.max_fee_per_gas_wei * attempt.gas_limit for attempt in slot.attempts)
