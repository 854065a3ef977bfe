"""What stands in the host's way now: gathered from every room, derived anew by the node, put away by the host."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import ChainChanged, ProblemCleared, ProblemRaised, ServingChanged
from fabstir_desktop.jobs.problems import Problem, ProblemList, Severity
from fabstir_desktop.jobs.states import state_of

log = logging.getLogger(__name__)


class StandingProblems:
    """Keeps one list; belongs to the loop of its feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._problems = ProblemList()
        self._derived: set[tuple[str, str]] = set()
        feed.subscribe(ProblemRaised, lambda event: self._note(event.problem))
        feed.subscribe(ProblemCleared, lambda event: self._forget(event.code, event.subject))

    def __iter__(self) -> Iterator[Problem]:
        """Worst first."""
        return iter(self._problems)

    def derive(self, found: Sequence[Problem]) -> None:
        """These follow from the state just now; what followed from it before and does so no longer is gone."""
        keys = {(problem.code, problem.subject) for problem in found}
        for key in self._derived - keys:
            self._forget(*key)
        self._derived = keys
        for problem in found:
            is_new = (problem.code, problem.subject) not in self._problems
            self._note(problem)
            if is_new:  # not again for each percent of a model being loaded
                level = logging.INFO if problem.severity is Severity.INFORMATION else logging.WARNING
                log.log(level, "%s: %s %s", problem.code, problem.message, problem.advice or problem.action)

    def dismiss(self, problems: Collection[Problem]) -> None:
        """Put away what the host has read; it comes back if it says something new. What must be mended stays."""
        for problem in problems:
            if state_of(problem).is_dismissible:
                self._forget(problem.code, problem.subject)

    def _note(self, problem: Problem) -> None:
        if self._problems.raise_(problem):
            self._feed.publish(ChainChanged() if problem.code[0] in "CGT" else ServingChanged())

    def _forget(self, code: str, subject: str) -> None:
        if self._problems.clear(code, subject):
            self._feed.publish(ServingChanged())
