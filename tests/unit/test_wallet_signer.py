"""The signer: bound to one chain and its contracts; its signatures are what the contract checks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging

import pytest
from eth_abi.packed import encode_packed
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_keys.constants import SECPK1_N
from hypothesis import given, settings
from hypothesis import strategies as st
from secrets_support import KEY_MARK

from fabstir_desktop.errors import SignerLocked
from fabstir_desktop.wallet.batch_calls import EXECUTE_BATCH, BatchCall, decode_batch, encode_batch
from fabstir_desktop.wallet.keys import parse_private_key
from fabstir_desktop.wallet.signer import (
    ZERO_ADDRESS,
    Signer,
    UnsignedTransaction,
    keccak256,
    read_authorizations,
    recover_proof_signer,
    to_checksum_address,
)

CHAIN_ID = 84532
CONTRACT = "0x2ACcc60893872A499700908889B38C5420CBcFD1"
BATCHER = "0x00000000000000000000000000000000000B47c4"
STRANGER = "0x000000000000000000000000000000000000dEaD"
CANARY = KEY_MARK + "0ddba11c0ffee5ca1ab1e0ddba11c0ffee5ca1ab1e0ddba1"
CLAIM = UnsignedTransaction(
    chain_id=CHAIN_ID,
    nonce=7,
    to=CONTRACT,
    data=bytes.fromhex("6cafe1b4") + bytes(96),
    gas_limit=150_000,
    max_fee_per_gas_wei=2 * 10**9,
    max_priority_fee_per_gas_wei=10**6,
)


@pytest.fixture
def signer() -> Signer:
    return Signer(
        parse_private_key(CANARY),
        chain_id=CHAIN_ID,
        contracts=frozenset({CONTRACT}),
        delegates=frozenset({BATCHER}),
    )


async def test_a_claim_is_signed_by_the_host_for_the_chain_and_its_hash_is_that_of_the_bytes(signer: Signer) -> None:
    signed = await signer.sign_transaction(CLAIM)
    assert Account.recover_transaction(signed.raw) == signer.address
    assert signed.tx_hash == keccak256(signed.raw)
    assert signed.raw[0] == 2
    assert await signer.sign_transaction(CLAIM) == signed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chain_id": 1}, "bound to chain 84532"),
        ({"to": STRANGER}, "is not a contract this signer is bound to"),
        ({"value_wei": 1}, "sends no money"),
    ],
)
async def test_what_is_not_for_this_chain_and_contract_is_refused(signer: Signer, change: dict, words: str) -> None:
    with pytest.raises(SignerLocked, match=words):
        await signer.sign_transaction(dataclasses.replace(CLAIM, **change))


async def test_addresses_are_recognised_in_any_spelling(signer: Signer) -> None:
    for address in (CONTRACT.lower(), "0x" + CONTRACT[2:].upper()):
        signed = await signer.sign_transaction(dataclasses.replace(CLAIM, to=address))
        assert Account.recover_transaction(signed.raw) == signer.address
    for address in (signer.address, signer.address.lower()):
        signed = await signer.sign_transaction(dataclasses.replace(CLAIM, to=address, data=b""))
        assert Account.recover_transaction(signed.raw) == signer.address


async def test_to_itself_the_account_sends_nothing_or_batches_whose_every_call_goes_to_its_contract(
    signer: Signer,
) -> None:
    inner = BatchCall(CONTRACT, 100_000, CLAIM.data)
    for data in (b"", encode_batch([inner]), encode_batch([inner, inner])):
        await signer.sign_transaction(dataclasses.replace(CLAIM, to=signer.address, data=data))
    strange = BatchCall(STRANGER, 100_000, CLAIM.data)
    itself = BatchCall(signer.address, 100_000, b"")
    for calls in ([strange], [inner, strange], [itself], [inner, itself]):
        with pytest.raises(SignerLocked, match="none of its contracts"):
            await signer.sign_transaction(dataclasses.replace(CLAIM, to=signer.address, data=encode_batch(calls)))
    batch = encode_batch([inner])
    for data in (CLAIM.data, batch[:-1], batch + b"\0", batch + batch[4:], bytes(4) + batch[4:], batch[:4]):
        with pytest.raises(SignerLocked, match="of the account to itself"):
            await signer.sign_transaction(dataclasses.replace(CLAIM, to=signer.address, data=data))


async def test_an_errand_is_signed_with_its_own_calldata_only(signer: Signer) -> None:
    errand = Signer(
        parse_private_key(CANARY), chain_id=CHAIN_ID, contracts=frozenset({CONTRACT}), errands={STRANGER: b"deploy"}
    )
    await errand.sign_transaction(dataclasses.replace(CLAIM, to=STRANGER, data=b"deploy"))
    for signs, data in ((errand, b"deploy "), (errand, b""), (signer, b"deploy")):
        with pytest.raises(SignerLocked, match="is not a contract this signer is bound to"):
            await signs.sign_transaction(dataclasses.replace(CLAIM, to=STRANGER, data=data))


async def test_what_was_authorized_is_read_from_the_signed_bytes(signer: Signer) -> None:
    authorization = await signer.sign_authorization(BATCHER, 8)
    signed = await signer.sign_transaction(
        dataclasses.replace(CLAIM, to=signer.address, data=b"", authorization_list=(authorization,))
    )
    assert read_authorizations(signed.raw) == (authorization,)
    assert read_authorizations((await signer.sign_transaction(CLAIM)).raw) == ()


@given(
    st.lists(
        st.builds(
            BatchCall,
            st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex()),
            st.integers(0, 2**64),
            st.binary(max_size=200),
        ),
        max_size=10,
    )
)
def test_a_batch_is_read_as_it_was_written(calls: list[BatchCall]) -> None:
    assert decode_batch(encode_batch(calls)) == tuple(calls)
    assert keccak256(b"executeBatch((address,uint256,bytes)[])")[:4] == EXECUTE_BATCH


async def test_a_locked_signer_signs_nothing_and_says_why(signer: Signer) -> None:
    signer.lock("the RPC is on chain 1")
    for attempt in (
        signer.sign_transaction(CLAIM),
        signer.sign_proof(bytes(32), 1),
        signer.sign_authorization(BATCHER, 8),
    ):
        with pytest.raises(SignerLocked, match="the RPC is on chain 1"):
            await attempt
    assert signer.locked_because == "the RPC is on chain 1"
    signer.unlock()
    assert len(await signer.sign_proof(bytes(32), 1)) == 65


async def test_a_proof_is_what_the_contract_recovers(signer: Signer) -> None:
    proof_hash = keccak256(b"a record")
    signature = await signer.sign_proof(proof_hash, 12_345)
    packed = keccak256(encode_packed(["bytes32", "address", "uint256"], [proof_hash, signer.address, 12_345]))
    assert Account.recover_message(encode_defunct(packed), signature=signature) == signer.address
    assert signature[64] in {27, 28}
    assert int.from_bytes(signature[32:64], "big") <= SECPK1_N // 2


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(min_value=0, max_value=2**256 - 1))
def test_the_signer_of_any_proof_is_found_again_and_another_count_has_another_signer(
    proof_hash: bytes, tokens: int
) -> None:
    signer = Signer(parse_private_key(CANARY), chain_id=CHAIN_ID, contracts=frozenset())
    signature = asyncio.run(signer.sign_proof(proof_hash, tokens))
    assert recover_proof_signer(proof_hash, signer.address, tokens, signature) == signer.address
    other = tokens ^ 1
    with contextlib.suppress(ValueError):  # no key at all may belong to it
        assert recover_proof_signer(proof_hash, signer.address, other, signature) != signer.address


@pytest.mark.parametrize(
    "signature", [b"", bytes(65), bytes(64) + b"\x1b", b"\xff" * 64 + b"\x1b", bytes(64) + b"\x1d"]
)
def test_a_broken_signature_is_a_value_error(signature: bytes) -> None:
    with pytest.raises(ValueError, match="signature"):
        recover_proof_signer(bytes(32), CONTRACT, 1, signature)


async def test_the_account_borrows_only_named_code_and_may_give_it_back(signer: Signer) -> None:
    with pytest.raises(SignerLocked, match="may not borrow"):
        await signer.sign_authorization(STRANGER, 8)
    back = await signer.sign_authorization(ZERO_ADDRESS, 8)
    assert (back.chain_id, back.nonce) == (CHAIN_ID, 8)
    authorization = await signer.sign_authorization(BATCHER.lower(), 8)
    batch = dataclasses.replace(CLAIM, to=signer.address, data=b"", authorization_list=(authorization,))
    signed = await signer.sign_transaction(batch)
    assert signed.raw[0] == 4
    assert Account.recover_transaction(signed.raw) == signer.address


async def test_an_authorization_for_another_chain_is_not_smuggled_in(signer: Signer) -> None:
    authorization = await signer.sign_authorization(BATCHER, 8)
    foreign = dataclasses.replace(authorization, chain_id=1)
    with pytest.raises(SignerLocked, match="authorization"):
        await signer.sign_transaction(
            dataclasses.replace(CLAIM, to=signer.address, data=b"", authorization_list=(foreign,))
        )


async def test_signing_leaves_the_loop_free(signer: Signer) -> None:
    await signer.sign_proof(bytes(32), 1)  # the first call imports
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    await signer.sign_proof(bytes(32), 2)
    beating.cancel()
    assert beats > 1


async def test_neither_repr_nor_log_nor_an_error_inside_the_library_shows_the_key(
    signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broken = dataclasses.replace(CLAIM, nonce="seven")  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"in \w+:\d+") as caught:
        await signer.sign_transaction(broken)
    shown = [repr(signer), str(vars(signer)), repr(caught.value), repr(caught.value.__context__), caplog.text]
    assert not any(CANARY[:12] in text.lower() for text in shown)
    assert caught.value.__cause__ is None


def test_known_hashes_and_spellings() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"submitCheckpoint(uint256,uint256,bytes)").hex()[:8] == "6cafe1b4"
    assert to_checksum_address(CONTRACT.lower()) == CONTRACT
    with pytest.raises(ValueError, match="0x12"):
        to_checksum_address("0x12")
