"""What must not be believed of one endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.errors import ChainError, RpcRefused, RpcUnreachable
from fabstir_desktop.settlement.agreement import agreed, agreeing, is_agreeing
from fabstir_desktop.settlement.rpc_pool import RpcPool

SILENT = RpcUnreachable("no answer")
ANSWERS = st.sampled_from(["0x1", "0x2", None, SILENT])


@given(st.lists(st.tuples(ANSWERS, st.sampled_from("abc")), min_size=1, max_size=5))
def test_an_answer_has_two_hosts_behind_it_or_the_only_one_and_nobody_against_it(rows: list[tuple[Any, str]]) -> None:
    answers, hosts = [row[0] for row in rows], [row[1] for row in rows]
    try:
        found = agreed(answers, hosts)
    except RpcUnreachable:
        said = {answer for answer in answers if answer is not SILENT}
        behind = {host for answer, host in rows if answer is not SILENT}
        assert len(said) > 1 or len(behind) < min(2, len(set(hosts)))
    else:
        behind = {host for answer, host in rows if answer == found and answer is not SILENT}
        assert len(behind) >= min(2, len(set(hosts)))
        assert all(answer is SILENT or answer == found for answer in answers)


def test_a_revert_is_agreed_on_by_its_data_and_a_missing_history_is_no_testimony() -> None:
    first = RpcRefused("", code=3, detail="execution reverted: job not open", data="0x08c379a0AA")
    second = RpcRefused("", code=-32000, detail="VM Exception: revert job not open", data="0x08c379a0aa")
    with pytest.raises(RpcRefused):
        agreed([first, second], ["a", "b"])
    pruned = RpcRefused("", code=-32000, detail="missing trie node 5f (path ) state is not available")
    with pytest.raises(RpcUnreachable):
        agreed([first, pruned], ["a", "b"])


class Node:
    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self.answer = answer

    async def request(self, method: str, *_: Any, timeout_s: float | None = None) -> Any:
        return hex(5) if method == "eth_chainId" else self.answer

    async def close(self) -> None:
        pass


async def test_a_pool_asks_all_only_where_it_matters_and_one_url_is_unverified() -> None:
    pool = RpcPool([Node("a", "0x1"), Node("b", "0x2")], 5)
    assert await pool.request("eth_call") == "0x1"
    with agreeing():
        assert is_agreeing()
        with pytest.raises(ChainError, match="do not agree"):
            await pool.request("eth_call")
    assert not is_agreeing()
    assert pool.is_verified
    twice = RpcPool([Node("a", "0x1"), Node("a", "0x1")], 5)
    assert not twice.is_verified, "two URLs of one host are one witness"
    with agreeing():
        assert await twice.request("eth_call") == "0x1"
