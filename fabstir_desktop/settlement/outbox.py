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
from dataclasses import dataclass, field

from fabstir_desktop.errors import RpcUnreachable, SignerLocked
from fabstir_desktop.jobs.claims import Attempt, Claim, Slot, SlotState
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.chain_client import BlockRef, ChainClient
from fabstir_desktop.settlement.classifier import TAKEN, Answer, SendAnswer, best
from fabstir_desktop.settlement.fees import (
    FeeMarket,
    FeeOffer,
    bump_due,
    bump_helps,
    bumped,
    first_offer,
    gas_limit_for,
)
from fabstir_desktop.wallet.signer import Signer, UnsignedTransaction, read_payload

log = logging.getLogger(__name__)

MARKET_AGE_S = 2.0
FIRST_RESEND_POLLS = 7.5
RESEND_POLLS = 15.0
"""Unmined bytes are sent again after so many polls (15 s, then every 30 s, at two seconds a poll); the first bump likewise."""
MAXIMUM_IN_FLIGHT = 64
SIGNED_OVERHEAD_BYTES = 118
FOREIGN_REMEMBERED_S = 600.0
TYPICAL_CLAIM_GAS = 100_000
FUND = "Send ETH for gas to your host address."
GAS_RAISES = 4
"""After a revert the gas limit is raised, but no more often than this: to five times the estimate."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a transaction is offered: calldata, gas limit, fees, and its share of the L1 data fee, in wei."""

    calldata: bytes
    gas_limit: int
    offer: FeeOffer
    l1_fee_wei: int

    @property
    def likely_cost_wei(self) -> int:
        """What it will about cost: the offer holds twice the base fee, the limit a fifth more gas than was estimated."""
        tip = self.offer.max_priority_fee_per_gas_wei
        per_gas = (self.offer.max_fee_per_gas_wei - tip) // 2 + tip
        return self.gas_limit * 5 // 6 * per_gas + self.l1_fee_wei * 2 // 3

    @property
    def worst_cost_wei(self) -> int:
        """The most it can cost."""
        return self.offer.worst_cost_wei(self.gas_limit, self.l1_fee_wei)


@dataclass(slots=True)
class _Sending:
    """When a slot's bytes go out again. Lost with the process, without harm: then they go out at once."""

    next_at: float = 0.0
    sends: int = 0
    accepted: bool = False
    attempt_since: float = 0.0


@dataclass(slots=True)
class _Market:
    read_at: float = -1e9
    head: BlockRef | None = None
    market: FeeMarket | None = None
    balance_wei: int = 0
    chain_count: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


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
        self._market = _Market()
        self._sending: dict[int, _Sending] = {}
        self._nonce_lock = asyncio.Lock()
        self._foreign_at = 0.0
        self.in_flight_limit = MAXIMUM_IN_FLIGHT
        self.claim_gas = TYPICAL_CLAIM_GAS
        self.nonce_looks_used = False
        """A node said that a nonce is taken: the reconciler should look at once."""

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
        market = await self._read_market()
        if market.market is None:
            raise RpcUnreachable("the fee market is unknown")
        offer = first_offer(market.market, self._fee_cap_wei)
        if offer is None:
            problem = _too_dear_problem(market.market, self._fee_cap_wei)
            raise ClaimWaits("gas is dearer than your cap", retry_s=self._resend_s / 3, problem=problem)
        self._board.clear("G03")
        l1_fee = (
            await self._client.l1_fee_wei(len(calldata) + SIGNED_OVERHEAD_BYTES) * 3 // 2 if self._has_l1_fee() else 0
        )
        self.claim_gas = estimate
        extra = min(reverts, GAS_RAISES)
        return Quote(calldata, gas_limit_for(estimate) * 3**extra // 2**extra, offer, l1_fee)

    async def bind(self, to: str, claims: Sequence[Claim], quote: Quote, *, kind: str = "claim") -> Slot:
        """Take the next nonce, sign, and store it all in one transaction. Nothing is sent here.

        Raises ClaimWaits, SignerLocked, LedgerError, ChainError; then no nonce was taken.
        """
        async with self._nonce_lock:
            market = await self._read_market()
            await self._check_room(quote, market.balance_wei)
            nonce = await self._next_nonce(market.chain_count)
            attempt = await self._sign(to, quote.calldata, nonce, quote.gas_limit, quote.offer)
            return await self._ledger.bind(
                [claim.claim_id for claim in claims], sender=self.sender, nonce=nonce, attempt=attempt, kind=kind
            )

    async def send(self, slot: Slot) -> SendAnswer:
        """Hand the slot's newest stored bytes to every endpoint and remember what they said."""
        attempt = slot.attempts[-1]
        sending = self._sending_of(slot)
        sending.sends += 1
        answers = await self._client.send_raw(attempt.raw, attempt.tx_hash)
        answer = best(answers) or SendAnswer("", Answer.RETRY, "no RPC is configured")
        await self._ledger.note_send(attempt.tx_hash, None if answer.answer in TAKEN else answer.text[:300])
        self._plan_next_send(sending, answer)
        self._react(slot, answer)
        return answer

    def resend_due(self, slot: Slot) -> bool:
        """Whether the slot's bytes should go out again now."""
        return self._clock() >= self._sending_of(slot).next_at

    def resend_soon(self, slot: Slot) -> None:
        """Send at the next occasion: the transaction may have left the pool."""
        self._sending_of(slot).next_at = 0.0

    def is_accepted(self, slot: Slot) -> bool:
        """Whether a node has taken the newest bytes, as far as this process knows."""
        return self._sending_of(slot).accepted

    def forget(self, slot: Slot) -> None:
        """The slot is closed."""
        self._sending.pop(slot.slot_id, None)

    async def bump_if_it_helps(self, slot: Slot) -> Slot:
        """Store a dearer attempt of the same nonce and payload where waiting is a matter of price; returns the slot."""
        waited_s = self._clock() - self._sending_of(slot).attempt_since
        if isinstance(self._signer, str) or not bump_due(waited_s, len(slot.attempts), self._resend_s):
            return slot
        market = (await self._read_market()).market
        newest = slot.attempts[-1]
        offer = FeeOffer(newest.max_fee_per_gas_wei, newest.max_priority_fee_per_gas_wei)
        if market is None or not bump_helps(offer, market):
            return slot
        return await self.bump(slot, market)

    async def bump(self, slot: Slot, market: FeeMarket, *, minimum_tip_wei: int = 0) -> Slot:
        """Sign and store a replacement; the slot as it was if the cap or the balance does not allow one."""
        newest = slot.attempts[-1]
        offer = FeeOffer(newest.max_fee_per_gas_wei, newest.max_priority_fee_per_gas_wei)
        fresh = first_offer(market, self._fee_cap_wei, minimum_tip_wei=minimum_tip_wei)
        dearer = bumped(offer, fresh, self._fee_cap_wei)
        if dearer is None:
            self._board.raise_(_too_dear_problem(market, self._fee_cap_wei))
            return slot
        attempt = await self._sign(*read_payload(newest.raw), slot.nonce, newest.gas_limit, dearer)
        changed = await self._ledger.add_attempt(slot.slot_id, attempt)
        sending = self._sending_of(changed)
        sending.next_at, sending.attempt_since, sending.accepted = 0.0, self._clock(), False
        log.info("Raised the fee of nonce %d: attempt %d", slot.nonce, len(changed.attempts))
        return changed

    async def market_now(self) -> FeeMarket | None:
        """The fee market, at most two seconds old."""
        return (await self._read_market()).market

    def foreign_use(self, nonce: int) -> None:
        """A transaction that is not ours has used a nonce of this account."""
        self._foreign_at = self._clock()
        self._board.raise_(_foreign_nonce_problem(self.sender, nonce))

    def forget_market(self) -> None:
        """Read balance, nonce and fees anew at the next occasion."""
        self._market.read_at = -1e9

    async def _check_room(self, quote: Quote, balance_wei: int) -> None:
        open_slots = await self._ledger.slots(self.sender, [SlotState.OPEN])
        if len(open_slots) >= self.in_flight_limit:
            raise ClaimWaits(f"{len(open_slots)} transactions are on their way; this one is next", retry_s=0.5)
        committed = sum(_worst_cost_wei(slot) for slot in open_slots)
        short = committed + quote.worst_cost_wei - balance_wei
        if short > 0:
            self.forget_market()
            raise ClaimWaits(
                f"not enough gas money: short by {format_eth(short)} ETH", retry_s=3.0, problem=no_gas_problem(short)
            )
        self._board.clear("G02")

    async def _next_nonce(self, chain_count: int) -> int:
        ours = await self._ledger.next_nonce(self.sender)
        if ours is None:
            return chain_count
        if chain_count > ours:
            self.foreign_use(chain_count - 1)
        elif self._clock() - self._foreign_at > FOREIGN_REMEMBERED_S:
            self._board.clear("T03")
        return max(ours, chain_count)

    async def _sign(self, to: str, calldata: bytes, nonce: int, gas_limit: int, offer: FeeOffer) -> Attempt:
        if isinstance(self._signer, str):
            raise SignerLocked(f"the key of {self._signer} is not here; nothing was signed")
        signed = await self._signer.sign_transaction(
            UnsignedTransaction(
                chain_id=self._chain_id,
                nonce=nonce,
                to=to,
                data=calldata,
                gas_limit=gas_limit,
                max_fee_per_gas_wei=offer.max_fee_per_gas_wei,
                max_priority_fee_per_gas_wei=offer.max_priority_fee_per_gas_wei,
            )
        )
        return Attempt(
            signed.tx_hash, signed.raw, offer.max_fee_per_gas_wei, offer.max_priority_fee_per_gas_wei, gas_limit
        )

    async def _read_market(self) -> _Market:
        market = self._market
        async with market.lock:
            if self._clock() - market.read_at <= MARKET_AGE_S:
                return market
            head = await self._client.head()
            fees, balance, count = await asyncio.gather(
                self._client.fee_market(head),
                self._client.balance_wei(self.sender),
                self._client.transaction_count(self.sender),
            )
            market.head, market.market, market.balance_wei, market.chain_count = head, fees, balance, count
            market.read_at = self._clock()
            return market

    def _sending_of(self, slot: Slot) -> _Sending:
        return self._sending.setdefault(slot.slot_id, _Sending(attempt_since=self._clock()))

    def _plan_next_send(self, sending: _Sending, answer: SendAnswer) -> None:
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
            case Answer.FUNDS:
                self._board.raise_(no_gas_problem(None))
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


def format_eth(wei: int) -> str:
    """Wei as ETH, exact, without trailing zeros."""
    whole, rest = divmod(wei, 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".")


def no_gas_problem(short_wei: int | None) -> Problem:
    """G02."""
    short = "" if short_wei is None else f" Short by {format_eth(short_wei)} ETH."
    message = f"Not enough ETH for the next claim.{short} Claims wait; nothing is lost."
    return problem("G02", message, advice=FUND)


def _foreign_nonce_problem(sender: str, nonce: int) -> Problem:
    """T03."""
    message = (
        f"Another program is sending from {sender} (nonce {nonce} was used). Claims go on, but slower and less surely."
    )
    return problem("T03", message, advice="Use this key in one program only.")


def _too_dear_problem(market: FeeMarket, cap_wei: int) -> Problem:
    """G03."""
    price, cap = market.base_fee_wei / 10**9, cap_wei / 10**9
    message = f"Gas costs {price:.3g} gwei, your cap is {cap:.3g} gwei. Claims wait until it falls."
    return problem("G03", message, advice="Wait, or raise the cap.")
