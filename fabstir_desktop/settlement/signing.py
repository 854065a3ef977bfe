"""From an offer to stored bytes: sign, and see that the bytes say what was asked for. Keeps nothing."""

from __future__ import annotations

from fabstir_desktop.errors import Bug, SignerLocked
from fabstir_desktop.jobs.claims import Attempt, SignedContent
from fabstir_desktop.settlement.batching import calls_inside
from fabstir_desktop.settlement.fees import FeeOffer
from fabstir_desktop.wallet.signer import (
    SignedAuthorization,
    Signer,
    UnsignedTransaction,
    read_authorizations,
    read_payload,
    read_place,
    to_checksum_address,
)


async def sign_attempt(
    signer: Signer | str,
    chain_id: int,
    to: str,
    calldata: bytes,
    nonce: int,
    *,
    gas_limit: int,
    offer: FeeOffer,
    borrowed: tuple[SignedAuthorization, ...] = (),
) -> Attempt:
    """Sign a transaction, to be stored before it is sent. Raises SignerLocked (also where only an address is known)."""
    asked = UnsignedTransaction(
        chain_id=chain_id,
        nonce=nonce,
        to=to,
        data=calldata,
        gas_limit=gas_limit,
        max_fee_per_gas_wei=offer.max_fee_per_gas_wei,
        max_priority_fee_per_gas_wei=offer.max_priority_fee_per_gas_wei,
        authorization_list=borrowed,
    )
    signed = await _key_of(signer).sign_transaction(asked)
    carried = (*read_payload(signed.raw), read_authorizations(signed.raw))
    if carried != (to_checksum_address(to), calldata, borrowed):
        raise Bug(f"the bytes signed for nonce {nonce} carry something else than was asked for")
    return Attempt(signed.tx_hash, signed.raw, offer.max_fee_per_gas_wei, offer.max_priority_fee_per_gas_wei, gas_limit)


def read_signed(sender: str, raw: bytes) -> SignedContent:
    """What signed bytes say, for the ledger to compare before it stores them. Raises ValueError."""
    try:
        chain_id, nonce = read_place(raw)
        to, calldata = read_payload(raw)
    except Exception as error:  # each library beneath has errors of its own
        raise ValueError(f"no transaction of this application: {type(error).__name__}") from error
    return SignedContent(chain_id, nonce, calls_inside(sender, to, calldata))


async def sign_borrowing(signer: Signer | str, contract: str | None, nonce: int) -> tuple[SignedAuthorization, ...]:
    """The account's word that it borrows the contract's code, for the transaction with this nonce; none for None.

    It is valid one nonce later, because the transaction that carries it comes first. Raises SignerLocked.
    """
    if contract is None:
        return ()
    return (await _key_of(signer).sign_authorization(contract, nonce + 1),)


def _key_of(signer: Signer | str) -> Signer:
    if isinstance(signer, str):
        raise SignerLocked(f"the key of {signer} is not here; nothing was signed")
    return signer
