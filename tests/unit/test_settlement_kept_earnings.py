"""What a contract keeps for the host, and what that says of withdrawals: never more than was credited, never two tokens added."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.errors import LedgerError, RpcUnreachable
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.views import EarningsView, TokenAmount, with_kept
from fabstir_desktop.settlement.kept_earnings import READ_EVERY_S, KeptEarnings

HOST, FORMER = "0x" + "ab" * 20, "0x" + "cd" * 20
USDC = "0x" + "11" * 20
VIEW = EarningsView(900, 900, 900, 900, 0, (TokenAmount("ETH", 700), TokenAmount(USDC, 50)), (), (), 0)
AMOUNTS = st.dictionaries(st.sampled_from(["ETH", USDC, "0x" + "22" * 20]), st.integers(1, 2**200))


@given(AMOUNTS, AMOUNTS)
def test_withdrawn_and_kept_are_together_what_was_credited_and_never_more(
    earned: dict[str, int], kept: dict[str, int]
) -> None:
    view = replace(VIEW, earned=tuple(TokenAmount(*item) for item in earned.items()))
    told = with_kept(view, tuple(TokenAmount(*item) for item in kept.items()), 5.0)
    withdrawn = {one.token: one.amount for one in told.withdrawn or ()}
    assert withdrawn == {
        token: amount - kept.get(token, 0) for token, amount in earned.items() if amount > kept.get(token, 0)
    }
    assert told.withdrawn_as_of == 5.0


def test_what_was_not_read_stays_unknown() -> None:
    assert with_kept(VIEW, None, None) == VIEW
    assert VIEW.withdrawn is None


class Contract:
    """Keeps an amount for each host and token; may be away, or unable to tell."""

    rules = SimpleNamespace(settles_later=True)

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], int | None] = {(HOST, "ETH"): 300, (FORMER, "ETH"): 5, (HOST, USDC): 7}
        self.asked = 0
        self.is_away = False

    async def earnings_balance(self, host: str, token: str) -> int | None:
        self.asked += 1
        if self.is_away:
            raise RpcUnreachable("gone")
        return self.kept.get((host, token), 0)


class Books:
    """A ledger that two keys have signed in."""

    def __init__(self) -> None:
        self.view = VIEW
        self.is_broken = False

    async def earnings(self) -> EarningsView:
        if self.is_broken:
            raise LedgerError("broken")
        return self.view

    async def senders(self) -> list[str]:
        return [HOST.upper().replace("0X", "0x"), FORMER]


async def test_all_keys_count_it_is_asked_seldom_and_an_outage_changes_nothing() -> None:
    contract, books, now = Contract(), Books(), [0.0]
    kept = KeptEarnings(cast("Any", books), cast("Any", contract), Feed(), clock=lambda: now[0])
    await kept.refresh(HOST)
    wanted = (TokenAmount(USDC, 7), TokenAmount("ETH", 305))
    assert kept.amounts == wanted
    assert contract.asked == 4
    await kept.refresh(HOST)
    assert contract.asked == 4, "it was read just now"
    contract.is_away = True
    now[0] += READ_EVERY_S
    await kept.refresh(HOST)
    books.is_broken = True
    await kept.refresh(HOST)
    assert kept.amounts == wanted
    contract.is_away = books.is_broken = False
    books.view = replace(VIEW, earned=(TokenAmount("ETH", 900),))
    contract.kept = {}
    await kept.refresh(HOST)
    assert kept.amounts == (), "read at once, for more was earned"
    contract.kept = {(FORMER, "ETH"): None}
    now[0] += READ_EVERY_S
    await kept.refresh(HOST)
    assert kept.amounts is None, "it cannot be asked"


@pytest.mark.parametrize("host", [None, HOST])
async def test_a_contract_that_pays_at_once_is_not_asked(host: str | None) -> None:
    contract = Contract()
    contract.rules = SimpleNamespace(settles_later=False)
    kept = KeptEarnings(cast("Any", Books()), cast("Any", contract), Feed())
    await kept.refresh(host)
    assert (contract.asked, kept.amounts) == (0, None)
