"""What windows, commands and scripts read of a running node's ledger."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.jobs.views import ClaimView, EarningsPoint, EarningsView, JobView, TransactionView
from fabstir_desktop.ledger.ledger import Ledger

_Part = TypeVar("_Part")


def running(part: _Part | None) -> _Part:
    """The part of a node that was started. Raises EnvironmentFault before that."""
    if part is None:
        raise EnvironmentFault("the node is not started")
    return part


class LedgerReads:
    """The questions of a node that its ledger answers. Each raises LedgerError, and EnvironmentFault before the start."""

    _ledger: Ledger | None = None

    async def jobs(self, job_ids: Collection[int] | None = None) -> list[JobView]:
        """Jobs, most recently changed first; only those of `job_ids` if any are named."""
        return await running(self._ledger).job_views(job_ids=job_ids)

    async def job(self, job_id: int) -> JobView | None:
        """One job's row; None if it is not known."""
        return await running(self._ledger).job_view(job_id)

    async def claims(self, job_id: int) -> list[ClaimView]:
        """The job's claims, newest first, each with its transaction."""
        return await running(self._ledger).claim_views(job_id)

    async def transactions(self, limit: int | None = None) -> list[TransactionView]:
        """Transactions, newest first; all of them without a limit."""
        return await running(self._ledger).transaction_views(limit=limit)

    async def transaction_count(self) -> int:
        """How many transactions there are in all."""
        return await running(self._ledger).transaction_count()

    async def earnings(self) -> EarningsView:
        """The ladder."""
        return await running(self._ledger).earnings()

    async def earnings_series(self, *, since: float, bucket_seconds: int) -> list[EarningsPoint]:
        """Points of the plot."""
        return await running(self._ledger).earnings_series(since=since, bucket_seconds=bucket_seconds)

    async def journal(self, job_id: int | None = None) -> list[tuple[float, str]]:
        """What happened (time, sentence), newest first."""
        return await running(self._ledger).journal(job_id)
