"""The table of states is complete, and the product itself brings each of them about, with the table's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from played_chain import CHAIN_ID, CONTRACT, PlayedEndpoint
from state_producers import NOT_PRODUCED, PRODUCERS, _registered, produce
from wallet_support import KEY

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.states import STATES, problem, state_of
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts.node_register import NodeRegister
from fabstir_desktop.settlement.rpc_pool import RpcPool


@pytest.mark.parametrize("code", sorted(PRODUCERS))
async def test_the_product_brings_the_state_about(code: str, tmp_path: Path) -> None:
    found = await produce(code, tmp_path)
    assert found.message.endswith((".", "?"))
    assert found.message[0].isupper()
    assert (found.action, found.page) == (STATES[code].action, STATES[code].page)


def test_what_is_not_brought_about_is_known_with_its_reason() -> None:
    made_by_the_app = {"D02", "N01"}
    assert set(STATES) - set(PRODUCERS) - set(NOT_PRODUCED) == made_by_the_app


def test_a_code_of_another_version_is_shown_as_it_says_itself() -> None:
    strange = Problem("Z99", Severity.WARNING, "Something new.", "Look", page="logs")
    assert (state_of(strange).action, state_of(strange).page, state_of(strange).is_dismissible) == (
        "Look",
        "logs",
        False,
    )
    with pytest.raises(KeyError):
        problem("Z99", "Something new.")


async def test_a_host_whose_entry_is_right_is_told_nothing(tmp_path: Path) -> None:
    assert await _registered()(tmp_path) == []


async def test_a_marketplace_that_names_no_register_tells_nothing() -> None:
    board = ProblemBoard(Feed())
    client = ChainClient(RpcPool([PlayedEndpoint()], CHAIN_ID))
    await NodeRegister(client, CONTRACT, board, public_url=None, model_sha256=str).look(KEY.address)
    assert board.standing == []
