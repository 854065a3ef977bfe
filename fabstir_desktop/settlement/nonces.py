"""Which nonce comes next, and what follows from nonces that this ledger did not use."""

from __future__ import annotations

import time
from collections.abc import Callable

from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.gas_problems import foreign_nonce_problem

CONTESTED_S = 600.0
"""So long after another program's transaction the key counts as contested."""


class NonceBook:
    """The nonces of one sender.

    While the key is contested only one transaction is on its way at a time, so that one collision costs one claim, and no
    fee is raised: two programs that raise against each other pay the price of both.
    """

    def __init__(
        self,
        ledger: Ledger,
        board: ProblemBoard,
        sender: str,
        *,
        retry_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._board = board
        self._sender = sender
        self._retry_s = retry_s
        self._clock = clock
        self._foreign_at: float | None = None
        self.examined_nonces = 0
        """Every nonce below it is known here, or was looked at; see `history`."""
        self.wants_history = False
        """Nonces were used that are not known here: what they claimed is looked for before another is given."""

    @property
    def is_contested(self) -> bool:
        """Whether another program used the key of late."""
        return self._foreign_at is not None and self._clock() - self._foreign_at <= CONTESTED_S

    async def next(self, chain_count: int) -> int:
        """The nonce for a new transaction; `chain_count` is the sender's count on chain. Raises ClaimWaits, LedgerError."""
        ours = await self._ledger.next_nonce(self._sender)
        if chain_count > max(ours or 0, self.examined_nonces):
            self.wants_history = True
            why = "transactions of your key that are not in this data folder are looked at first"
            raise ClaimWaits(why, retry_s=self._retry_s)
        if ours is None:
            return chain_count
        if chain_count > ours:
            self.foreign_use(chain_count - 1)
        elif not self.is_contested:
            self._board.clear("T03")
        return max(ours, chain_count)

    def foreign_use(self, nonce: int) -> None:
        """A transaction that is not ours has used a nonce of this sender."""
        self._foreign_at = self._clock()
        self._board.raise_(foreign_nonce_problem(self._sender, nonce))
