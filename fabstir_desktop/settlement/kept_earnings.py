"""What a contract that pays at completion keeps for the host until it is taken out: read from its HostEarnings.

It is asked at most once a minute, and at once where more was earned: public RPCs count requests. What was taken out is what was
credited, as the events of settlements say, less what is still there; so a withdrawal by any program is seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from fabstir_desktop.errors import ChainError, LedgerError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import EarningsChanged
from fabstir_desktop.jobs.views import TokenAmount
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.contracts.base import SettlementContract

log = logging.getLogger(__name__)

READ_EVERY_S = 60.0
NATIVE_COIN = "ETH"


class KeptEarnings:
    """The balance of one contract for every address that signed here."""

    def __init__(
        self, ledger: Ledger, contract: SettlementContract, feed: Feed, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._contract = contract
        self._feed = feed
        self._clock = clock
        self._read_at = -READ_EVERY_S
        self._earned: tuple[TokenAmount, ...] = ()
        self.amounts: tuple[TokenAmount, ...] | None = None
        """By token, in the smallest unit; zeros are left out. None: not read, or nothing is kept."""
        self.as_of: float | None = None
        """When it was read, in seconds since the epoch."""

    async def refresh(self, host: str | None) -> None:
        """Read the balance if it is time. Never raises for a chain or ledger that does not answer: it is read later."""
        if not self._contract.rules.settles_later:
            return
        try:
            earned = (await self._ledger.earnings()).earned
            if earned == self._earned and self._clock() - self._read_at < READ_EVERY_S:
                return
            kept = await self._read(host, earned)
        except (ChainError, LedgerError) as error:
            log.debug("what the contract keeps is read later: %s", error)
            return
        self._read_at, self._earned, self.as_of = self._clock(), earned, time.time()
        if kept != self.amounts:
            self.amounts = kept
            self._feed.publish(EarningsChanged())

    async def _read(self, host: str | None, earned: Sequence[TokenAmount]) -> tuple[TokenAmount, ...] | None:
        """The sum over all hosts by token; None where the contract cannot be asked."""
        hosts = dict.fromkeys(address.lower() for address in [*([host] if host else []), *await self._ledger.senders()])
        found = []
        for token in sorted({NATIVE_COIN, *(one.token for one in earned)}):
            balances = [await self._contract.earnings_balance(address, token) for address in hosts]
            if None in balances:
                return None
            total = sum(balance for balance in balances if balance)
            if total:
                found.append(TokenAmount(token, total))
        return tuple(found)
