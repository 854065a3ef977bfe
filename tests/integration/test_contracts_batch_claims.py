"""BatchClaims: ten claims of a host in one transaction (EIP-7702), on both chains."""

from __future__ import annotations

from typing import Any

import pytest
from chain_support import World
from eth_account import Account

from fabstir_desktop.devnet.answers import RpcFault, revert_reason
from fabstir_desktop.devnet.artifacts import load_artifact
from fabstir_desktop.devnet.client import TransactionReverted

BATCH = load_artifact("BatchClaims")
CLAIM_GAS = 150_000
NOBODY = "0x" + "00" * 20


async def send_with_delegation(world: World, target: str, data: str = "0x", gas: int = 3_000_000) -> dict[str, Any]:
    """Send a transaction of the host to itself that sets where the account delegates to, and makes a call."""
    account = Account.from_key(world.host_key)
    nonce = await world.client.number("eth_getTransactionCount", account.address, "latest")
    permission = account.sign_authorization({"chainId": world.chain_id, "address": target, "nonce": nonce + 1})
    signed = account.sign_transaction(
        {
            "type": 4,
            "chainId": world.chain_id,
            "nonce": nonce,
            "to": account.address,
            "data": data,
            "value": 0,
            "gas": gas,
            "maxFeePerGas": 10**10,
            "maxPriorityFeePerGas": 10**6,
            "authorizationList": [permission],
        }
    )
    raw = "0x" + bytes(signed.raw_transaction).hex()
    return await world.client.receipt(await world.client.request("eth_sendRawTransaction", raw))


async def delegate(world: World) -> str:
    _, address = await world.deploy("BatchClaims")
    await send_with_delegation(world, address)
    return address


def claims(world: World, job_ids: list[int], tokens: int = 100) -> str:
    return BATCH.encode_call(
        "executeBatch", [(world.contract, CLAIM_GAS, bytes.fromhex(claim(world, job_id, tokens))) for job_id in job_ids]
    )


def claim(world: World, job_id: int, tokens: int) -> str:
    return world.checkpoint_data(job_id, tokens)[2:]


async def send_batch(world: World, data: str) -> dict[str, Any]:
    """Send a batch with the gas that the node itself estimates for it."""
    return await world.host.transact(world.host_address, data)


async def test_the_account_shows_to_whom_it_delegates_and_can_take_it_back(world: World) -> None:
    address = await delegate(world)
    code = await world.client.request("eth_getCode", world.host_address, "latest")
    assert code == "0xef0100" + address[2:].lower()
    await send_with_delegation(world, NOBODY)
    assert await world.client.request("eth_getCode", world.host_address, "latest") == "0x"
    await world.checkpoint(world.job_id, 100)


async def test_a_batch_claims_for_several_jobs_with_the_host_as_sender(world: World) -> None:
    await delegate(world)
    jobs = [world.job_id, await world.create_job(), await world.create_job()]
    receipt = await send_batch(world, claims(world, jobs))
    results = BATCH.decode_events(receipt["logs"], "CallResult")
    assert [(event["index"], event["success"], event["target"]) for event in results] == [
        (index, True, world.contract) for index in range(3)
    ]
    submitted = world.artifact.decode_events(receipt["logs"], "CheckpointSubmitted")
    assert [event["host"] for event in submitted] == [world.host_address] * 3
    assert [await world.tokens_paid(job_id) for job_id in jobs] == [100, 100, 100]


async def test_the_first_batch_can_travel_with_the_delegation(world: World) -> None:
    _, address = await world.deploy("BatchClaims")
    receipt = await send_with_delegation(world, address, claims(world, [world.job_id]))
    assert BATCH.decode_events(receipt["logs"], "CallResult")[0]["success"]
    assert await world.tokens_paid() == 100


async def test_a_failing_claim_does_not_stop_the_others_and_tells_its_reason(world: World) -> None:
    await delegate(world)
    first, closed, last = world.job_id, await world.create_job(), await world.create_job()
    await world.end_job(closed)
    receipt = await send_batch(world, claims(world, [first, closed, last]))
    results = BATCH.decode_events(receipt["logs"], "CallResult")
    assert [event["success"] for event in results] == [True, False, True]
    assert [revert_reason(event["reason"]) for event in results] == ["", "Job not open", ""]
    assert [await world.tokens_paid(job_id) for job_id in (first, closed, last)] == [100, 0, 100]


async def test_a_delegating_account_is_still_paid(world: World) -> None:
    await delegate(world)
    before = await world.balance_wei(world.host_address)
    receipt = await world.checkpoint(world.job_id, 1_000)
    gas_wei = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert world.artifact.decode_events(receipt["logs"], "PaymentHeld") == []
    assert await world.balance_wei(world.host_address) == before - gas_wei + 900 * world.price_wei


async def test_nobody_else_can_use_the_account(world: World) -> None:
    await delegate(world)
    stranger = Account.from_key(await world.funded_key()).address
    call = {"from": stranger, "to": world.host_address, "data": claims(world, [world.job_id])}
    with pytest.raises(RpcFault, match="Only the account itself"):
        await world.client.request("eth_call", call, "latest")


async def test_a_batch_with_too_little_gas_fails_as_a_whole_instead_of_losing_its_last_claims(world: World) -> None:
    await delegate(world)
    jobs = [world.job_id, await world.create_job()]
    with pytest.raises(TransactionReverted):
        await world.host.transact(world.host_address, claims(world, jobs), gas=200_000)
    assert [await world.tokens_paid(job_id) for job_id in jobs] == [0, 0]


async def test_a_long_answer_of_a_failed_call_is_cut(world: World) -> None:
    await delegate(world)
    # Init code whose deployed code reverts with 4,096 bytes of memory: PUSH2 1000, PUSH0, REVERT.
    bomb_code = bytes.fromhex("6110005ffd")
    init = bytes([0x64]) + bomb_code + bytes.fromhex("5f526005601bf3")
    receipt = await world.client.receipt(await world.bank.send(None, "0x" + init.hex()))
    call = BATCH.encode_call("executeBatch", [(receipt["contractAddress"], CLAIM_GAS, b"")])
    result = BATCH.decode_events((await send_batch(world, call))["logs"], "CallResult")[0]
    assert (result["success"], result["reason"]) == (False, bytes(256))


async def test_ten_claims_in_a_batch_save_a_sixth_of_the_gas_of_ten_transactions(
    world: World, record_property: pytest.RecordProperty
) -> None:
    jobs = [world.job_id, *[await world.create_job() for _ in range(9)]]
    for job_id in jobs:  # the first claim of a job pays for its storage slot either way
        await world.checkpoint(job_id, 100)
    single = sum([int((await world.checkpoint(job_id, 100))["gasUsed"], 16) for job_id in jobs])
    await delegate(world)
    batched = int((await send_batch(world, claims(world, jobs)))["gasUsed"], 16)
    record_property("gas for a claim alone", single // 10)
    record_property("gas for a claim in a batch of ten", batched // 10)
    print(f"gas for a claim: {single // 10} alone, {batched // 10} in a batch of ten")
    assert batched < single * 5 / 6
