"""What a transaction claimed that spent one of our nonces and is none of ours.

It may be this folder's own: a claim or a fee bump that an old backup does not have.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fabstir_desktop.errors import RpcUnreachable
from fabstir_desktop.jobs.claims import Claim
from fabstir_desktop.jobs.landed import LandedClaim
from fabstir_desktop.settlement.attribution import Attribution
from fabstir_desktop.settlement.chain_client import BlockTransaction, ChainClient
from fabstir_desktop.settlement.contracts.base import SettlementContract
from fabstir_desktop.settlement.past import PastReader, Unreadable

log = logging.getLogger(__name__)


class SpenderReader:
    """Reads such transactions of one sender."""

    def __init__(
        self, client: ChainClient, contract: SettlementContract, attribution: Attribution, sender: str
    ) -> None:
        self._contract = contract
        self._attribution = attribution
        self._past = PastReader(client, contract, sender)
        self._sender = sender

    async def claims_of(
        self, spender: BlockTransaction, claims: Sequence[Claim], slot_contract: str
    ) -> list[LandedClaim] | None:
        """The claims it made over jobs of this ledger; `claims` are those of the slot whose nonce it spent.

        None: that cannot be told, or not yet, and the slot's claims may not be freed. Raises ChainError, LedgerError.
        """
        if spender.to == slot_contract.lower() != self._contract.address.lower():
            return None  # it speaks to a contract that is not set now, and only its interface can tell what it says
        try:
            found = await self._past.claims_of(spender)
        except (Unreadable, RpcUnreachable) as error:
            log.warning("transaction 0x%s cannot be read: %s", spender.tx_hash.hex(), error)
            return None
        landed = [await self._attribution.judge(self._sender, one.claim, one.tx_hash, freed=claims) for one in found]
        return [one for one in landed if one is not None]
