"""Problems the host should see: one list, worst first, each with a code, a cause and an action."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is."""

    INFORMATION = 1
    WARNING = 2  # serves with risk
    ERROR = 3  # stops serving or payment


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `code` (such as C01) is for search and support; `subject` tells two of one code apart (a job, a tx)."""

    code: str
    severity: Severity
    message: str
    action: str
    """What to do, as a short verb phrase; empty when there is nothing to do."""
    subject: str = ""
    page: str = ""
    """The page of the window where it is mended."""
    advice: str = ""
    """A sentence on what to do, where a button's few words do not say enough."""


class ProblemList:
    """The problems that stand now."""

    def __init__(self) -> None:
        self._problems: dict[tuple[str, str], Problem] = {}

    def raise_(self, problem: Problem) -> bool:
        """Add or replace; returns whether anything changed."""
        key = (problem.code, problem.subject)
        if self._problems.get(key) == problem:
            return False
        self._problems[key] = problem
        return True

    def clear(self, code: str, subject: str = "") -> bool:
        """Remove; returns whether it stood."""
        return self._problems.pop((code, subject), None) is not None

    def __iter__(self) -> Iterator[Problem]:
        return iter(sorted(self._problems.values(), key=lambda p: (-p.severity, p.code, p.subject)))

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether a problem of this code and subject stands."""
        return key in self._problems

    def __len__(self) -> int:
        return len(self._problems)
