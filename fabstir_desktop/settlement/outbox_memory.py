"""What the outbox remembers between sends. It is lost with the process, without harm: what counts is in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fabstir_desktop.settlement.chain_client import BlockRef, ChainClient
from fabstir_desktop.settlement.classifier import SendAnswer
from fabstir_desktop.settlement.fees import FeeMarket

MARKET_AGE_S = 2.0


@dataclass(slots=True)
class Sending:
    """When a slot's bytes go out again. Lost with the process, without harm: then they go out at once."""

    next_at: float = 0.0
    sends: int = 0
    accepted: bool = False
    attempt_since: float = 0.0
    attempt_head: int = -1
    """The newest block known when the newest attempt was stored: before another one, a higher fee changes nothing."""
    steps_back: int = 0
    """How many attempts before the newest one is sent: the balance may pay for an older, cheaper one only."""
    gas_mends: int = 0
    answer: SendAnswer | None = None
    called_low: bool = False
    """A node found the offer too low, whatever the market says."""


@dataclass(slots=True)
class MarketRead:
    """The market, balance and count of transactions as last read, all at one time."""

    read_at: float = -1e9
    head: BlockRef | None = None
    market: FeeMarket | None = None
    balance_wei: int = 0
    chain_count: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refreshed(self, client: ChainClient, sender: str, clock: Callable[[], float]) -> MarketRead:
        """Itself, read anew if it is older than two seconds. Raises ChainError; then it is as it was."""
        async with self.lock:
            if clock() - self.read_at > MARKET_AGE_S:
                head = await client.head()
                self.market, self.balance_wei, self.chain_count = await asyncio.gather(
                    client.fee_market(head), client.balance_wei(sender), client.transaction_count(sender)
                )
                self.head, self.read_at = head, clock()
            return self
