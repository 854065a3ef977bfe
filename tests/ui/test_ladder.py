"""The ladder: tokens on every rung, money where the contract has said it, and else why it is not known."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from ui_support import CHAIN, make_status

from fabstir_desktop.jobs.views import EarningsView, TokenAmount
from fabstir_desktop.ui.widgets.ladder import RUNGS, Ladder

ETH = TokenAmount("ETH", 9 * 10**17)
SOME = EarningsView(
    generated=1000,
    claimed=900,
    proven=800,
    settled=800,
    written_off=0,
    earned=(ETH,),
    pending=(),
    treasury=(),
    gas_wei=0,
)
MARKETPLACE = make_status(chain=replace(CHAIN, contract_name="JobMarketplace"))


@pytest.fixture
def ladder(qtbot: QtBot) -> Ladder:
    made = Ladder()
    made.resize(1200, 200)
    qtbot.addWidget(made)
    return made


def shown(ladder: Ladder) -> dict[str, tuple[str, str, str]]:
    rungs: Any = ladder.rung_by_name
    return {name: (rungs[name].tokens.text(), rungs[name].money.full_text, rungs[name].note.text()) for name in RUNGS}


def test_money_stands_where_the_contract_has_paid_and_is_unknown_before(ladder: Ladder) -> None:
    ladder.show_earnings(SOME, make_status())
    rungs = shown(ladder)
    assert rungs["generated"] == ("1\u2009000", "unknown until paid", "100 not claimed yet")
    assert rungs["claimed"] == ("900", "unknown until paid", "100 on their way")
    assert rungs["proven"] == ("800", "0.9 ETH", "on chain, deep enough")
    assert rungs["settled"] == ("800", "0.9 ETH", "credited by the contract")
    assert rungs["withdrawn"] == ("800", "0.9 ETH", "paid straight to your wallet")


def test_proven_tokens_of_a_contract_that_pays_later_have_no_price_yet(ladder: Ladder) -> None:
    ladder.show_earnings(replace(SOME, settled=300), MARKETPLACE)
    assert shown(ladder)["proven"][1] == "unknown until paid"


def test_withdrawn_is_unknown_until_it_was_read_and_then_has_its_amount(ladder: Ladder) -> None:
    ladder.show_earnings(SOME, MARKETPLACE)
    assert shown(ladder)["withdrawn"] == ("–", "unknown", "not read from this contract")
    part = (TokenAmount("ETH", 10**17),)
    ladder.show_earnings(replace(SOME, withdrawn=part, withdrawn_as_of=time.time()), MARKETPLACE)
    assert shown(ladder)["withdrawn"] == ("–", "0.1 ETH", "taken out of the contract")
    ladder.show_earnings(replace(SOME, withdrawn=(ETH,), withdrawn_as_of=time.time() - 3600), MARKETPLACE)
    assert shown(ladder)["withdrawn"] == ("800", "0.9 ETH", "taken out, read 1 h 0 min ago")


def test_two_tokens_of_payment_stand_side_by_side(ladder: Ladder) -> None:
    both = (ETH, TokenAmount("0x036CbD53842c5426634e7929541eC2318f3dCF7e", 1_200_000))
    ladder.show_earnings(replace(SOME, earned=both), make_status())
    assert shown(ladder)["settled"][1] == "0.9 ETH  +  1.2 USDC"
    assert "1.2 USDC" in ladder.rung_by_name["settled"].accessibleName()


def test_before_anything_was_read_nothing_is_claimed_to_be_known(ladder: Ladder) -> None:
    ladder.show_earnings(None, None)
    assert all(tokens == "–" and money == "not read yet" for tokens, money, _ in shown(ladder).values())
