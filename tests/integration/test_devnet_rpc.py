"""The embedded chain answers as a node does; where the test takes `world`, anvil must pass it too."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest
from chain_support import World, make_proof, wait_until
from eth_account import Account
from eth_utils.address import to_checksum_address
from secrets_support import canary_key

from fabstir_desktop.devnet.answers import RpcFault
from fabstir_desktop.devnet.artifacts import load_artifact

SOMEONE = to_checksum_address("0x" + "5e" * 20)


async def fault(world: World, method: str, *params: Any) -> RpcFault:
    with pytest.raises(RpcFault) as raised:
        await world.client.request(method, *params)
    return raised.value


async def raw_transfer(world: World, key: str, nonce: int, **changes: Any) -> str:
    account = Account.from_key(key)
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": world.chain_id,
        "nonce": nonce,
        "to": SOMEONE,
        "value": 1,
        "gas": 21_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 10**9,
    }
    return "0x" + bytes(account.sign_transaction(fields | changes).raw_transaction).hex()


async def test_chain_id_and_head_are_told_in_hex(world: World) -> None:
    assert await world.client.number("eth_chainId") == world.chain_id
    assert await world.client.request("net_version") == str(world.chain_id)
    head = await world.client.request("eth_getBlockByNumber", "latest", False)
    assert int(head["number"], 16) == await world.block_number()
    assert await world.client.request("eth_getBlockByHash", head["hash"], False) == head
    parent = await world.client.request("eth_getBlockByNumber", hex(int(head["number"], 16) - 1), False)
    assert parent["hash"] == head["parentHash"]
    assert int(parent["timestamp"], 16) <= int(head["timestamp"], 16)


@pytest.mark.parametrize("tag", ["latest", "safe", "finalized", "earliest", "pending"])
async def test_every_block_tag_names_a_block(world: World, tag: str) -> None:
    block = await world.client.request("eth_getBlockByNumber", tag, False)
    assert int(block["number"], 16) <= await world.block_number() + 1


async def test_what_does_not_exist_is_null(world: World) -> None:
    unknown = "0x" + "ab" * 32
    assert await world.client.request("eth_getBlockByNumber", "0xffffff", False) is None
    assert await world.client.request("eth_getBlockByHash", unknown, False) is None
    assert await world.client.request("eth_getTransactionByHash", unknown) is None
    assert await world.client.request("eth_getTransactionReceipt", unknown) is None
    assert await world.client.request("eth_getCode", SOMEONE, "latest") == "0x"


async def test_a_mined_transaction_is_found_by_hash_with_its_receipt(world: World) -> None:
    receipt = await world.checkpoint(world.job_id, 100)
    found = await world.client.request("eth_getTransactionByHash", receipt["transactionHash"])
    assert found["hash"] == receipt["transactionHash"]
    assert found["from"] == receipt["from"] == world.host_address.lower()
    assert found["to"] == receipt["to"] == world.contract.lower()
    assert found["blockHash"] == receipt["blockHash"]
    assert found["type"] == "0x2"
    assert found["input"].startswith("0x6cafe1b4")
    assert receipt["status"] == "0x1"
    assert [int(log["logIndex"], 16) for log in receipt["logs"]] == [0, 1]
    block = await world.client.request("eth_getBlockByHash", receipt["blockHash"], True)
    assert [item["hash"] for item in block["transactions"]] == [receipt["transactionHash"]]


async def test_a_transaction_that_waits_is_seen_as_pending(world: World) -> None:
    key = await world.funded_key()
    address = Account.from_key(key).address
    await world.set_automine(False)
    tx_hash = await world.client.request("eth_sendRawTransaction", await raw_transfer(world, key, 0))
    found = await world.client.request("eth_getTransactionByHash", tx_hash)
    assert found["blockNumber"] is None
    assert await world.client.request("eth_getTransactionReceipt", tx_hash) is None
    assert await world.client.number("eth_getTransactionCount", address, "latest") == 0
    assert await world.client.number("eth_getTransactionCount", address, "pending") == 1
    await world.mine()
    assert (await world.client.receipt(tx_hash))["status"] == "0x1"
    assert await world.client.number("eth_getTransactionCount", address, "latest") == 1


async def test_a_dropped_transaction_is_forgotten_and_can_be_sent_again(world: World) -> None:
    key = await world.funded_key()
    await world.set_automine(False)
    raw = await raw_transfer(world, key, 0)
    tx_hash = await world.client.request("eth_sendRawTransaction", raw)
    await world.drop(tx_hash)
    assert await world.client.request("eth_getTransactionByHash", tx_hash) is None
    assert await world.client.request("eth_sendRawTransaction", raw) == tx_hash
    await world.mine()
    assert (await world.client.receipt(tx_hash))["status"] == "0x1"


async def test_a_nonce_above_the_next_one_waits_for_the_gap_to_be_filled(world: World) -> None:
    key = await world.funded_key()
    later = await world.client.request("eth_sendRawTransaction", await raw_transfer(world, key, 1))
    assert await world.client.request("eth_getTransactionReceipt", later) is None
    await world.client.request("eth_sendRawTransaction", await raw_transfer(world, key, 0))
    await world.mine()
    assert (await world.client.receipt(later))["status"] == "0x1"


async def test_the_same_bytes_twice_are_already_known(world: World) -> None:
    key = await world.funded_key()
    await world.set_automine(False)
    raw = await raw_transfer(world, key, 0)
    await world.client.request("eth_sendRawTransaction", raw)
    refused = await fault(world, "eth_sendRawTransaction", raw)
    assert "already" in refused.message


async def test_a_used_nonce_is_too_low(world: World) -> None:
    key = await world.funded_key()
    await world.client.request("eth_sendRawTransaction", await raw_transfer(world, key, 0))
    refused = await fault(world, "eth_sendRawTransaction", await raw_transfer(world, key, 0, value=2))
    assert "nonce too low" in refused.message


async def test_an_account_without_money_cannot_send(world: World) -> None:
    refused = await fault(world, "eth_sendRawTransaction", await raw_transfer(world, "0x" + "77" * 32, 0))
    assert "insufficient funds" in refused.message.lower()


async def test_a_transaction_for_another_chain_is_refused(world: World) -> None:
    key = await world.funded_key()
    refused = await fault(world, "eth_sendRawTransaction", await raw_transfer(world, key, 0, chainId=1))
    assert "chain id" in refused.message.lower()


async def test_a_replacement_must_pay_more(world: World) -> None:
    key = await world.funded_key()
    await world.set_automine(False)
    first = await world.client.request("eth_sendRawTransaction", await raw_transfer(world, key, 0))
    refused = await fault(world, "eth_sendRawTransaction", await raw_transfer(world, key, 0, value=2))
    assert "underpriced" in refused.message
    dearer = await raw_transfer(world, key, 0, maxFeePerGas=2 * 10**10, maxPriorityFeePerGas=2 * 10**9)
    second = await world.client.request("eth_sendRawTransaction", dearer)
    await world.mine()
    assert (await world.client.receipt(second))["status"] == "0x1"
    assert await world.client.request("eth_getTransactionReceipt", first) is None


@pytest.mark.parametrize("raise_percent", [109, 110])
async def test_the_embedded_chain_wants_ten_percent_more_as_geth_does(
    embedded_world: World, raise_percent: int
) -> None:
    world = embedded_world
    key = await world.funded_key()
    await world.set_automine(False)
    await world.client.request("eth_sendRawTransaction", await raw_transfer(world, key, 0))
    bumped = await raw_transfer(
        world, key, 0, maxFeePerGas=10**8 * raise_percent, maxPriorityFeePerGas=10**7 * raise_percent
    )
    if raise_percent < 110:
        refused = await fault(world, "eth_sendRawTransaction", bumped)
        assert refused.message == "replacement transaction underpriced"
    else:
        await world.client.request("eth_sendRawTransaction", bumped)


async def test_a_fee_below_the_base_fee_waits_on_the_embedded_chain(embedded_world: World) -> None:
    world = embedded_world
    key = await world.funded_key()
    cheap = await raw_transfer(world, key, 0, maxFeePerGas=1, maxPriorityFeePerGas=1)
    tx_hash = await world.client.request("eth_sendRawTransaction", cheap)
    await world.mine()
    assert await world.client.request("eth_getTransactionReceipt", tx_hash) is None
    found = await world.client.request("eth_getTransactionByHash", tx_hash)
    assert found["blockNumber"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gas": 20_999}, "intrinsic gas too low"),
        ({"gas": 10**9}, "exceeds block gas limit"),
        ({"data": b"\1" * 1000, "gas": 40_000}, "floor data gas"),
        ({"data": b"\1" * 140_000, "gas": 10_000_000}, "oversized data"),
    ],
)
async def test_the_embedded_chain_refuses_in_the_words_of_geth(
    embedded_world: World, changes: dict[str, Any], words: str
) -> None:
    key = await embedded_world.funded_key()
    raw = await raw_transfer(embedded_world, key, 0, **changes)
    assert words in (await fault(embedded_world, "eth_sendRawTransaction", raw)).message


@pytest.mark.parametrize("raw", ["0x", "0x00", "0x02", "0x02f8", "0x03f8aa", "0xf8ff", "0x" + "c0" * 40])
async def test_damaged_bytes_are_refused_and_the_chain_goes_on(embedded_world: World, raw: str) -> None:
    refused = await fault(embedded_world, "eth_sendRawTransaction", raw)
    assert refused.message != "internal error"
    assert await embedded_world.block_number() > 0


async def test_the_money_of_waiting_transactions_is_counted_together(embedded_world: World) -> None:
    world = embedded_world
    key = await world.funded_key(10**15)
    await world.set_automine(False)
    await world.client.request("eth_sendRawTransaction", await raw_transfer(world, key, 0, value=6 * 10**14))
    refused = await fault(world, "eth_sendRawTransaction", await raw_transfer(world, key, 1, value=6 * 10**14))
    assert refused.message.startswith("insufficient funds for gas * price + value")


async def test_a_refused_call_carries_code_message_and_data(world: World) -> None:
    call = {"from": world.host_address, "to": world.contract, "data": world.checkpoint_data(world.job_id, 0)}
    for method in ("eth_call", "eth_estimateGas"):
        refused = await fault(world, method, call, "latest")
        assert refused.code == 3
        assert refused.message == "execution reverted: Zero tokens"
        assert refused.data is not None
        assert refused.data.startswith("0x08c379a0")


async def test_a_call_to_an_unknown_function_is_reverted_without_data(world: World) -> None:
    refused = await fault(world, "eth_call", {"to": world.contract, "data": "0x12345678"}, "latest")
    assert refused.message.startswith("execution reverted")


async def test_a_call_to_an_account_without_code_returns_nothing(world: World) -> None:
    assert await world.client.request("eth_call", {"to": SOMEONE, "data": "0x12345678"}, "latest") == "0x"


async def test_a_call_sees_the_state_of_the_block_it_names(world: World) -> None:
    before = await world.block_number()
    await world.checkpoint(world.job_id, 100)
    call = {"to": world.contract, "data": world.artifact.encode_call("jobs", world.job_id)}
    old, new = [
        world.artifact.decode_result("jobs", await world.client.request("eth_call", call, tag))
        for tag in (hex(before), "latest")
    ]
    assert (old[4], new[4]) == (0, 100)


async def test_an_estimate_is_enough_and_not_much_more(world: World) -> None:
    data = world.checkpoint_data(world.job_id, 100)
    call = {"from": world.host_address, "to": world.contract, "data": data}
    estimate = await world.client.number("eth_estimateGas", call)
    receipt = await world.host.transact(world.contract, data, gas=estimate)
    assert int(receipt["gasUsed"], 16) <= estimate <= int(receipt["gasUsed"], 16) * 1.3


async def test_both_chains_use_the_same_gas(embedded_world: World, anvil_world: World) -> None:
    used = []
    for world in (embedded_world, anvil_world):
        await world.checkpoint(world.job_id, 100)
        used.append(int((await world.checkpoint(world.job_id, 100))["gasUsed"], 16))
    # A random proof hash may hold a zero byte, which is cheaper as call data.
    assert abs(used[0] - used[1]) < 500


async def test_logs_are_found_by_address_topic_and_range(world: World) -> None:
    first = await world.checkpoint(world.job_id, 100)
    second = await world.checkpoint(world.job_id, 50)
    topic = first["logs"][0]["topics"][0]
    job_topic = "0x" + world.job_id.to_bytes(32, "big").hex()
    base = {"address": world.contract, "fromBlock": first["blockNumber"], "toBlock": "latest"}
    both = await world.client.request("eth_getLogs", base | {"topics": [topic, job_topic]})
    assert [log["transactionHash"] for log in both] == [first["transactionHash"], second["transactionHash"]]
    one = await world.client.request("eth_getLogs", base | {"toBlock": first["blockNumber"]})
    assert one == first["logs"]
    assert await world.client.request("eth_getLogs", base | {"topics": [None, "0x" + "00" * 32]}) == []
    either = await world.client.request("eth_getLogs", base | {"topics": [["0x" + "00" * 32, topic]]})
    assert either == both
    by_hash = await world.client.request("eth_getLogs", {"blockHash": second["blockHash"]})
    assert by_hash == second["logs"]
    assert await world.client.request("eth_getLogs", base | {"address": SOMEONE}) == []


async def test_the_fee_history_has_one_base_fee_more_than_blocks(world: World) -> None:
    receipt = await world.checkpoint(world.job_id, 100)
    history = await world.client.request("eth_feeHistory", "0x2", "latest", [25, 50])
    assert len(history["baseFeePerGas"]) == 3
    assert len(history["gasUsedRatio"]) == 2
    assert [len(row) for row in history["reward"]] == [2, 2]
    tip = int(receipt["effectiveGasPrice"], 16) - int(history["baseFeePerGas"][-2], 16)
    assert int(history["reward"][-1][0], 16) == tip
    assert await world.client.number("eth_maxPriorityFeePerGas") > 0
    assert await world.client.number("eth_gasPrice") >= int(history["baseFeePerGas"][-1], 16)


async def test_a_batch_is_answered_in_one_list(world: World) -> None:
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": "b", "method": "eth_noSuchThing", "params": []},
    ]
    answers = {answer["id"]: answer for answer in await world.client.post(batch)}
    assert int(answers[1]["result"], 16) == world.chain_id
    assert answers["b"]["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getBalance", ["nonsense", "latest"]),
        ("eth_getBalance", ["0x1234", "latest"]),
        ("eth_getBalance", []),
        ("eth_getBlockByNumber", ["soon", False]),
        ("eth_call", ["nothing", "latest"]),
        ("eth_getTransactionReceipt", ["0x12"]),
    ],
)
async def test_wrong_parameters_are_named_as_such(embedded_world: World, method: str, params: list[Any]) -> None:
    assert (await fault(embedded_world, method, *params)).code == -32602


@pytest.mark.parametrize("body", ["a text", 7, {"id": 1}, [], True])
async def test_a_body_that_is_no_request_is_refused(embedded_world: World, body: Any) -> None:
    answer = await embedded_world.client.post(body)
    assert answer["error"]["code"] == -32600


async def test_the_clock_can_be_moved(world: World) -> None:
    before = int((await world.client.request("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
    await world.increase_time(3_600)
    after = int((await world.client.request("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
    assert 3_600 <= after - before < 3_700


async def test_a_hundred_claims_of_one_host_fit_into_one_block(embedded_world: World) -> None:
    world = embedded_world
    await world.set_automine(False)
    host = world.host
    proofs = [make_proof(world.host_key, 10, secrets.token_bytes(32)) for _ in range(100)]
    hashes = [
        await host.send(world.contract, world.checkpoint_data(world.job_id, 10, proof), gas=200_000) for proof in proofs
    ]
    await world.mine()
    blocks = {(await world.client.receipt(tx_hash))["blockNumber"] for tx_hash in hashes}
    assert len(blocks) == 1
    assert await world.tokens_paid() == 1_000


async def test_blocks_come_by_themselves_where_a_block_time_is_set(start_embedded: Any) -> None:
    from fabstir_desktop.devnet.client import ChainClient
    from fabstir_desktop.devnet.demo import deploy_demo

    chain = await start_embedded(block_time_s=0.1, chain_id=84532)
    assert chain.chain_id == 84532
    async with ChainClient(chain.rpc_url) as client:

        async def has_grown() -> bool:
            return await client.number("eth_blockNumber") >= 5

        await wait_until(has_grown)
        world = await deploy_demo(chain, host_key=canary_key(), jobs=3, tokens=500)
        assert world.chain_id == 84532
        assert len(set(world.job_ids)) == 3
        covered = [
            (await client.read(load_artifact("ProofSystem"), world.contract, "tokensCovered", job_id))[0]
            for job_id in world.job_ids
        ]
        assert covered == [500, 500, 500]


async def test_requests_that_come_together_are_all_answered(embedded_world: World) -> None:
    numbers = await asyncio.gather(*(embedded_world.block_number() for _ in range(50)))
    assert len(set(numbers)) == 1


async def test_a_reorg_on_anvil_takes_a_claim_back_and_the_same_bytes_are_accepted_again(anvil_world: World) -> None:
    world = anvil_world
    key = await world.funded_key()
    raw = await raw_transfer(world, key, 0)
    tx_hash = await world.client.request("eth_sendRawTransaction", raw)
    await world.client.receipt(tx_hash)
    before = await world.client.request("eth_getBlockByNumber", "latest", False)
    await world.reorg(1)
    after = await world.client.request("eth_getBlockByNumber", before["number"], False)
    assert after["hash"] != before["hash"]
    assert await world.client.request("eth_getTransactionReceipt", tx_hash) is None
    assert await world.client.request("eth_sendRawTransaction", raw) == tx_hash
    assert (await world.client.receipt(tx_hash))["status"] == "0x1"


async def test_money_and_base_fee_can_be_set_on_anvil(anvil_world: World) -> None:
    await anvil_world.set_balance(SOMEONE, 7)
    assert await anvil_world.balance_wei(SOMEONE) == 7
    await anvil_world.set_next_base_fee(5 * 10**9)
    await anvil_world.mine()
    head = await anvil_world.client.request("eth_getBlockByNumber", "latest", False)
    assert int(head["baseFeePerGas"], 16) == 5 * 10**9


async def test_an_anvil_with_a_block_time_mines_by_itself(start_anvil: Any) -> None:
    from fabstir_desktop.devnet.client import ChainClient

    anvil = await start_anvil(block_time_s=1, chain_id=31337)
    async with ChainClient(anvil.rpc_url) as client:
        assert await client.number("eth_chainId") == 31337

        async def has_mined() -> bool:
            return await client.number("eth_blockNumber") >= 1

        await wait_until(has_mined)
