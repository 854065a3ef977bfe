"""Reads what a sender claimed in the past: from the contract's events, or from the blocks in which nonces were used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fabstir_desktop.errors import ChainError, FabstirError, RpcRefused, RpcUnreachable
from fabstir_desktop.settlement.chain_client import BlockRef, BlockTransaction, ChainClient
from fabstir_desktop.settlement.contracts.base import DecodedClaim, SettlementContract

log = logging.getLogger(__name__)

CLOCK_MARGIN_S = 86_400
"""How far this computer's clock may have been ahead of the chain's when the oldest unclaimed token was made."""
LARGEST_CHUNK_BLOCKS = 2_000
SMALLEST_CHUNK_BLOCKS = 50
MOST_CHUNKS = 200
MOST_BLOCKS = 500
SCAN_BLOCKS = 200
"""A stretch no longer than this is read block by block where the node has no counts of the past."""


class Unreadable(FabstirError):
    """The past cannot be read from here; says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A claim that landed, and its transaction."""

    claim: DecodedClaim
    tx_hash: bytes


class PastReader:
    """Reads the past of one host at one contract."""

    def __init__(self, client: ChainClient, contract: SettlementContract, host: str) -> None:
        self._client = client
        self._contract = contract
        self._host = host

    async def claims_since(self, since: float, nonces: Sequence[range]) -> list[Found]:
        """Landed claims since a time (seconds since the epoch), in the order of the chain: those at `nonces` are among them.

        Raises Unreadable, RpcRefused (the node has no such past), RpcUnreachable, LedgerError.
        """
        head = await self._client.head()
        first = await self._first_block(since - CLOCK_MARGIN_S, head)
        if self._contract.has_claim_events:
            try:
                return await self._from_events(first, head.number)
            except (RpcRefused, Unreadable) as error:
                log.warning("events of the past cannot be read (%s); the blocks are looked through", error)
        return await self._from_blocks(nonces, first, head)

    async def _first_block(self, since: float, head: BlockRef) -> int:
        """The first block that is not older; headers are kept by every node."""
        low, high = 0, head.number
        while low < high:
            middle = (low + high) // 2
            block = await self._client.block(middle)
            if block is None:
                raise RpcUnreachable(f"the RPC does not know block {middle}")
            low, high = (low, middle) if block.timestamp >= since else (middle + 1, high)
        return low

    async def _from_events(self, first: int, last: int) -> list[Found]:
        found: list[Found] = []
        chunk, budget = LARGEST_CHUNK_BLOCKS, MOST_CHUNKS
        while first <= last:
            budget -= 1
            if budget < 0:
                raise Unreadable(f"{last - first} blocks are left after {MOST_CHUNKS} questions")
            end = min(last, first + chunk - 1)
            try:
                seen = await self._contract.claims_seen(None, self._host, first, end)
            except ChainError:
                if chunk <= SMALLEST_CHUNK_BLOCKS:
                    raise
                chunk = max(SMALLEST_CHUNK_BLOCKS, chunk // 2)
                continue
            found += [Found(DecodedClaim(one.job_id, one.tokens, one.proof_hash), one.tx_hash) for one in seen]
            first = end + 1
        return found

    async def _from_blocks(self, nonces: Sequence[range], first: int, head: BlockRef) -> list[Found]:
        found = []
        for number in await self._blocks_of(nonces, max(0, first - 1), head.number):
            for transaction in await self._client.transactions_of_block(number):
                if transaction.sender == self._host.lower() and any(transaction.nonce in one for one in nonces):
                    found += await self.claims_of(transaction)
        return found

    async def claims_of(self, transaction: BlockTransaction) -> list[Found]:
        """The claims that a mined transaction of the host made. Raises Unreadable, RpcUnreachable (no receipt of it yet)."""
        is_batch = transaction.to == self._host.lower() and bool(transaction.data)
        if is_batch and not self._contract.has_claim_events:
            raise Unreadable("one of them is a batch of calls")
        claim = None if is_batch else self._contract.decode_claim(transaction.data)
        if not is_batch and (claim is None or transaction.to != self._contract.address.lower()):
            return []
        receipt = await self._client.receipt(transaction.tx_hash)
        if receipt is None:
            raise RpcUnreachable(f"the RPC has no receipt of 0x{transaction.tx_hash.hex()}")
        if claim is not None:
            return [Found(claim, transaction.tx_hash)] if receipt.succeeded else []
        seen = self._contract.claims_in(receipt.logs)
        return [Found(DecodedClaim(one.job_id, one.tokens, one.proof_hash), one.tx_hash) for one in seen]

    async def _blocks_of(self, nonces: Sequence[range], low: int, high: int) -> list[int]:
        """The blocks above `low` in which the sender's count passed one of the nonces."""
        if high - low <= SCAN_BLOCKS:
            return list(range(low + 1, high + 1))
        blocks: list[int] = []
        stack = [(low, await self._count(low), high, await self._count(high))]
        while stack:
            below, count_below, above, count_above = stack.pop()
            if not any(one.start < count_above and one.stop > count_below for one in nonces):
                continue
            if above - below == 1:
                blocks.append(above)
                if len(blocks) > MOST_BLOCKS:
                    raise Unreadable(f"they are in more than {MOST_BLOCKS} blocks")
                continue
            middle = (below + above) // 2
            count = await self._count(middle)
            stack += [(middle, count, above, count_above), (below, count_below, middle, count)]
        return blocks

    async def _count(self, number: int) -> int:
        return await self._client.transaction_count(self._host, number)
