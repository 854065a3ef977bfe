"""A transaction that is asked for by hand: what every endpoint says of it, and nothing decided."""

from __future__ import annotations

from typing import Any

import pytest
from ledger_support import bytes32

from fabstir_desktop.errors import RpcUnreachable, UserError
from fabstir_desktop.jobs.inspections import ChainTransaction
from fabstir_desktop.settlement.chain_client import BlockRef, Receipt
from fabstir_desktop.settlement.looking_up import look_up

HASH = bytes32("tx")


class Client:
    def __init__(self, *answers: Any) -> None:
        self.answers = answers

    async def receipts_everywhere(self, tx_hash: bytes) -> list[Any]:
        assert tx_hash == HASH
        return list(self.answers)

    async def head(self) -> BlockRef:
        return BlockRef(12, bytes32(12), 0, 0)


def receipt(block: int, *, succeeded: bool = True) -> Receipt:
    return Receipt(HASH, block, bytes32(block), succeeded, 1, 1, ())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((receipt(10), None), ChainTransaction(10, 3, True, 2)),
        ((receipt(10, succeeded=False),), ChainTransaction(10, 3, False, 1)),
        ((receipt(13),), ChainTransaction(13, 1, True, 1)),
        ((None, RpcUnreachable("gone")), ChainTransaction(None, None, None, 1)),
    ],
)
async def test_what_the_endpoints_say_is_put_together(answers: Any, expected: ChainTransaction) -> None:
    client: Any = Client(*answers)
    assert await look_up(client, "0x" + HASH.hex()) == expected


async def test_silence_of_all_is_not_taken_for_an_answer() -> None:
    client: Any = Client(RpcUnreachable("gone"))
    with pytest.raises(RpcUnreachable, match="unknown"):
        await look_up(client, "0x" + HASH.hex())


@pytest.mark.parametrize("text", ["0x12", "nonsense", ""])
async def test_what_is_no_hash_is_refused(text: str) -> None:
    client: Any = Client()
    with pytest.raises(UserError, match="no transaction hash"):
        await look_up(client, text)
