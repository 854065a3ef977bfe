"""What geth and reth say and refuse where anvil speaks or does otherwise."""

from __future__ import annotations

from collections import Counter
from typing import Any

from raw_transactions import RawTransaction, read_raw_text

DIALECTS = ("geth", "reth")
TEXTS = {
    "geth": {
        "already imported": "already known",
        "nonce too low": "nonce too low: next nonce {next_nonce}, tx nonce {nonce}",
        "insufficient funds": "insufficient funds for gas * price + value: balance 1, tx cost 2, overshot 1",
        "underpriced": "replacement transaction underpriced",
    },
    "reth": {
        "already imported": "already known",
        "nonce too low": "nonce too low: next nonce {next_nonce}, tx nonce {nonce}",
        "insufficient funds": "insufficient funds for gas * price + value: have 1 want 2",
        "underpriced": "replacement transaction underpriced",
    },
}
"""Each node's words for what anvil says with other ones."""
PRICE_BUMP_PERCENT = 10


class NodeRules:
    """One node's pool: a replacement has to raise both fees by a tenth. `hits` counts what passed and what was refused."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.hits: Counter[str] = Counter()
        self._pool: dict[tuple[str, int], RawTransaction] = {}
        self._asked_wei: dict[tuple[str, int], int] = {}

    def refusal_of(self, raw: str) -> dict[str, Any] | None:
        """The error for a tip that is too low, or a replacement that raises too little; None for what may go on to the chain."""
        new = read_raw_text(raw)
        asked_wei = self._asked_wei.get((new.sender, new.nonce), 0)
        if new.max_priority_fee_per_gas_wei < asked_wei:
            return {"code": -32000, "message": underpriced(new.max_priority_fee_per_gas_wei, asked_wei)}
        old = self._pool.get((new.sender, new.nonce))
        if old is not None and old.tx_hash != new.tx_hash:
            if not is_raised_enough(old, new):
                self.hits["refused"] += 1
                return {"code": -32000, "message": "replacement transaction underpriced"}
            self.hits["replaced"] += 1
        self._pool[new.sender, new.nonce] = new
        return None

    def ask_more(self, raw: str) -> None:
        """Keep the transaction where no block takes it, until one of the same nonce pays a higher tip."""
        kept = read_raw_text(raw)
        place = (kept.sender, kept.nonce)
        if place not in self._asked_wei:
            self._asked_wei[place] = kept.max_priority_fee_per_gas_wei + 1
            self._pool[place] = kept

    def translate(self, raw: str, reply: dict[str, Any]) -> None:
        """Put a refusal of anvil's in this node's words."""
        if "error" not in reply:
            return
        said = str(reply["error"]["message"]).lower()
        nonce = read_raw_text(raw).nonce
        for words, text in TEXTS[self.dialect].items():
            if words in said:
                message = text.format(nonce=nonce, next_nonce=nonce + 1)
                reply["error"] = {"code": -32000, "message": message}
                self.hits["translated"] += 1
                return


def underpriced(tip_wei: int, needed_wei: int) -> str:
    """geth's words for a tip below the pool's minimum."""
    return f"transaction underpriced: gas tip cap {tip_wei}, minimum needed {needed_wei}"


def is_raised_enough(old: RawTransaction, new: RawTransaction) -> bool:
    """Whether both fees are a tenth higher."""
    pairs = (
        (old.max_fee_per_gas_wei, new.max_fee_per_gas_wei),
        (old.max_priority_fee_per_gas_wei, new.max_priority_fee_per_gas_wei),
    )
    return all(after * 100 >= before * (100 + PRICE_BUMP_PERCENT) for before, after in pairs)
