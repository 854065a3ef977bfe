"""The columns of the jobs table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PySide6.QtCore import QObject
from PySide6.QtGui import QColor

from fabstir_desktop.jobs.views import JobView
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.models.keyed_table import Column, KeyedTableModel
from fabstir_desktop.ui.theme import colours
from fabstir_desktop.ui.words import job_sign, job_tone, job_word


class JobsModel(KeyedTableModel[JobView]):
    """Jobs by id, with live counts."""

    JOB, STATE, GENERATED, CLAIMED, PROVEN, UNCLAIMED, RATE, EARNED, CHANGED = range(9)
    FIXED_COLUMNS = 1

    def __init__(self, parent: QObject | None = None) -> None:
        self._rates: dict[int, float] = {}
        super().__init__((), parent)
        self._columns = self._make_columns()

    def show_rates(self, rates: Mapping[int, float]) -> None:
        """Take tokens per second by job."""
        changed = {job_id for job_id in {*self._rates, *rates} if self._rates.get(job_id) != rates.get(job_id)}
        self._rates = dict(rates)
        self.tell_changed(changed, self.RATE)

    # long: one table, a column after the other
    def _make_columns(self) -> tuple[Column[JobView], ...]:
        return (
            Column(
                self.tr("Job"),
                lambda job: fmt.short_job(job.job_id),
                lambda job: job.job_id,
                tip=lambda job: self.tr("Job {job}, session {session}").format(job=job.job_id, session=job.session_id),
            ),
            Column(
                self.tr("State"),
                lambda job: f"{job_sign(job.state)}  {job_word(job.state)}",
                lambda job: job_word(job.state),
                tip=lambda job: job.note or job_word(job.state),
                spoken=lambda job: job_word(job.state),
                colour=_state_colour,
            ),
            _count_column(self.tr("Generated"), lambda job: job.generated),
            _count_column(self.tr("Claimed"), lambda job: job.claimed),
            _count_column(self.tr("Proven"), lambda job: job.proven),
            _count_column(self.tr("Unclaimed"), lambda job: job.unclaimed),
            self._rate_column(),
            Column(
                self.tr("Earned"),
                lambda job: fmt.amounts(job.earned),
                lambda job: tuple((amount.token, amount.amount) for amount in job.earned) or None,
                is_number=True,
                tip=self._earned,
            ),
            Column(
                self.tr("Changed"),
                lambda job: fmt.clock(job.updated_at),
                lambda job: job.updated_at,
                is_number=True,
                tip=lambda job: fmt.full_time(job.updated_at),
            ),
        )

    def _earned(self, job: JobView) -> str:
        earned = fmt.amounts(job.earned, exact=True)
        if not job.pending:
            return earned
        return self.tr("{earned}, of which {pending} pending: in blocks that are not yet deep enough").format(
            earned=earned, pending=fmt.amounts(job.pending, exact=True)
        )

    def _rate_column(self) -> Column[JobView]:
        return Column(
            self.tr("Tokens/s"),
            lambda job: fmt.rate(self._rates.get(job.job_id)),
            lambda job: self._rates.get(job.job_id, 0.0),
            is_number=True,
        )


def _count_column(title: str, value: Callable[[JobView], int]) -> Column[JobView]:
    return Column(title, lambda job: fmt.count(value(job)), value, is_number=True)


def _state_colour(job: JobView) -> QColor | None:
    return colours().tones[job_tone(job.state)]
