"""One transaction, asked for by hand: what does every endpoint say of it?

It decides nothing: what becomes of a claim is the reconciler's to say, with its own rules for what counts as proof.
"""

from __future__ import annotations

from fabstir_desktop.errors import RpcUnreachable, UserError
from fabstir_desktop.jobs.inspections import ChainTransaction
from fabstir_desktop.settlement.chain_client import ChainClient, Receipt

_HASH_BYTES = 32


async def look_up(client: ChainClient, tx_hash: str) -> ChainTransaction:
    """Ask all of them; the answer is of the newest block that any has. Raises RpcUnreachable if none answers, UserError."""
    try:
        wanted = bytes.fromhex(tx_hash.removeprefix("0x"))
    except ValueError:
        wanted = b""
    if len(wanted) != _HASH_BYTES:
        raise UserError(f"{tx_hash[:80]} is no transaction hash")
    answers = await client.receipts_everywhere(wanted)
    answered = [answer for answer in answers if not isinstance(answer, Exception)]
    if not answered:
        raise RpcUnreachable("no RPC answers: whether the transaction is in a block is unknown")
    mined = max((one for one in answered if isinstance(one, Receipt)), key=lambda one: one.block_number, default=None)
    if mined is None:
        return ChainTransaction(None, None, None, len(answered))
    head = await client.head()
    deep = max(head.number - mined.block_number + 1, 1)
    return ChainTransaction(mined.block_number, deep, mined.succeeded, len(answered))
