"""Settlement's problems: raised once, cleared once, and a report of what is over does not stand for ever."""

from __future__ import annotations

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import ProblemCleared, ProblemRaised
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.settlement.board import REPORT_STANDS_S, REPORTS_KEPT, ProblemBoard
from fabstir_desktop.standing import StandingProblems


def tail(job_id: int) -> object:
    return problem("J04", f"Job {job_id}: 20 tokens cannot be paid.", subject=str(job_id))


def test_reports_of_finished_jobs_make_room_for_newer_ones() -> None:
    board = ProblemBoard(Feed())
    board.raise_(problem("T02", "Job 1 cannot be claimed.", subject="1"))
    for job_id in range(REPORTS_KEPT + 40):
        board.report(tail(job_id))  # type: ignore[arg-type]
    subjects = {one.subject for one in board.standing if one.code == "J04"}
    assert subjects == {str(job_id) for job_id in range(40, REPORTS_KEPT + 40)}
    assert board.stands("T02", "1")


def test_a_report_is_over_after_a_day_and_what_must_be_mended_is_not() -> None:
    now = [0.0]
    board = ProblemBoard(Feed(), clock=lambda: now[0])
    board.report(tail(5))  # type: ignore[arg-type]
    board.raise_(problem("G02", "Not enough ETH."))
    now[0] = REPORT_STANDS_S - 1
    board.expire()
    assert board.stands("J04", "5")
    now[0] = REPORT_STANDS_S + 1
    board.expire()
    assert [one.code for one in board.standing] == ["G02"]


def test_what_the_host_has_read_is_put_away_and_comes_back_only_with_news() -> None:
    feed = Feed()
    standing = StandingProblems(feed)
    board = ProblemBoard(feed)
    board.report(tail(5))  # type: ignore[arg-type]
    must_be_mended = problem("M01", "No model selected.")
    standing.derive([must_be_mended])
    standing.dismiss(tuple(standing))
    assert list(standing) == [must_be_mended]
    board.report(tail(5))  # type: ignore[arg-type]
    assert list(standing) == [must_be_mended]
    board.report(problem("J04", "Job 5: 40 tokens cannot be paid.", subject="5"))
    assert {one.code for one in standing} == {"M01", "J04"}


def test_what_no_longer_follows_from_the_state_is_gone() -> None:
    feed = Feed()
    standing = StandingProblems(feed)
    feed.publish(ProblemRaised(problem("C03", "The RPC limits requests.")))
    standing.derive([problem("M06", "Loading, 10%.")])
    standing.derive([problem("M06", "Loading, 90%.")])
    assert {one.code for one in standing} == {"C03", "M06"}
    standing.derive([])
    assert [one.code for one in standing] == ["C03"]
    feed.publish(ProblemCleared("C03", ""))
    assert not list(standing)
