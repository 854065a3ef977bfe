"""What the outbox remembers between sends. It is lost with the process, without harm: what counts is in the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fabstir_desktop.settlement.chain_client import BlockRef
from fabstir_desktop.settlement.fees import FeeMarket


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
