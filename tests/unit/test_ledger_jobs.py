"""Jobs, answers, tokens and sessions."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from ledger_support import HOST, VENUE, count, opened, plan

from fabstir_desktop.errors import LedgerError, LedgerRefused
from fabstir_desktop.jobs.claims import ClaimReason
from fabstir_desktop.jobs.ids import MAX_UINT256
from fabstir_desktop.ledger import writer as writer_module


async def test_every_token_adds_to_the_total_of_its_job(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        ticket = await ledger.open_ticket(7, "s")
        totals = [await ledger.add_tokens(ticket, [n]) for n in range(5)]
        account = await ledger.account(7)
    assert totals == [1, 2, 3, 4, 5]
    assert account is not None
    assert (account.generated, account.unclaimed, account.claimable, account.session_open) == (5, 5, 5, True)


async def test_tokens_of_several_answers_in_one_turn_are_all_counted(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        tickets = [await ledger.open_ticket(job, "s") for job in (1, 2, 1)]
        totals = await asyncio.gather(*(ledger.add_tokens(ticket, [1, 2, 3]) for ticket in tickets))
        nothing = await ledger.add_tokens(tickets[0], [])
    assert totals == [3, 3, 6]
    assert nothing == 6


async def test_calls_of_one_turn_share_one_commit_and_one_answer(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        ticket = await ledger.open_ticket(1, "s")
        hops: list[object] = []
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: hops.append(args) or original(*args)  # type: ignore[method-assign]
        try:
            await asyncio.gather(*(ledger.add_tokens(ticket, [1]) for _ in range(50)))
        finally:
            loop.call_soon_threadsafe = original  # type: ignore[method-assign]
    assert len(hops) == 1


async def test_the_largest_job_id_is_kept_exactly(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, MAX_UINT256, 3)
        assert [view.job_id for view in await ledger.job_views()] == [MAX_UINT256]
        assert [account.job_id for account in await ledger.accounts_with_unclaimed()] == [MAX_UINT256]


async def test_a_closed_or_unknown_answer_counts_no_token(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        ticket = await ledger.open_ticket(1, "s")
        await ledger.close_ticket(ticket, "stop")
        await ledger.close_ticket(ticket, "error")
        good = await ledger.open_ticket(1, "s")
        answers = await asyncio.gather(
            ledger.add_tokens(ticket, [1]),
            ledger.add_tokens(good, [1]),
            ledger.add_tokens(999, [1]),
            ledger.add_tokens(good, [2**40]),
            ledger.store_prompt(ticket, [1], "{}", ""),
            return_exceptions=True,
        )
        account = await ledger.account(1)
    assert [type(answer) for answer in answers[:3]] == [LedgerRefused, int, LedgerRefused]
    assert isinstance(answers[3], Exception), "an id beyond 32 bits is refused, alone"
    assert isinstance(answers[4], LedgerRefused)
    assert account is not None
    assert account.generated == 1


async def test_a_transcript_holds_exactly_the_range_and_what_it_was_made_from(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        first, second = await ledger.open_ticket(1, "s"), await ledger.open_ticket(1, "s")
        await ledger.store_prompt(first, [5, 6], '{"seed":1}', "ab" * 32)
        await ledger.store_prompt(second, [7], '{"seed":2}', "cd" * 32)
        for ticket, ids in ((first, [10, 11, 12]), (first, [13]), (second, [20, 21]), (first, [14, -1])):
            await ledger.add_tokens(ticket, ids)
        segments = await ledger.transcript(1, 1, 7)
        everything = await ledger.transcript(1, 0, 8)
        nothing = await ledger.transcript(2, 0, 8)
    assert [(s.ticket_id, s.start, s.token_ids) for s in segments] == [
        (first, 1, (11, 12, 13)),
        (second, 4, (20, 21)),
        (first, 6, (14,)),
    ]
    assert (segments[0].prompt_ids, segments[0].parameters, segments[0].model_sha256) == (
        (5, 6),
        '{"seed":1}',
        "ab" * 32,
    )
    assert [token for s in everything for token in s.token_ids] == [10, 11, 12, 13, 20, 21, 14, -1]
    assert nothing == []


async def test_ending_a_session_names_its_jobs_and_no_others(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 5, "a")
        await count(ledger, 2, 5, "a")
        await count(ledger, 3, 5, "b")
        await count(ledger, 2, 5, "b")  # the job went on in another session
        assert sorted(await ledger.end_session("a")) == [1]
        assert await ledger.end_session("a") == []
        assert sorted(await ledger.end_session("b")) == [2, 3]
        assert all(not account.session_open for account in await ledger.accounts_with_unclaimed())


async def test_no_session_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await ledger.open_ticket(1, "a")
        await count(ledger, 2, 5, "b")
        await ledger.end_session("b")
    async with opened(path) as ledger:
        assert await ledger.end_all_sessions() == [1]
        assert await ledger.end_all_sessions() == []
        view = await ledger.job_view(1)
    assert view is not None
    assert view.state == "settled"


async def test_venues_share_a_file_but_not_their_jobs(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    other = type(VENUE)(VENUE.chain_id, "0x" + "22" * 20, "job_marketplace")
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
    async with opened(path, other) as ledger:
        assert await ledger.account(1) is None
        assert await count(ledger, 1, 7) == 7
        assert (await ledger.earnings()).generated == 7
    async with opened(path) as ledger:
        assert (await ledger.earnings()).generated == 5


async def test_after_closing_everything_is_refused_and_nothing_hangs(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        ticket = await ledger.open_ticket(1, "s")
        last = ledger.add_tokens(ticket, [1])
        await ledger.close()
        assert await last == 1, "what was counted before the end is committed"
        with pytest.raises(LedgerError):
            await ledger.add_tokens(ticket, [1])
        with pytest.raises(LedgerError):
            await ledger.open_ticket(1, "s")
        with pytest.raises(LedgerError):
            await ledger.account(1)
        with pytest.raises(LedgerError):
            await ledger.plan_claim(
                1, 0, 1, reason=ClaimReason.FORCED, host=HOST, record=b"", proof_hash=bytes(32), proof=b"", calldata=b""
            )


async def test_too_many_waiting_writes_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAXIMUM_WAITING", 10)
    async with opened(tmp_path / "ledger.db") as ledger:
        ticket = await ledger.open_ticket(1, "s")
        gate, running = threading.Event(), threading.Event()

        def hold(_db: object) -> None:
            running.set()
            gate.wait(10)

        held = ledger._engine.write(hold, durable=False)
        assert await asyncio.to_thread(running.wait, 10)
        tokens = [ledger.add_tokens(ticket, [1]) for _ in range(11)]
        refused = await asyncio.gather(*tokens, return_exceptions=True)
        gate.set()
        await held
        assert all(isinstance(error, LedgerError) for error in refused)
        assert await ledger.add_tokens(ticket, [1]) == 1


async def test_a_write_that_fails_takes_no_other_of_its_group_along(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await count(ledger, 1, 100)
        await count(ledger, 2, 100)
        good, beyond, other = await asyncio.gather(
            plan(ledger, 1, 0, 100), plan(ledger, 2, 0, 101), plan(ledger, 2, 0, 50), return_exceptions=True
        )
    assert not isinstance(good, BaseException)
    assert isinstance(beyond, LedgerRefused)
    assert not isinstance(other, BaseException)


async def test_a_remark_is_shown_until_it_is_cleared(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as ledger:
        await ledger.note_job(1, "40 tokens cannot be claimed")
        await ledger.note_job(1, "40 tokens cannot be claimed")
        view = await ledger.job_view(1)
        assert view is not None
        assert view.note == "40 tokens cannot be claimed"
        assert [text for _at, text in await ledger.journal(1)] == ["40 tokens cannot be claimed"]
        await ledger.note_job(1, "")
        view = await ledger.job_view(1)
        assert view is not None
        assert view.note == ""
