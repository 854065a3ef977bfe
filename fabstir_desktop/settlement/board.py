"""Problems of settlement, raised and cleared once each: on the feed for windows, in the log for hosts who grep."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from fabstir_desktop.errors import FabstirError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.events import ProblemCleared, ProblemRaised
from fabstir_desktop.jobs.problems import Problem, ProblemList, Severity
from fabstir_desktop.jobs.states import problem

log = logging.getLogger(__name__)

REPORT_STANDS_S = 24 * 3600.0
REPORTS_KEPT = 20
"""Of one code: each job's own row keeps its note for ever."""


class ClaimWaits(FabstirError):
    """A claim cannot be made just now; its tokens stay in the ledger. `retry_s` is when to look again."""

    def __init__(self, why: str, *, retry_s: float, problem: Problem | None = None) -> None:
        super().__init__(why)
        self.retry_s = retry_s
        self.problem = problem


class ShortOfGasMoney(ClaimWaits):
    """There is not enough gas money for this transaction beside those that are on their way; for a smaller one there may be."""


class ProblemBoard:
    """What stands in the way of payment now."""

    def __init__(self, feed: Feed, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._feed = feed
        self._clock = clock
        self._problems = ProblemList()
        self._logged: set[tuple[str, str]] = set()
        self._reported: dict[tuple[str, str], float] = {}
        """Reports of what is over, oldest first, with their time."""

    def raise_(self, problem: Problem) -> None:
        """Publish if it is new or says something new; log only when it begins, not each time its numbers move."""
        if not self._problems.raise_(problem):
            return
        key = (problem.code, problem.subject)
        if key not in self._logged:
            self._logged.add(key)
            level = logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING
            advice = f" What to do: {problem.advice}" if problem.advice else ""
            log.log(level, "%s: %s%s", problem.code, problem.message, advice)
        self._feed.publish(ProblemRaised(problem))

    def report(self, problem: Problem) -> None:
        """Raise what is over and can no longer be mended: it stands for a day, and makes room for newer ones before."""
        self.raise_(problem)
        key = (problem.code, problem.subject)
        self._reported.pop(key, None)
        self._reported[key] = self._clock()
        for old in [one for one in self._reported if one[0] == problem.code][:-REPORTS_KEPT]:
            self.clear(old[0], subject=old[1])
        self.expire()

    def expire(self) -> None:
        """Clear reports that have stood for a day."""
        for (code, subject), reported_at in tuple(self._reported.items()):
            if self._clock() - reported_at > REPORT_STANDS_S:
                self.clear(code, subject=subject)

    def clear(self, *codes: str, subject: str = "") -> None:
        """The causes are gone."""
        for code in codes:
            self._reported.pop((code, subject), None)
            if self._problems.clear(code, subject):
                self._logged.discard((code, subject))
                log.info("%s is over%s", code, f" ({subject})" if subject else "")
                self._feed.publish(ProblemCleared(code, subject))

    def keep(self, code: str, subjects: Collection[str]) -> None:
        """Of this code only these subjects still stand."""
        for one in tuple(self._problems):
            if one.code == code and one.subject not in subjects:
                self.clear(code, subject=one.subject)

    def clear_all(self, code: str) -> None:
        """The cause is gone for every subject."""
        self.keep(code, ())

    def stands(self, code: str, subject: str = "") -> bool:
        """Whether the problem is raised now."""
        return any(one.code == code and one.subject == subject for one in self._problems)

    @property
    def standing(self) -> list[Problem]:
        """What is raised now, worst first."""
        return list(self._problems)


def silent_endpoint_problem(nonce: int, names: Sequence[str]) -> Problem:
    """C07: what nobody may contradict cannot be settled while an endpoint that is configured does not answer."""
    message = (
        f"{', '.join(names)} does not answer. Nonce {nonce} was used by another transaction; its claims get a new one once "
        "every RPC has said that it does not have ours."
    )
    advice = "Wait for that RPC, or remove it from the setting if it is gone for good."
    return problem("C07", message, advice=advice)


def reverted_problem(
    job_id: int, tokens: int, plain: str, outcome: ClaimState, *, is_on_chain: bool = False
) -> Problem:
    """T02: a claim was mined and reverted; `is_on_chain` says that another transaction has made it."""
    ends = {
        ClaimState.WRITTEN_OFF: "They cannot be paid",
        ClaimState.HELD: "They are kept and tried again",
    }.get(outcome, "They are claimed again")
    if is_on_chain:
        ends = "Another transaction has claimed them, and they are not claimed twice"
    message = f"The claim of {tokens} tokens for job {job_id} was refused on chain: {plain}. {ends}."
    return problem("T02", message, subject=str(job_id))
