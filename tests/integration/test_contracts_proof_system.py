"""The reference contract, as INTERFACES promises it, on both chains and without any of the product's settlement code."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from chain_support import ANVIL_CHAIN_ID, World, make_proof
from eth_account import Account

from fabstir_desktop.devnet.answers import RpcFault
from fabstir_desktop.devnet.artifacts import load_artifact
from fabstir_desktop.devnet.client import TransactionReverted

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


async def refusal(world: World, data: str, key: str | None = None) -> str:
    """The reason for which a call is refused, as the node words it; the state is not touched."""
    sender = Account.from_key(key or world.host_key).address
    with pytest.raises(RpcFault) as refused:
        await world.client.request("eth_call", {"from": sender, "to": world.contract, "data": data}, "latest")
    assert refused.value.code == 3
    return refused.value.message.removeprefix("execution reverted: ")


async def test_a_checkpoint_pays_ninety_percent_to_the_host_and_ten_to_the_treasury(world: World) -> None:
    host_before = await world.balance_wei(world.host_address)
    receipt = await world.checkpoint(world.job_id, 123)
    gas_wei = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    amount = 123 * world.price_wei
    assert await world.balance_wei(world.demo.treasury_address) == amount // 10
    assert await world.balance_wei(world.host_address) == host_before - gas_wei + amount - amount // 10
    assert await world.tokens_paid() == 123


async def test_a_checkpoint_emits_what_was_claimed_and_how_it_was_shared(world: World) -> None:
    proof = make_proof(world.host_key, 100)
    receipt = await world.checkpoint(world.job_id, 100, proof)
    submitted, paid = world.artifact.decode_events(receipt["logs"])
    assert submitted.name == "CheckpointSubmitted"
    assert submitted.arguments == {
        "jobId": world.job_id,
        "host": world.host_address,
        "tokensGenerated": 100,
        "proofHash": proof[:32],
    }
    assert paid.name == "PaymentDistributed"
    assert paid["hostAmount"] == 90 * world.price_wei
    assert paid["treasuryAmount"] == 10 * world.price_wei
    assert paid["treasury"] == world.demo.treasury_address


async def test_a_rest_of_one_wei_goes_to_the_host(world: World) -> None:
    job_id = await world.create_job(tokens=100, price_per_token_wei=3)
    receipt = await world.checkpoint(job_id, 7)
    paid = world.artifact.decode_events(receipt["logs"], "PaymentDistributed")[0]
    assert (paid["hostAmount"], paid["treasuryAmount"]) == (19, 2)


async def test_a_new_job_is_announced_and_can_be_read(world: World) -> None:
    created = next(event for event in await world.events("JobCreated") if event["jobId"] == world.job_id)
    job = await world.job()
    assert created["host"] == world.host_address
    assert created["client"] == world.demo.client_address
    assert created["deposit"] == job.deposit_wei == 100_000 * world.price_wei
    assert (job.price_per_token_wei, job.tokens_paid, job.is_open) == (world.price_wei, 0, True)
    assert await world.read("tokensCovered", world.job_id) == (100_000,)


async def test_only_the_host_of_a_job_can_claim(world: World) -> None:
    key = await world.funded_key()
    data = world.checkpoint_data(world.job_id, 100, make_proof(key, 100))
    assert await refusal(world, data, key) == "Not the job's host"


async def test_a_job_that_does_not_exist_pays_nothing(world: World) -> None:
    assert await refusal(world, world.checkpoint_data(2**256 - 1, 100)) == "No such job"


async def test_zero_tokens_are_refused(world: World) -> None:
    assert await refusal(world, world.checkpoint_data(world.job_id, 0)) == "Zero tokens"


@pytest.mark.parametrize("tokens", [101, 2**255, 2**256 - 1])
async def test_more_tokens_than_the_deposit_covers_are_refused(world: World, tokens: int) -> None:
    job_id = await world.create_job(tokens=100)
    assert await refusal(world, world.checkpoint_data(job_id, tokens)) == "Deposit exceeded"


async def test_the_deposit_can_be_claimed_to_its_last_token_and_no_further(world: World) -> None:
    job_id = await world.create_job(tokens=100)
    await world.checkpoint(job_id, 60)
    assert await world.read("tokensCovered", job_id) == (40,)
    await world.checkpoint(job_id, 40)
    assert await world.read("tokensCovered", job_id) == (0,)
    assert await refusal(world, world.checkpoint_data(job_id, 1)) == "Deposit exceeded"


async def test_a_used_proof_hash_is_refused_also_for_another_job_and_count(world: World) -> None:
    proof_hash = secrets.token_bytes(32)
    await world.checkpoint(world.job_id, 100, make_proof(world.host_key, 100, proof_hash))
    again = world.checkpoint_data(world.job_id, 100, make_proof(world.host_key, 100, proof_hash))
    assert await refusal(world, again) == "Proof already used"
    other_job = await world.create_job()
    elsewhere = world.checkpoint_data(other_job, 50, make_proof(world.host_key, 50, proof_hash))
    assert await refusal(world, elsewhere) == "Proof already used"


async def test_nobody_can_burn_the_proof_hash_of_another_host(world: World) -> None:
    proof_hash = secrets.token_bytes(32)
    thief = await world.funded_key()
    job_id = await world.create_job(host=Account.from_key(thief).address)
    copied = world.checkpoint_data(job_id, 1, make_proof(thief, 1, proof_hash))
    await world.sender(thief).transact(world.contract, copied)
    await world.checkpoint(world.job_id, 100, make_proof(world.host_key, 100, proof_hash))
    assert await world.tokens_paid() == 100


def other_count(world: World) -> bytes:
    return make_proof(world.host_key, 99)


def other_signer(world: World) -> bytes:
    return make_proof("0x" + secrets.token_hex(32), 100, host=world.host_address)


def mirrored(world: World) -> bytes:
    proof = make_proof(world.host_key, 100)
    s = CURVE_ORDER - int.from_bytes(proof[64:96], "big")
    return proof[:64] + s.to_bytes(32, "big") + bytes([27 + 28 - proof[96]])


def no_signature(world: World) -> bytes:
    return secrets.token_bytes(32) + bytes(65)


def raw_recovery_id(world: World) -> bytes:
    proof = make_proof(world.host_key, 100)
    return proof[:96] + bytes([proof[96] - 27])


@pytest.mark.parametrize("forge", [other_count, other_signer, mirrored, no_signature, raw_recovery_id])
async def test_a_proof_that_the_host_did_not_sign_for_this_claim_is_refused(world: World, forge: Any) -> None:
    data = world.checkpoint_data(world.job_id, 100, forge(world))
    assert await refusal(world, data) == "Proof not signed by host"


@pytest.mark.parametrize("length", [0, 32, 96, 98, 4096])
async def test_a_proof_of_another_length_is_refused(world: World, length: int) -> None:
    data = world.checkpoint_data(world.job_id, 100, bytes(length))
    assert await refusal(world, data) == "Proof must be 97 bytes"


async def test_a_call_without_a_proof_still_tells_what_is_wrong_with_the_job(world: World) -> None:
    await world.end_job(world.job_id)
    assert await refusal(world, world.checkpoint_data(world.job_id, 1, b"")) == "Job not open"


async def test_ending_a_job_refunds_the_client_what_was_not_claimed(world: World) -> None:
    await world.checkpoint(world.job_id, 1_000)
    before = await world.balance_wei(world.demo.client_address)
    receipt = await world.end_job(world.job_id)
    gas_wei = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    refund = 99_000 * world.price_wei
    assert await world.balance_wei(world.demo.client_address) == before - gas_wei + refund
    assert world.artifact.decode_events(receipt["logs"], "JobEnded")[0]["refund"] == refund
    job = await world.job()
    assert (job.is_open, job.tokens_paid) == (False, 1_000)
    assert await world.read("tokensCovered", world.job_id) == (0,)


async def test_a_job_can_be_ended_once_and_by_its_client_or_host_only(world: World) -> None:
    stranger = await world.funded_key()
    data = world.artifact.encode_call("endJob", world.job_id)
    assert await refusal(world, data, stranger) == "Not the job's client or host"
    await world.host.transact(world.contract, data)
    assert await refusal(world, data, world.demo.client_key) == "Job not open"


@pytest.mark.parametrize(("host", "price", "reason"), [("0x" + "00" * 20, 1, "Zero host"), (None, 0, "Zero price")])
async def test_a_job_without_host_or_price_is_refused(world: World, host: str | None, price: int, reason: str) -> None:
    data = world.artifact.encode_call("createJob", host or world.host_address, price)
    assert await refusal(world, data, world.demo.client_key) == reason


async def test_a_treasury_that_cannot_receive_does_not_keep_the_host_from_his_money(world: World) -> None:
    # The job's own contract is a treasury without a way to receive: it has code, and no receive function.
    artifact, contract = await world.deploy("ProofSystem", world.contract)
    job_data = artifact.encode_call("createJob", world.host_address, 10)
    await world.payer.transact(contract, job_data, value_wei=1_000)
    claim = artifact.encode_call("submitCheckpoint", 1, 100, make_proof(world.host_key, 100))
    receipt = await world.host.transact(contract, claim)
    held = artifact.decode_events(receipt["logs"], "PaymentHeld")[0]
    assert (held["payee"], held["amount"]) == (world.contract, 100)
    assert await world.client.read(artifact, contract, "owed", world.contract) == (100,)
    assert await world.balance_wei(contract) == 100


async def test_a_claim_that_fails_on_chain_changes_nothing(world: World) -> None:
    proof = make_proof(world.host_key, 100)
    await world.checkpoint(world.job_id, 100, proof)
    with pytest.raises(TransactionReverted):
        await world.host.transact(world.contract, world.checkpoint_data(world.job_id, 100, proof), gas=300_000)
    assert await world.tokens_paid() == 100
    assert await world.balance_wei(world.demo.treasury_address) == 10 * world.price_wei


async def test_the_selector_is_the_one_of_the_interface(world: World) -> None:
    assert world.checkpoint_data(1, 1, b"").startswith("0x6cafe1b4")


async def test_the_smallest_contract_pays_and_tells_nothing(world: World) -> None:
    treasury = "0x" + secrets.token_hex(20)
    artifact, contract = await world.deploy("MinimalProofSystem", world.host_address, treasury, 10, value_wei=1_000)
    assert [entry["name"] for entry in artifact.abi if entry["type"] != "constructor"] == ["submitCheckpoint"]
    claim = artifact.encode_call("submitCheckpoint", 7, 60, make_proof(world.host_key, 60))
    receipt = await world.host.transact(contract, claim)
    assert receipt["logs"] == []
    assert await world.balance_wei(treasury) == 60
    assert await minimal_tokens_paid(world, contract, 7) == 60
    too_much = artifact.encode_call("submitCheckpoint", 7, 41, make_proof(world.host_key, 41))
    with pytest.raises(RpcFault, match="Deposit exceeded"):
        await world.host.transact(contract, too_much)


async def minimal_tokens_paid(world: World, contract: str, job_id: int) -> int:
    from eth_utils.crypto import keccak

    slot = keccak(job_id.to_bytes(32, "big") + bytes(32))
    return await world.client.number("eth_getStorageAt", contract, "0x" + slot.hex(), "latest")


async def test_what_lies_on_chain_is_what_the_artifact_says(world: World) -> None:
    deployed = await world.client.request("eth_getCode", world.contract, "latest")
    artifact = load_artifact("ProofSystem")
    assert len(deployed) == len(artifact.deployed_bytecode)
    treasury = world.demo.treasury_address[2:].lower().rjust(64, "0")
    assert deployed.replace(treasury, "0" * 64) == artifact.deployed_bytecode


async def test_anvil_runs_under_the_chain_id_of_base_sepolia(anvil_world: World) -> None:
    assert anvil_world.chain_id == ANVIL_CHAIN_ID
