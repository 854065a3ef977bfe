"""The pool of transactions that wait for a block, with the rules and words of geth's.

One transaction per sender and nonce. A nonce above the next one waits until the gap is filled; a second transaction with
the same nonce replaces the first only if it pays at least a tenth more in both fees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fabstir_desktop.devnet.answers import SERVER_ERROR, RpcFault, to_hex

MAX_RAW_BYTES = 128 * 1024
MAX_POOL_TRANSACTIONS = 5_000
_REPLACEMENT_PERCENT = 110
_FLOOR_GAS_PER_TOKEN = 10


@dataclass(frozen=True, slots=True)
class Waiting:
    """A transaction that has a valid signature and is not in a block yet."""

    transaction: Any
    sender: bytes
    arrival: int

    @property
    def hash(self) -> bytes:
        """The transaction's hash."""
        return bytes(self.transaction.hash)

    @property
    def nonce(self) -> int:
        """The transaction's nonce."""
        return int(self.transaction.nonce)

    @property
    def cost_wei(self) -> int:
        """What the sender must own for it: value and the most that the gas may cost."""
        return int(self.transaction.value + self.transaction.gas * self.transaction.max_fee_per_gas)


class TransactionPool:
    """Transactions by sender and nonce. Knows no state: who asks tells the sender's nonce and balance."""

    def __init__(self, chain_id: int, gas_limit: int) -> None:
        self._chain_id = chain_id
        self._gas_limit = gas_limit
        self._by_sender: dict[bytes, dict[int, Waiting]] = {}
        self._by_hash: dict[bytes, Waiting] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, tx_hash: bytes) -> Waiting | None:
        """Return the waiting transaction of that hash."""
        return self._by_hash.get(tx_hash)

    def add(self, transaction: Any, sender: bytes, next_nonce: int, balance_wei: int) -> None:
        """Take a transaction in. Raises RpcFault in geth's words when the pool's rules refuse it."""
        if bytes(transaction.hash) in self._by_hash:
            raise RpcFault(SERVER_ERROR, "already known")
        self._check_shape(transaction)
        entry = Waiting(transaction, sender, self._arrivals)
        if entry.nonce < next_nonce:
            raise RpcFault(
                SERVER_ERROR,
                f"nonce too low: address {to_hex(sender)}, tx: {entry.nonce} state: {next_nonce}",
            )
        own = self._by_sender.setdefault(sender, {})
        self._check_funds(entry, own, balance_wei)
        replaced = own.get(entry.nonce)
        if replaced is not None:
            _check_replacement(replaced.transaction, transaction)
            del self._by_hash[replaced.hash]
        elif len(self._by_hash) >= MAX_POOL_TRANSACTIONS:
            raise RpcFault(SERVER_ERROR, "txpool is full")
        self._arrivals += 1
        own[entry.nonce] = entry
        self._by_hash[entry.hash] = entry

    def drop(self, tx_hash: bytes) -> bool:
        """Forget a transaction; tell whether it was there."""
        entry = self._by_hash.pop(tx_hash, None)
        if entry is None:
            return False
        own = self._by_sender[entry.sender]
        del own[entry.nonce]
        if not own:
            del self._by_sender[entry.sender]
        return True

    def forget_mined(self, sender: bytes, next_nonce: int) -> None:
        """Drop what can never be mined because its nonce is used."""
        for entry in [item for nonce, item in self._by_sender.get(sender, {}).items() if nonce < next_nonce]:
            self.drop(entry.hash)

    def next_nonce(self, sender: bytes, state_nonce: int) -> int:
        """Return the first nonce that neither the state nor an unbroken row in the pool has used."""
        own = self._by_sender.get(sender, {})
        while state_nonce in own:
            state_nonce += 1
        return state_nonce

    def senders(self) -> list[bytes]:
        """Return who has transactions waiting."""
        return list(self._by_sender)

    def executable(self, nonces: dict[bytes, int], base_fee_wei: int) -> Iterator[Waiting]:
        """Yield what a block may take: per sender in the order of nonces, between senders as it arrived."""
        rows = [list(self._row(sender, nonces[sender], base_fee_wei)) for sender in self._by_sender]
        for row in sorted((row for row in rows if row), key=lambda row: row[0].arrival):
            yield from row

    def _row(self, sender: bytes, nonce: int, base_fee_wei: int) -> Iterator[Waiting]:
        own = self._by_sender[sender]
        while nonce in own and own[nonce].transaction.max_fee_per_gas >= base_fee_wei:
            yield own[nonce]
            nonce += 1

    def _check_shape(self, transaction: Any) -> None:
        chain_id = transaction.chain_id
        if chain_id is None:
            raise RpcFault(SERVER_ERROR, "only replay-protected (EIP-155) transactions allowed over RPC")
        if chain_id != self._chain_id:
            raise RpcFault(
                SERVER_ERROR, f"invalid sender: invalid chain id for signer: have {chain_id} want {self._chain_id}"
            )
        if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
            raise RpcFault(SERVER_ERROR, "max priority fee per gas higher than max fee per gas")
        if transaction.gas > self._gas_limit:
            raise RpcFault(SERVER_ERROR, "exceeds block gas limit")
        if transaction.gas < transaction.intrinsic_gas:
            raise RpcFault(
                SERVER_ERROR,
                f"intrinsic gas too low: gas {transaction.gas}, minimum needed {transaction.intrinsic_gas}",
            )
        floor = data_floor_gas(transaction.data)
        if transaction.gas < floor:
            raise RpcFault(
                SERVER_ERROR,
                f"insufficient gas for floor data gas cost: gas {transaction.gas}, minimum needed {floor}",
            )

    def _check_funds(self, entry: Waiting, own: dict[int, Waiting], balance_wei: int) -> None:
        """A sender must be able to pay for everything that waits before and with this transaction."""
        queued = sum(item.cost_wei for nonce, item in own.items() if nonce < entry.nonce)
        needed = queued + entry.cost_wei
        if needed > balance_wei:
            raise RpcFault(
                SERVER_ERROR,
                "insufficient funds for gas * price + value: "
                f"balance {balance_wei}, tx cost {needed}, overshot {needed - balance_wei}",
            )


def data_floor_gas(data: bytes) -> int:
    """Return the least gas that a transaction with this data must bring (EIP-7623)."""
    zeros = data.count(0)
    return 21_000 + _FLOOR_GAS_PER_TOKEN * (zeros + 4 * (len(data) - zeros))


def _check_replacement(old: Any, new: Any) -> None:
    for fee in ("max_fee_per_gas", "max_priority_fee_per_gas"):
        if getattr(new, fee) * 100 < getattr(old, fee) * _REPLACEMENT_PERCENT:
            raise RpcFault(SERVER_ERROR, "replacement transaction underpriced")
