"""Steps for single nonces that may have to wait for an RPC without holding up the others.

What gives tokens up, or takes them for paid, needs several endpoints that agree; what spent a nonce long ago needs one that
keeps history. While there is none, that one nonce waits and the host is told which.
"""

from __future__ import annotations

from collections.abc import Awaitable

from fabstir_desktop.errors import ChainError
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.settlement.board import ProblemBoard


class Apart:
    """Belongs to one reconciler."""

    def __init__(self, board: ProblemBoard) -> None:
        self._board = board
        self._told: set[str] = set()
        self._waiting: set[str] = set()

    async def take(self, nonce: int, step: Awaitable[None]) -> None:
        """Take the step; where the chain gives no usable answer it is for the next look. Raises LedgerError."""
        try:
            await step
        except ChainError as error:
            subject = f"nonce {nonce}"
            self._waiting.add(subject)
            message = f"What became of nonce {nonce} cannot be judged yet: {error}. It waits; other claims go on."
            self._board.raise_(problem("C07", message, subject=subject, advice="Set RPCs that answer and agree."))

    def look_is_over(self) -> None:
        """What did not wait in this look waits no more."""
        for subject in self._told - self._waiting:
            self._board.clear("C07", subject=subject)
        self._told, self._waiting = self._waiting, set()
