"""The chain itself: py-evm executes, this module keeps blocks, pool and clock, as a node does.

py-evm is used directly. eth-tester's layer over it knows no pool, no replacement, no block time and one chain id only;
those are what a settlement is tested against. Nothing here is kept on disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eth.chains.base import MiningChain
from eth.constants import POST_MERGE_DIFFICULTY, POST_MERGE_MIX_HASH, POST_MERGE_NONCE
from eth.db.atomic import AtomicDB
from eth.exceptions import OutOfGas, Revert, VMError
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_typing import BlockNumber
from eth_utils.exceptions import ValidationError

from fabstir_desktop.devnet.answers import SERVER_ERROR, RpcFault, revert_fault
from fabstir_desktop.devnet.pool import MAX_RAW_BYTES, TransactionPool, data_floor_gas

GAS_LIMIT = 60_000_000
_ZERO_ADDRESS = b"\0" * 20
_BLOB_TYPE = 3
_FACTORY = bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c")
_FACTORY_CODE = bytes.fromhex(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b"
    "8082525050506014600cf3"
)
"""The CREATE2 factory that public chains and anvil have: with it a contract has the same address on every chain."""
_ESTIMATE_TOLERANCE = 0.015
"""How far above the least gas an estimate may lie; geth uses the same."""


@dataclass(frozen=True, slots=True)
class MinedBlock:
    """A block with the receipts of its transactions."""

    block: Any
    receipts: tuple[Any, ...]

    @property
    def header(self) -> Any:
        """The block's header."""
        return self.block.header


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What `eth_call` and `eth_estimateGas` are asked to try."""

    sender: bytes = _ZERO_ADDRESS
    to: bytes = b""
    data: bytes = b""
    value_wei: int = 0
    gas: int | None = None


class DevChain:
    """A chain with one key in its genesis. Not for use by two threads at once."""

    def __init__(self, chain_id: int, funded: dict[bytes, int]) -> None:
        self.chain_id = chain_id
        self.pool = TransactionPool(chain_id, GAS_LIMIT)
        self.is_automining = True
        self._clock_offset_s = 0
        self._chain = _new_chain(chain_id, funded)
        genesis = self._chain.get_canonical_block_by_number(0)
        self._blocks = [MinedBlock(genesis, ())]
        self._number_by_hash = {genesis.hash: 0}
        self._place_by_transaction: dict[bytes, tuple[int, int]] = {}

    @property
    def head(self) -> MinedBlock:
        """The newest block."""
        return self._blocks[-1]

    @property
    def head_number(self) -> int:
        """The newest block's number."""
        return len(self._blocks) - 1

    @property
    def next_base_fee_wei(self) -> int:
        """The base fee that the next block will have."""
        return int(self._chain.header.base_fee_per_gas)

    def block_at(self, number: int) -> MinedBlock | None:
        """Return a block by its number."""
        return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def number_of(self, block_hash: bytes) -> int | None:
        """Return the number of the block with that hash."""
        return self._number_by_hash.get(block_hash)

    def place_of(self, tx_hash: bytes) -> tuple[int, int] | None:
        """Return block number and index of a mined transaction."""
        return self._place_by_transaction.get(tx_hash)

    def state_at(self, number: int) -> Any:
        """Return the state after a block: balances, nonces, code, storage. Raises RpcFault for an unknown block."""
        return self._vm_at(number).state

    def pending_nonce(self, address: bytes) -> int:
        """Return the nonce that a further transaction of this account should have."""
        return self.pool.next_nonce(address, self.state_at(self.head_number).get_nonce(address))

    def move_clock(self, seconds: int) -> None:
        """Let the following blocks be this much later than they would be.

        Many blocks within a second have already put the head before the wall clock, so the head counts too.
        """
        ahead_s = max(0, int(self.head.header.timestamp) - int(time.time()))
        self._clock_offset_s = max(self._clock_offset_s, ahead_s) + seconds

    def submit(self, raw: bytes) -> bytes:
        """Take a signed transaction and return its hash; mines at once when automining. Raises RpcFault."""
        transaction = self._decode(raw)
        tx_hash = bytes(transaction.hash)
        state = self.state_at(self.head_number)
        sender = bytes(transaction.sender)
        self.pool.add(transaction, sender, state.get_nonce(sender), state.get_balance(sender))
        if self.is_automining and self.pending_nonce(sender) > transaction.nonce:
            self.mine()
        return tx_hash

    def mine(self) -> MinedBlock:
        """Put what is executable into a new block, or make an empty one."""
        header = self._chain.header.copy(timestamp=self._next_timestamp())
        vm = self._chain.get_vm(header)
        header, transactions, receipts = self._apply_pool(vm, header)
        filled = vm.set_block_transactions_and_withdrawals(vm.get_block(), header, transactions, receipts)
        block = vm.mine_block(filled).block
        self._chain.persist_block(block)
        self._chain.header = self._chain.create_header_from_parent(block.header)
        return self._remember(MinedBlock(block, receipts))

    def call(self, request: CallRequest, number: int) -> bytes:
        """Try a call on the state after a block and return its output. Raises RpcFault as geth would."""
        with self._trial_state(number) as state:
            return bytes(_checked(self._try(state, request, request.gas or GAS_LIMIT)).output)

    def estimate_gas(self, request: CallRequest, number: int) -> int:
        """Return gas with which the call succeeds, within 1.5 % of the least. Raises RpcFault as geth would."""
        most = min(request.gas or GAS_LIMIT, GAS_LIMIT)
        with self._trial_state(number) as state:
            first = _checked(self._try(state, request, most))
            least = max(first.transaction_gas_used - 1, data_floor_gas(request.data) - 1)
            likely = min(most, (least + first.gas_refund + 2_300) * 64 // 63)
            if not self._try(state, request, likely).is_error:
                most = likely
            while least + 1 < most and (most - least) / most > _ESTIMATE_TOLERANCE:
                middle = (most + least) // 2
                if self._try(state, request, middle).is_error:
                    least = middle
                else:
                    most = middle
        return most

    # --- inside ---------------------------------------------------------------------------------------------------

    def _apply_pool(self, vm: Any, header: Any) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
        transactions, receipts = [], []
        nonces = {sender: vm.state.get_nonce(sender) for sender in self.pool.senders()}
        for entry in list(self.pool.executable(nonces, header.base_fee_per_gas)):
            if header.gas_used + entry.transaction.gas > header.gas_limit:
                continue
            snapshot = vm.state.snapshot()
            try:
                receipt, _ = vm.apply_transaction(header, entry.transaction)
            except ValidationError:
                # Its money or its nonce went with an earlier transaction: nodes let such a one vanish silently.
                vm.state.revert(snapshot)
                self.pool.drop(entry.hash)
                continue
            header = vm.add_receipt_to_header(header, receipt)
            transactions.append(entry.transaction)
            receipts.append(receipt)
        return header, tuple(transactions), tuple(receipts)

    def _remember(self, mined: MinedBlock) -> MinedBlock:
        number = len(self._blocks)
        self._blocks.append(mined)
        self._number_by_hash[mined.block.hash] = number
        for index, transaction in enumerate(mined.block.transactions):
            self._place_by_transaction[bytes(transaction.hash)] = (number, index)
        if mined.block.transactions:
            state = self.state_at(number)
            for sender in self.pool.senders():
                self.pool.forget_mined(sender, state.get_nonce(sender))
        return mined

    def _next_timestamp(self) -> int:
        return max(int(self.head.header.timestamp) + 1, int(time.time()) + self._clock_offset_s)

    def _vm_at(self, number: int) -> Any:
        mined = self.block_at(number)
        if mined is None:
            raise RpcFault(SERVER_ERROR, "header not found")
        return self._chain.get_vm(mined.header)

    def _decode(self, raw: bytes) -> Any:
        if len(raw) > MAX_RAW_BYTES:
            raise RpcFault(SERVER_ERROR, "oversized data")
        if raw and raw[0] == _BLOB_TYPE:
            raise RpcFault(SERVER_ERROR, "transaction type not supported")
        try:
            transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
            transaction.validate()
            _ = transaction.sender
        except Exception as error:  # noqa: BLE001  rlp, eth_keys and py-evm raise unrelated types for damaged bytes
            raise RpcFault(SERVER_ERROR, f"rlp: cannot decode the transaction ({type(error).__name__})") from None
        return transaction

    @contextmanager
    def _trial_state(self, number: int) -> Iterator[Any]:
        with self._vm_at(number).in_costless_state() as state:
            yield state

    def _try(self, state: Any, request: CallRequest, gas: int) -> _Trial:
        unsigned = (
            self._chain.get_vm()
            .get_transaction_builder()
            .new_unsigned_dynamic_fee_transaction(
                chain_id=self.chain_id,
                nonce=state.get_nonce(request.sender),
                max_priority_fee_per_gas=0,
                max_fee_per_gas=0,
                gas=gas,
                to=request.to,
                value=request.value_wei,
                data=request.data,
                access_list=(),
            )
        )
        transaction = SpoofTransaction(unsigned, from_=request.sender)
        if gas < transaction.intrinsic_gas:
            return _Trial(OutOfGas("intrinsic gas too low"), b"", gas, 0)
        snapshot = state.snapshot()
        try:
            computation = state.apply_transaction(transaction)
        except ValidationError:
            raise RpcFault(SERVER_ERROR, "insufficient funds for transfer") from None
        finally:
            state.revert(snapshot)
        error = computation.error if computation.is_error else None
        refund = 0 if error else computation.get_gas_refund()
        return _Trial(error, computation.output, gas - computation.get_gas_remaining(), refund)


@dataclass(frozen=True, slots=True)
class _Trial:
    """How a tried call went."""

    error: VMError | None
    output: bytes
    transaction_gas_used: int
    gas_refund: int

    @property
    def is_error(self) -> bool:
        return self.error is not None


def _checked(trial: _Trial) -> _Trial:
    """Return the trial, or raise the RpcFault that a node gives for its error."""
    if trial.error is None:
        return trial
    if isinstance(trial.error, Revert):
        raise revert_fault(bytes(trial.error.args[0]) if trial.error.args else b"")
    if isinstance(trial.error, OutOfGas):
        raise RpcFault(SERVER_ERROR, "out of gas")
    raise RpcFault(SERVER_ERROR, f"invalid opcode or jump ({type(trial.error).__name__})")


def _new_chain(chain_id_: int, funded: dict[bytes, int]) -> Any:
    class _Chain(MiningChain):
        chain_id = chain_id_
        vm_configuration = ((BlockNumber(0), PragueVM),)

        def create_header_from_parent(self, parent_header: Any, **header_params: Any) -> Any:
            return super().create_header_from_parent(parent_header, **header_params, gas_limit=GAS_LIMIT)

    genesis: Any = {
        "coinbase": _ZERO_ADDRESS,
        "difficulty": POST_MERGE_DIFFICULTY,
        "extra_data": b"",
        "gas_limit": GAS_LIMIT,
        "mix_hash": POST_MERGE_MIX_HASH,
        "nonce": POST_MERGE_NONCE,
        "timestamp": int(time.time()) - 1,
    }
    accounts: Any = {
        address: {"balance": balance, "nonce": 0, "code": b"", "storage": {}} for address, balance in funded.items()
    }
    accounts[_FACTORY] = {"balance": 0, "nonce": 1, "code": _FACTORY_CODE, "storage": {}}
    return _Chain.from_genesis(AtomicDB(), genesis, accounts)
