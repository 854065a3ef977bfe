"""Which block spent a nonce, and nonces that nobody has: the two questions about a sender's count of transactions."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fabstir_desktop.errors import ChainError
from fabstir_desktop.jobs.claims import Slot
from fabstir_desktop.settlement.chain_client import BlockRef, BlockTransaction, ChainClient
from fabstir_desktop.settlement.rpc_pool import quantity
from fabstir_desktop.wallet.signer import SignedAuthorization, recover_authority

log = logging.getLogger(__name__)

LOOKS_BEFORE_FILLING = 3
"""So many looks in a row must find the same gap: one count of a node that lags makes none."""


async def spending_block(client: ChainClient, sender: str, nonce: int, head: BlockRef) -> int | None:
    """The block in which the sender's count passed the nonce; None if no node keeps the history that far back.

    Looks back in growing steps first, because most nodes know old states for some hours only and the spender is young.
    """
    high, step = head.number, 1
    try:
        while True:
            low = max(0, head.number - step)
            if low == 0 or await client.transaction_count(sender, low) <= nonce:
                break
            high, step = low, step * 4
        while low < high:
            middle = (low + high) // 2
            if await client.transaction_count(sender, middle) > nonce:
                high = middle
            else:
                low = middle + 1
    except ChainError as error:
        log.warning("Nonce %d: no RPC can tell when it was used (%s)", nonce, error)
        return None
    return low


async def spender_in(client: ChainClient, sender: str, nonce: int, number: int) -> BlockTransaction | None:
    """The transaction of the block that spent the nonce: the sender's own, or one that carries the sender's authorization
    for it, which may be anybody's (EIP-7702). Raises ChainError."""
    transactions = await client.transactions_of_block(number)
    own = (one for one in transactions if one.sender == sender.lower() and one.nonce == nonce)
    carriers = (one for one in transactions if any(_spends(word, sender, nonce) for word in one.authorizations))
    return next(own, None) or next(carriers, None)


def _spends(word: SignedAuthorization, sender: str, nonce: int) -> bool:
    return word.nonce == nonce and (recover_authority(word) or "").lower() == sender.lower()


async def is_spent_everywhere(client: ChainClient, sender: str, nonce: int, tag: str) -> bool:
    """Whether every endpoint says that the nonce is spent in a block as deep as `tag`; one that is silent says no."""
    answers = await client.pool.ask_all("eth_getTransactionCount", sender, tag)
    return bool(answers) and all(not isinstance(one, ChainError) and quantity(one, tag) > nonce for one in answers)


class GapWatch:
    """Notices nonces below the open ones that no transaction of ours or of others fills: all later ones wait for them."""

    def __init__(self) -> None:
        self._looks: dict[int, int] = {}

    def missing(self, count: int, open_slots: Sequence[Slot], known_nonces: frozenset[int]) -> list[int]:
        """The nonces to be filled now, lowest first.

        `count` is the sender's count on chain, `known_nonces` what the ledger has below the open slots in any state: those
        are followed by their own rules.
        """
        lowest = min((slot.nonce for slot in open_slots), default=count)
        gap = [nonce for nonce in range(count, lowest) if nonce not in known_nonces]
        self._looks = {nonce: self._looks.get(nonce, 0) + 1 for nonce in gap}
        return [nonce for nonce in gap if self._looks[nonce] >= LOOKS_BEFORE_FILLING]
