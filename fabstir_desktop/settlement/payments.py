"""What the contract paid, read from its events: a persisted cursor, chunks that shrink when refused, an overlap.

Polling is the truth; nothing is ever computed from prices here. Only blocks as deep as the confirmations asked for are
read, and when the cursor's block is no longer part of the chain everything above the last final block is read again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fabstir_desktop.errors import ChainError, RpcRefused, RpcUnreachable
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import Payment
from fabstir_desktop.jobs.events import EarningsChanged
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settings import EarningsFrom
from fabstir_desktop.settlement.chain_client import BlockRef, ChainClient, EventLog
from fabstir_desktop.settlement.contracts.base import SettlementContract

log = logging.getLogger(__name__)

FIRST_CHUNK_BLOCKS = 1000
LARGEST_CHUNK_BLOCKS = 2000
OVERLAP_BLOCKS = 64
"""Read again each time, two minutes of blocks: behind one URL there may be several nodes, and one of them late."""
SMALLEST_CHUNK_AFTER_SILENCE_BLOCKS = 16
LOOKBACK_BLOCKS = 20_000
STALE_S = 60.0
CHUNKS_PER_POLL = 25
TAG_OF_DEPTH: Final[Mapping[EarningsFrom, str | None]] = {"included": None, "safe": "safe", "final": "finalized"}
"""The chain's own name for the newest block of each depth; None: every block that CONFIRMATIONS lets us read."""


class PaymentReader:
    """Reads the payments of every address that ever signed here, and of the key in use.

    One cursor serves all: while one key is in use, payments to another may arrive.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        contract: SettlementContract,
        feed: Feed,
        *,
        host: str | None,
        confirmations: int,
        earnings_from: EarningsFrom,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._contract = contract
        self._feed = feed
        self._host = host
        self._confirmations = confirmations
        self._earnings_from = earnings_from
        self._clock = clock
        self._chunk = FIRST_CHUNK_BLOCKS
        self._good_chunks = 0
        self._read_at = -1e9
        self._is_behind = False
        """Blocks are left that the last poll had no questions left for."""

    @property
    def can_read(self) -> bool:
        """Whether the contract reports payments at all."""
        return self._contract.has_events

    @property
    def is_stale(self) -> bool:
        """Whether it is time to look even if nothing is known to have happened, or there is more to be read."""
        return self.can_read and (self._is_behind or self._clock() - self._read_at > STALE_S)

    async def poll(self, head: BlockRef | None, known: Sequence[Payment] = ()) -> int:
        """Store what is new up to the newest block that is deep enough; returns how many payments the events told.

        `known` from receipts is stored too: it is not left to the events alone, which a node that lags may not list.
        Never raises for a chain that does not answer: the next poll reads on from the cursor.
        """
        await self._count_nothing_yet()
        try:
            return await self._poll_events(head) if self.can_read else 0
        finally:  # last, for reading events after a reorganisation begins with forgetting
            if known and await self._ledger.record_payments(known):
                self._feed.publish(EarningsChanged(frozenset(payment.job_id for payment in known)))

    async def _poll_events(self, head: BlockRef | None) -> int:
        try:
            head = head or await self._client.head()
            await self._count_deep_ones(head)  # first, so that nothing new counts before it is deep enough
            found = await self._read(head)
        except ChainError as error:
            log.debug("payments are read later: %s", error)
            return 0
        self._read_at = self._clock()
        return found

    async def _count_nothing_yet(self) -> None:
        """Where no depth was ever read, nothing is known to be deep enough."""
        if TAG_OF_DEPTH[self._earnings_from] is not None and await self._ledger.counted_block() is None:
            await self._ledger.count_payments_up_to(0)

    async def _count_deep_ones(self, head: BlockRef) -> None:
        """Payments count as earned from the blocks on that the setting names; those above are pending."""
        tag = TAG_OF_DEPTH[self._earnings_from]
        number = None if tag is None else await self._client.settled_number(tag, head)
        jobs = await self._ledger.count_payments_up_to(number)
        if jobs:
            self._feed.publish(EarningsChanged(frozenset(jobs)))

    async def _read(self, head: BlockRef) -> int:
        last = head.number - self._confirmations + 1
        first = await self._first_block(head)
        topics = await self._topics()
        if not topics:
            return 0  # nobody ever signed here, and there is no key
        found = 0
        for _ in range(CHUNKS_PER_POLL):
            if first > last:
                break
            end = min(last, first + self._chunk - 1)
            payments = await self._chunk_of(topics, first, end)
            if payments is None:
                continue
            block = head if end == head.number else await self._client.block(end)
            if block is None:
                break
            new = await self._ledger.record_payments(payments, cursor_block=end, cursor_hash=block.block_hash)
            if new:
                self._feed.publish(EarningsChanged(frozenset(payment.job_id for payment in payments)))
            found += new
            first = end + 1
        self._is_behind = first <= last
        return found

    async def _first_block(self, head: BlockRef) -> int:
        cursor = await self._ledger.event_cursor()
        if cursor is None:
            return max(0, head.number - LOOKBACK_BLOCKS)
        number, block_hash = cursor
        block = await self._client.block(number) if number <= head.number else None
        if block is not None and block.block_hash == block_hash:
            # never so much that a node which gives a few blocks at a time brings nothing new
            return max(0, number + 1 - min(OVERLAP_BLOCKS, self._chunk * CHUNKS_PER_POLL // 4))
        if block is None and number - head.number <= OVERLAP_BLOCKS:
            return head.number + 1  # a node that lags a little: wait for it
        final = await self._client.settled_number("finalized", head)
        log.warning("Blocks were reorganised; payments above block %d are read again", final)
        await self._ledger.forget_payments_from(final + 1)
        self._feed.publish(EarningsChanged())
        return max(0, final + 1 - OVERLAP_BLOCKS)

    async def _topics(self) -> list[list[bytes] | None]:
        hosts = dict.fromkeys([*([self._host] if self._host else []), *await self._ledger.senders()])
        choices = [self._contract.payment_topics(host) for host in hosts]
        return [
            None if None in place else list(dict.fromkeys(topic for one in place if one for topic in one))
            for place in zip(*choices, strict=True)
        ]

    async def _chunk_of(self, topics: list[list[bytes] | None], first: int, last: int) -> list[Payment] | None:
        """Payments in a range; None if the node refused it: then the next range is half as long.

        Some nodes refuse a range that is too long by not answering, so silence makes the next one shorter too.
        """
        try:
            logs = await self._client.logs(self._contract.address, topics, first, last)
        except RpcRefused:
            if first == last:
                raise
            self._shrink((last - first + 1) // 2)
            return None
        except RpcUnreachable:
            self._shrink(max(SMALLEST_CHUNK_AFTER_SILENCE_BLOCKS, (last - first + 1) // 2))
            raise
        self._good_chunks += 1
        if self._good_chunks >= 5:
            self._chunk, self._good_chunks = min(LARGEST_CHUNK_BLOCKS, self._chunk * 2), 0
        return await own_payments(self._ledger, self._contract, logs)

    def _shrink(self, blocks: int) -> None:
        self._chunk, self._good_chunks = max(1, min(self._chunk, blocks)), 0


async def own_payments(ledger: Ledger, contract: SettlementContract, logs: Sequence[EventLog]) -> list[Payment]:
    """The payments that the logs report, without those of jobs that are not ours where events do not name the host."""
    if contract.rules.events_name_host:
        return await contract.payments(logs)
    found = []
    for entry in logs:  # asked before they are read: reading one may cost a question to the chain
        job_id = contract.paid_job(entry)
        if job_id is not None and await ledger.account(job_id) is not None:
            found.append(entry)
    return await contract.payments(found)
