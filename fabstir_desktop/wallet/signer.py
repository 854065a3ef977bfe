"""The signer: the only holder of the key, for one chain and a few contracts.

It signs nothing for another chain id, and no transaction to an address that is neither one of its contracts nor the
host itself. To itself the host sends nothing at all (replacing a stuck transaction), or a batch for its own delegated
account whose every call goes to one of the contracts. Beside those there are errands: an address with the one calldata that
may be sent there. It does not judge fees or nonces; the transaction sender does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from fabstir_desktop.errors import SignerLocked
from fabstir_desktop.wallet.batch_calls import decode_batch
from fabstir_desktop.wallet.keys import SecretKey
from fabstir_desktop.wallet.thread import OneThread

SIGN_TIMEOUT_S = 20.0
ZERO_ADDRESS = "0x" + "0" * 40


@dataclass(frozen=True, slots=True)
class SignedAuthorization:
    """An EIP-7702 authorization: the host's account borrows the code at `contract`."""

    chain_id: int
    contract: str
    nonce: int
    y_parity: int
    r: int
    s: int


@dataclass(frozen=True, slots=True)
class UnsignedTransaction:
    """An EIP-1559 transaction, or an EIP-7702 one if there are authorizations. Amounts in wei."""

    chain_id: int
    nonce: int
    to: str
    data: bytes
    gas_limit: int
    max_fee_per_gas_wei: int
    max_priority_fee_per_gas_wei: int
    value_wei: int = 0
    authorization_list: tuple[SignedAuthorization, ...] = ()


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """The bytes to broadcast and their hash (32 bytes)."""

    raw: bytes
    tx_hash: bytes


class Signer:
    """Sign transactions and proofs of one host, off the loop. Its repr shows the address alone."""

    def __init__(
        self,
        key: SecretKey,
        *,
        chain_id: int,
        contracts: frozenset[str],
        delegates: frozenset[str] = frozenset(),
        errands: Mapping[str, bytes] | None = None,
        max_value_wei: int = 0,
        thread: OneThread | None = None,
    ) -> None:
        """Bind the key to a chain and its contracts (addresses in any case).

        `delegates` are the contracts whose code the account may borrow (EIP-7702), `errands` the only calldata that may be
        sent to an address beside the contracts. Claims carry no money, so more than `max_value_wei` in a transaction is
        refused.
        """
        self._key = key
        self._chain_id = chain_id
        self._contracts = frozenset(address.lower() for address in contracts)
        self._errands = {address.lower(): data for address, data in (errands or {}).items()}
        self._delegates = frozenset(address.lower() for address in (*delegates, ZERO_ADDRESS))
        self._max_value_wei = max_value_wei
        self._thread = thread or OneThread("wallet-sign")
        self._locked_because: str | None = None

    @property
    def address(self) -> str:
        """The host's checksummed address."""
        return self._key.address

    @property
    def chain_id(self) -> int:
        """The one chain that is signed for."""
        return self._chain_id

    @property
    def locked_because(self) -> str | None:
        """Why nothing is signed now; None if it signs."""
        return self._locked_because

    def lock(self, reason: str) -> None:
        """Sign nothing until `unlock`; `reason` is what SignerLocked will say."""
        self._locked_because = reason

    def unlock(self) -> None:
        """Sign again."""
        self._locked_because = None

    async def sign_transaction(self, transaction: UnsignedTransaction) -> SignedTransaction:
        """Sign. Raises SignerLocked for another chain, a foreign receiver, money on board, or a locked signer."""
        self._check(transaction)
        key = self._key
        return await self._thread.run(lambda _: _sign_transaction(key, transaction), timeout_s=SIGN_TIMEOUT_S)

    async def sign_proof(self, proof_hash: bytes, tokens: int) -> bytes:
        """Sign EIP-191 over keccak256(proofHash, host, tokens): r, s, v (65 bytes, v 27 or 28, low s).

        Raises SignerLocked.
        """
        self._check_open()
        key = self._key
        digest = proof_digest(proof_hash, key.address, tokens)
        return await self._thread.run(lambda _: _sign_digest(key, digest), timeout_s=SIGN_TIMEOUT_S)

    async def sign_authorization(self, contract: str, nonce: int) -> SignedAuthorization:
        """Let the account borrow the code at `contract` (the zero address: give it back). Raises SignerLocked.

        `nonce` is the account's nonce when the authorization takes effect: one above that of its own transaction.
        """
        self._check_open()
        if contract.lower() not in self._delegates:
            raise SignerLocked(f"the account may not borrow the code at {contract}; nothing was signed")
        key, chain_id = self._key, self._chain_id
        return await self._thread.run(
            lambda _: _sign_authorization(key, chain_id, contract, nonce), timeout_s=SIGN_TIMEOUT_S
        )

    def _check(self, transaction: UnsignedTransaction) -> None:
        self._check_open()
        if transaction.chain_id != self._chain_id:
            raise SignerLocked(
                f"the signer is bound to chain {self._chain_id}, the transaction is for {transaction.chain_id}; "
                "nothing was signed"
            )
        self._check_target(transaction.to.lower(), transaction.data)
        if any(
            one.chain_id != self._chain_id or one.contract.lower() not in self._delegates
            for one in transaction.authorization_list
        ):
            raise SignerLocked("an authorization on board is for another chain or contract; nothing was signed")
        if transaction.value_wei > self._max_value_wei:
            raise SignerLocked(f"a claim sends no money, but this would send {transaction.value_wei} wei")

    def _check_target(self, to: str, data: bytes) -> None:
        if to == self._key.address.lower():
            self._check_self_call(data)
        elif to not in self._contracts and self._errands.get(to) != data:
            raise SignerLocked(f"{to} is not a contract this signer is bound to; nothing was signed")

    def _check_self_call(self, data: bytes) -> None:
        """What the account does to itself can be anything at all once it borrows code: only batches for its contracts."""
        try:
            calls = decode_batch(data) if data else ()
        except ValueError as error:
            raise SignerLocked(f"a call of the account to itself is {error}; nothing was signed") from None
        strange = next((one.target for one in calls if one.target.lower() not in self._contracts), None)
        if strange is not None:
            raise SignerLocked(f"a batch would call {strange}, which is none of its contracts; nothing was signed")

    def _check_open(self) -> None:
        if self._locked_because is not None:
            raise SignerLocked(self._locked_because)

    def __repr__(self) -> str:
        return f"Signer({self.address}, chain {self._chain_id})"


def read_payload(raw: bytes) -> tuple[str, bytes]:
    """Receiver and calldata of a signed transaction of ours, so that a replacement carries the very same."""
    fields = _decoded(raw)
    return to_checksum_address("0x" + bytes(fields["to"]).hex()), bytes(fields["data"])


def read_place(raw: bytes) -> tuple[int, int]:
    """Chain id and nonce of a signed transaction of ours."""
    fields = _decoded(raw)
    return int(fields["chainId"]), int(fields["nonce"])


def read_authorizations(raw: bytes) -> tuple[SignedAuthorization, ...]:
    """The authorizations of a signed transaction of ours (EIP-7702), so that a replacement carries the very same."""
    return tuple(_read_authorization(one) for one in _decoded(raw).get("authorizationList", ()))


@lru_cache(maxsize=64)
def _decoded(raw: bytes) -> Mapping[str, Any]:
    """The fields by name. Several are asked of the same bytes one after the other, and each poll asks of those on their way."""
    from eth_account.typed_transactions.typed_transaction import TypedTransaction  # noqa: PLC0415 - slow to import
    from hexbytes import HexBytes  # noqa: PLC0415

    return MappingProxyType(TypedTransaction.from_bytes(HexBytes(raw)).as_dict())


def _read_authorization(fields: Mapping[str, Any]) -> SignedAuthorization:
    contract = to_checksum_address("0x" + bytes(fields["address"]).hex())
    return SignedAuthorization(
        int(fields["chainId"]),
        contract,
        int(fields["nonce"]),
        int(fields["yParity"]),
        int(fields["r"]),
        int(fields["s"]),
    )


def recover_authority(authorization: SignedAuthorization) -> str | None:
    """The checksummed address that signed an authorization; None for a broken one, which counts for nothing."""
    from eth_keys.datatypes import Signature  # noqa: PLC0415
    from eth_keys.exceptions import BadSignature  # noqa: PLC0415
    from eth_utils.exceptions import ValidationError  # noqa: PLC0415
    from rlp import encode  # type: ignore[import-untyped]  # noqa: PLC0415

    contract = bytes.fromhex(authorization.contract[2:])
    digest = keccak256(b"\x05" + encode([authorization.chain_id, contract, authorization.nonce]))
    try:
        found = Signature(vrs=(authorization.y_parity, authorization.r, authorization.s))
        return found.recover_public_key_from_msg_hash(digest).to_checksum_address()
    except (BadSignature, ValidationError, ValueError):
        return None


def keccak256(data: bytes) -> bytes:
    """The hash of Ethereum, 32 bytes."""
    from eth_utils.crypto import keccak  # noqa: PLC0415 - slow to import

    return keccak(data)


def to_checksum_address(address: str) -> str:
    """Spell a 0x address as EIP-55 asks. Raises ValueError if it is none."""
    from eth_utils.address import to_checksum_address as spell  # noqa: PLC0415

    return spell(address)


def proof_digest(proof_hash: bytes, host: str, tokens: int) -> bytes:
    """What the host signs: EIP-191 over keccak256(abi.encodePacked(proofHash, host, tokensGenerated))."""
    if len(proof_hash) != 32:
        raise ValueError("a proof hash has 32 bytes")
    packed = proof_hash + bytes.fromhex(host[2:]) + tokens.to_bytes(32, "big")
    return keccak256(b"\x19Ethereum Signed Message:\n32" + keccak256(packed))


def recover_proof_signer(proof_hash: bytes, host: str, tokens: int, signature: bytes) -> str:
    """The checksummed address that signed a proof (65 bytes r, s, v). Raises ValueError for a broken signature."""
    from eth_keys.datatypes import Signature  # noqa: PLC0415
    from eth_keys.exceptions import BadSignature  # noqa: PLC0415

    if len(signature) != 65 or signature[64] not in {27, 28}:
        raise ValueError("a signature has 65 bytes and ends with 27 or 28")
    digest = proof_digest(proof_hash, host, tokens)
    try:
        found = Signature(signature[:64] + bytes([signature[64] - 27]))
        return found.recover_public_key_from_msg_hash(digest).to_checksum_address()
    except (BadSignature, ValueError) as error:
        raise ValueError("no key belongs to this signature") from error


def _sign_digest(key: SecretKey, digest: bytes) -> bytes:
    from eth_keys.datatypes import PrivateKey  # noqa: PLC0415

    signature = PrivateKey(key.reveal()).sign_msg_hash(digest).to_bytes()
    return signature[:64] + bytes([signature[64] + 27])


def _sign_authorization(key: SecretKey, chain_id: int, contract: str, nonce: int) -> SignedAuthorization:
    from eth_account import Account  # noqa: PLC0415

    spelled = to_checksum_address(contract)
    signed = Account.sign_authorization({"chainId": chain_id, "address": spelled, "nonce": nonce}, key.reveal())
    return SignedAuthorization(chain_id, spelled, nonce, signed.y_parity, signed.r, signed.s)


def _sign_transaction(key: SecretKey, transaction: UnsignedTransaction) -> SignedTransaction:
    from eth_account import Account  # noqa: PLC0415

    signed = Account.sign_transaction(_fields(transaction), key.reveal())
    return SignedTransaction(bytes(signed.raw_transaction), bytes(signed.hash))


def _fields(transaction: UnsignedTransaction) -> dict[str, object]:
    fields: dict[str, object] = {
        "type": 4 if transaction.authorization_list else 2,
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "to": to_checksum_address(transaction.to),
        "value": transaction.value_wei,
        "data": transaction.data,
        "gas": transaction.gas_limit,
        "maxFeePerGas": transaction.max_fee_per_gas_wei,
        "maxPriorityFeePerGas": transaction.max_priority_fee_per_gas_wei,
    }
    if transaction.authorization_list:
        fields["authorizationList"] = [
            {
                "chainId": one.chain_id,
                "address": to_checksum_address(one.contract),
                "nonce": one.nonce,
                "yParity": one.y_parity,
                "r": one.r,
                "s": one.s,
            }
            for one in transaction.authorization_list
        ]
    return fields
