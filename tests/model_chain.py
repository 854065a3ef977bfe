"""A chain in memory, small and exact where it matters: pool, nonces, blocks, reorganisations, fees, balances, and the rules
of ProofSystem. It takes nothing but signed bytes, and remembers all that ever came and all that was ever executed.

Deep blocks do not change: `safe` is SAFE_DEPTH below the head, `finalized` is FINAL_DEPTH below it. Signatures are not
checked (the host is the only one who sends raw bytes here); everything else about a transaction is.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from dataclasses import dataclass, field

import rlp
from eth_abi.abi import decode
from eth_utils.crypto import keccak

from fabstir_desktop.errors import RpcRefused
from fabstir_desktop.settlement.contracts.proof_system import SUBMIT

CHAIN_ID = 84532
CONTRACT = "0x" + "c0" * 20
TREASURY = "0x" + "7e" * 20
SAFE_DEPTH, FINAL_DEPTH = 2, 4
CLAIM_GAS, PLAIN_GAS = 80_000, 21_000
CALM_FEE_WEI = 5_000_000
PRICE_WEI = 10**9
BLOCK_S = 2


@dataclass(frozen=True)
class ModelTransaction:
    """A transaction; `raw` is empty for one of another program."""

    tx_hash: bytes
    sender: str
    nonce: int
    to: str
    data: bytes
    gas_limit: int
    max_fee_wei: int
    tip_wei: int
    raw: bytes = b""


@dataclass
class ModelJob:
    """What the contract keeps of a job."""

    deposit_tokens: int
    paid_tokens: int = 0
    is_open: bool = True


@dataclass
class State:
    """What a block leaves behind."""

    balances: dict[str, int] = field(default_factory=dict)
    nonces: dict[str, int] = field(default_factory=dict)
    jobs: dict[int, ModelJob] = field(default_factory=dict)
    proofs: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Executed:
    """A transaction in a block, and what it did; `claim` is (job, tokens, proof hash) where it was a claim that stands."""

    transaction: ModelTransaction
    succeeded: bool
    gas_used: int
    price_wei: int
    claim: tuple[int, int, bytes] | None


@dataclass(frozen=True)
class Block:
    """A block and the state after it."""

    number: int
    block_hash: bytes
    timestamp: int
    base_fee_wei: int
    executed: tuple[Executed, ...]
    state: State


class Reverted(Exception):
    """The contract's own reason."""


class ModelChain:
    """One chain, one contract, one host. `host` is its address in lower case."""

    def __init__(self, host: str, jobs: dict[int, int], *, refuses_copies: bool = True) -> None:
        self.host = host.lower()
        self.refuses_copies = refuses_copies
        """Whether the contract knows which proofs were used."""
        self.base_fee_wei = CALM_FEE_WEI
        self.reverts_next = False
        self.pool: dict[int, ModelTransaction] = {}
        self.seen: list[bytes] = []
        """Every raw transaction that ever reached a node, in order."""
        self.met: Counter[str] = Counter()
        self.foreign_nonces: set[int] = set()
        """Nonces that another program ever used or tried to use."""
        self._forks = 0
        state = State(balances={self.host: 10**18}, jobs={job: ModelJob(deposit) for job, deposit in jobs.items()})
        self.blocks: list[Block] = [self._block(0, (), state)]
        for _ in range(FINAL_DEPTH):
            self.mine()

    # --- what tests do ----------------------------------------------------------------------------------------------

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    @property
    def nonce(self) -> int:
        return self.head.state.nonces.get(self.host, 0)

    def mine(self, *, first: ModelTransaction | None = None, from_pool: bool = True) -> None:
        """One block: `first`, then what the pool has in the order of nonces, as far as it can be paid."""
        state = copy.deepcopy(self.head.state)
        executed = []
        if first is not None and first.nonce == state.nonces.get(self.host, 0):
            executed.append(self._execute(first, state))
        while from_pool and (waiting := self.pool.get(state.nonces.get(self.host, 0))) is not None:
            if waiting.max_fee_wei < self.base_fee_wei:
                self.met["priced out"] += 1
                break
            if state.balances[self.host] < waiting.gas_limit * waiting.max_fee_wei:
                self.met["too poor to be mined"] += 1
                break
            executed.append(self._execute(waiting, state))
        self.blocks.append(self._block(len(self.blocks), tuple(executed), state))
        self.pool = {nonce: one for nonce, one in self.pool.items() if nonce >= self.nonce}

    def reorganise(self, depth: int, *, give_back: bool, shorter: bool = False) -> None:
        """Replace the newest blocks by empty ones; their transactions return to the pool, or are forgotten."""
        gone, self.blocks = self.blocks[-depth:], self.blocks[:-depth]
        self._forks += 1
        for block in gone:
            for one in block.executed:
                self.met["reorganised"] += 1
                if give_back and one.transaction.raw:
                    self.pool.setdefault(one.transaction.nonce, one.transaction)
        for _ in range(depth - shorter):
            self.mine(from_pool=False)

    def foreign(self, nonce: int) -> ModelTransaction:
        """What another program with the same key sends: nothing, to itself."""
        self.foreign_nonces.add(nonce)
        digest = hashlib.sha256(f"foreign {nonce} {self._forks} {len(self.blocks)}".encode()).digest()
        return ModelTransaction(digest, self.host, nonce, self.host, b"", PLAIN_GAS, 10**12, 10**9)

    # --- what a node does -------------------------------------------------------------------------------------------

    def send(self, raw: bytes) -> bytes:
        """Take signed bytes into the pool, by geth's rules. Raises RpcRefused with geth's texts."""
        self.seen.append(raw)
        one = read_raw(raw, self.host)
        waiting = self.pool.get(one.nonce)
        if one.nonce < self.nonce:
            raise refused(f"nonce too low: next nonce {self.nonce}, tx nonce {one.nonce}")
        if waiting is not None and waiting.tx_hash == one.tx_hash:
            raise refused("already known")
        if self.head.state.balances[self.host] < one.gas_limit * one.max_fee_wei:
            self.met["refused for funds"] += 1
            raise refused("insufficient funds for gas * price + value")
        if waiting is not None:
            if not _replaces(waiting, one):
                raise refused("replacement transaction underpriced")
            self.met["replaced"] += 1
        self.pool[one.nonce] = one
        return one.tx_hash

    def claim(self, state: State, data: bytes) -> tuple[int, int, bytes]:
        """Judge `submitCheckpoint` against a state, and apply it there. Raises Reverted."""
        job_id, tokens, proof = decode(SUBMIT.inputs, data[4:])
        job = state.jobs.get(job_id)
        if job is None:
            raise Reverted("No such job")
        if not job.is_open:
            raise Reverted("Job not open")
        if tokens == 0:
            raise Reverted("Zero tokens")
        if job.paid_tokens + tokens > job.deposit_tokens:
            raise Reverted("Deposit exceeded")
        if len(proof) != 97:
            raise Reverted("Proof must be 97 bytes")
        if self.refuses_copies and proof[:32] in state.proofs:
            raise Reverted("Proof already used")
        state.proofs.add(proof[:32])
        job.paid_tokens += tokens
        return job_id, tokens, proof[:32]

    def claims(self) -> list[tuple[int, int, bytes]]:
        """Every claim that stands on the canonical chain, in order."""
        return [one.claim for block in self.blocks for one in block.executed if one.claim is not None]

    def spender(self, nonce: int) -> Executed | None:
        """What used a nonce of the host on the canonical chain."""
        everything = (one for block in self.blocks for one in block.executed)
        return next((one for one in everything if one.transaction.nonce == nonce), None)

    def _execute(self, one: ModelTransaction, state: State) -> Executed:
        price = min(one.max_fee_wei, self.base_fee_wei + one.tip_wei)
        claim, succeeded, gas_used = None, True, PLAIN_GAS
        if one.to == CONTRACT:
            gas_used = CLAIM_GAS
            try:
                if self.reverts_next:
                    self.reverts_next = False
                    raise Reverted("out of gas")
                claim = self.claim(state, one.data)
            except Reverted:
                succeeded = False
                self.met["reverted"] += 1
        state.nonces[self.host] = one.nonce + 1
        state.balances[self.host] = max(0, state.balances[self.host] - gas_used * price)
        if claim is not None:
            state.balances[self.host] += claim[1] * PRICE_WEI * 9 // 10
        self.met["executed" if one.raw else "foreign executed"] += 1
        return Executed(one, succeeded, gas_used, price, claim)

    def _block(self, number: int, executed: tuple[Executed, ...], state: State) -> Block:
        content = f"{number} {self._forks} {[one.transaction.tx_hash.hex() for one in executed]}"
        block_hash = hashlib.sha256(content.encode()).digest()
        return Block(number, block_hash, 1_700_000_000 + BLOCK_S * number, self.base_fee_wei, executed, state)


def refused(text: str, code: int = -32000) -> RpcRefused:
    """A node's own error."""
    return RpcRefused(f"model: {text}", code=code, detail=text)


def read_raw(raw: bytes, sender: str) -> ModelTransaction:
    """Decode an EIP-1559 transaction, independently of the product. Raises ValueError if it is none for this chain."""
    if raw[:1] != b"\x02":
        raise ValueError("not an EIP-1559 transaction")
    fields = rlp.decode(raw[1:])
    chain_id, nonce, tip, max_fee, gas, _to, value = (int.from_bytes(one, "big") for one in fields[:7])
    if chain_id != CHAIN_ID or value != 0:
        raise ValueError("for another chain, or with money on board")
    return ModelTransaction(
        keccak(raw), sender, nonce, "0x" + fields[5].hex(), fields[7], gas, max_fee, tip, raw
    )  # fmt: skip


def _replaces(waiting: ModelTransaction, one: ModelTransaction) -> bool:
    """Geth's rule: both fields a tenth higher."""
    return one.max_fee_wei * 10 >= waiting.max_fee_wei * 11 and one.tip_wei * 10 >= waiting.tip_wei * 11
