"""The stand-in marketplace behaves as the deployed one is known to, on both chains."""

from __future__ import annotations

import secrets

import pytest
from chain_support import World
from eth_account import Account
from eth_utils.crypto import keccak
from marketplace_support import NATIVE, PRICE, SESSION_FIELDS, Marketplace

from fabstir_desktop.devnet.answers import RpcFault
from fabstir_desktop.devnet.artifacts import Artifact, load_artifact

DEPLOYED_SELECTORS = {
    "submitProofOfWork": "0x7c5cb561",
    "completeSessionJob": "0x040138dd",
    "triggerSessionTimeout": "0x14a4ffa5",
    "sessionJobs": "0xef39d372",
    "sessionModel": "0x63c602e6",
    "getProofSubmission": "0x437ec743",
    "hostSessions": "0xbbd2dea7",
    "disputeWindow": "0x117f5f92",
    "feeBasisPoints": "0xb8606eef",
    "minTokensFee": "0x5c1134ff",
    "MIN_PROVEN_TOKENS": "0x27523743",
    "paused": "0x5c975abb",
    "getBalance": "0xd4fac45d",
    "withdraw": "0x00f714ce",
    "withdrawAll": "0xfa09e630",
    "withdrawMultiple": "0x2895e837",
    "verifiedProofs": "0x176d80c4",
}
DEPLOYED_TOPICS = {
    "SessionJobCreated": "0x513b4fec3e6ae39000befae860b986c341242d8f5137c9ffafc229557420c42f",
    "SessionJobCreatedForModel": "0xa84eed6588a1461bab01bed46312a56a25bdf47d8b725c25e316dcc79d1b34bf",
    "ProofSubmitted": "0x330d363d69efddb2c24b4f13b34a8f73f88fcc6e07c6b64e8f0c51e78d0d7702",
    "SessionCompleted": "0xdc98ea7ca5b8998396967b6d0c1da6e05a17b467b15bdda0f07f6b84dfd31e71",
    "SessionCompletedBy": "0xb94c40391c2efc74af3e630949876a81226c7bb103d568ee293c12ee899346a7",
    "SessionTimedOut": "0xfa2b97569bd8b93c0adf89bf1f6903b10d258aec3bbfc759b7656034179660da",
    "RefundCreditedToDeposit": "0xdb5f13b1c7cb29ab73e98fa045fbd882db0f6b76410bd8867c2443ad9079009c",
    "EarningsCredited": "0x9e9f00c55d335587fc3f522b47dde618756987a48d8ef24df42c4e79be4e28e4",
    "EarningsWithdrawn": "0xe4ec21d088b98546d1befc712d90b661d2960457d312563dcd2f07e6f1566734",
}


async def refusal(marketplace: Marketplace, data: str, key: str | None = None) -> RpcFault:
    world = marketplace.world
    call = {"from": Account.from_key(key or world.host_key).address, "to": marketplace.address, "data": data}
    with pytest.raises(RpcFault) as refused:
        await world.client.request("eth_call", call, "latest")
    return refused.value


async def refused_claim(marketplace: Marketplace, job_id: int, tokens: int, proof_hash: bytes | None = None) -> str:
    fault = await refusal(marketplace, marketplace.claim_data(job_id, tokens, proof_hash))
    return fault.message.removeprefix("execution reverted: ")


def signatures(artifact: Artifact, kind: str) -> dict[str, bytes]:
    """The hash of every signature by name."""
    return {
        entry["name"]: keccak(f"{entry['name']}({','.join(item['type'] for item in entry['inputs'])})".encode())
        for entry in artifact.abi
        if entry["type"] == kind
    }


@pytest.mark.parametrize(
    ("kind", "known", "length"), [("function", DEPLOYED_SELECTORS, 4), ("event", DEPLOYED_TOPICS, 32)]
)
def test_selectors_and_topics_are_those_of_the_deployed_contracts(
    kind: str, known: dict[str, str], length: int
) -> None:
    have: dict[str, bytes] = {}
    for name in ("JobMarketplaceStandIn", "HostEarningsStandIn", "ProofRegistryStandIn"):
        have |= signatures(load_artifact(name), kind)
    assert {name: "0x" + have[name][:length].hex() for name in known} == known


def test_the_getter_of_a_session_returns_the_18_deployed_fields() -> None:
    entry = next(item for item in load_artifact("JobMarketplaceStandIn").abi if item.get("name") == "sessionJobs")
    assert tuple(item["name"] for item in entry["outputs"]) == SESSION_FIELDS


async def test_the_constants_are_the_deployed_ones(marketplace: Marketplace) -> None:
    expected = {"disputeWindow": 30, "feeBasisPoints": 1000, "minTokensFee": 1000, "MIN_PROVEN_TOKENS": 100}
    for name, value in expected.items():
        assert await marketplace.read(name) == (value,)
    assert await marketplace.read("PRICE_PRECISION") == (1000,)
    assert await marketplace.read("paused") == (False,)


async def test_a_claim_adds_to_the_session_and_pays_nothing_yet(marketplace: Marketplace) -> None:
    job_id = await marketplace.create_session()
    await marketplace.world.increase_time(10)
    proof_hash = secrets.token_bytes(32)
    receipt = await marketplace.claim(job_id, 150, proof_hash)
    event = marketplace.events(receipt, "ProofSubmitted")[0]
    assert (event["jobId"], event["host"], event["tokensClaimed"]) == (job_id, marketplace.world.host_address, 150)
    session = await marketplace.session(job_id)
    assert (session["tokensUsed"], session["status"], session["lastProofHash"]) == (150, 0, proof_hash)
    assert session["host"] == marketplace.world.host_address.lower()
    assert (await marketplace.read("getProofSubmission", job_id, 0))[:2] == (proof_hash, 150)
    assert await marketplace.read("hostSessions", marketplace.world.host_address, 0) == (job_id,)
    assert await marketplace.earnings_wei() == 0


async def test_fewer_than_a_hundred_tokens_are_refused(marketplace: Marketplace) -> None:
    job_id = await marketplace.create_session()
    await marketplace.world.increase_time(10)
    assert await refused_claim(marketplace, job_id, 99) == "Must claim minimum tokens"


async def test_the_first_proof_must_reach_the_proof_interval_and_later_ones_need_not(marketplace: Marketplace) -> None:
    job_id = await marketplace.create_session(proof_interval=500)
    await marketplace.world.increase_time(10)
    assert await refused_claim(marketplace, job_id, 499) == "Low first"
    await marketplace.claim(job_id, 500)
    await marketplace.world.increase_time(10)
    await marketplace.claim(job_id, 100)
    assert (await marketplace.session(job_id))["tokensUsed"] == 600


async def test_claims_are_limited_by_the_time_since_the_last_proof(marketplace: Marketplace) -> None:
    job_id = await marketplace.create_session()
    assert await refused_claim(marketplace, job_id, 90_000) == "Too many"
    await marketplace.world.increase_time(50)
    await marketplace.claim(job_id, 90_000)


async def test_a_deposit_covers_so_many_tokens_and_no_more(marketplace: Marketplace) -> None:
    job_id = await marketplace.create_session(tokens=10_000)
    await marketplace.world.increase_time(60)
    assert await refused_claim(marketplace, job_id, 10_001) == "Exceeds deposit"
    await marketplace.claim(job_id, 10_000)


async def test_a_proof_hash_counts_once_for_all_jobs_and_hosts(marketplace: Marketplace) -> None:
    first, second = await marketplace.create_session(), await marketplace.create_session()
    await marketplace.world.increase_time(10)
    proof_hash = secrets.token_bytes(32)
    await marketplace.claim(first, 100, proof_hash)
    assert await refused_claim(marketplace, second, 100, proof_hash) == "Invalid proof signature"


async def test_only_the_host_can_claim_and_nobody_for_a_session_that_does_not_exist(marketplace: Marketplace) -> None:
    world = marketplace.world
    job_id = await marketplace.create_session()
    await world.increase_time(10)
    stranger = await refusal(marketplace, marketplace.claim_data(job_id, 100), world.demo.client_key)
    assert stranger.message == "execution reverted: Not host"
    assert await refused_claim(marketplace, 9_999, 100) == "Not host"


async def test_a_proof_after_the_time_out_window_is_refused(marketplace: Marketplace) -> None:
    job_id = await marketplace.create_session(proof_timeout_s=60)
    await marketplace.world.increase_time(70)
    assert await refused_claim(marketplace, job_id, 100) == "Proof timeout"


async def test_a_paused_marketplace_takes_no_proofs_but_completes(marketplace: Marketplace) -> None:
    world = marketplace.world
    job_id = await marketplace.create_session()
    await world.increase_time(60)
    await marketplace.claim(job_id, 100)
    await world.increase_time(60)
    await world.bank.transact(marketplace.address, marketplace.artifact.encode_call("setPaused", True))
    fault = await refusal(marketplace, marketplace.claim_data(job_id, 100))
    assert fault.data == "0xd93c0665"
    await marketplace.complete(job_id)


async def test_the_host_waits_for_the_dispute_window_and_is_then_credited_ninety_percent(
    marketplace: Marketplace,
) -> None:
    job_id = await marketplace.create_session()
    await marketplace.world.increase_time(10)
    await marketplace.claim(job_id, 1_000)
    data = marketplace.artifact.encode_call("completeSessionJob", job_id, "cid")
    assert (await refusal(marketplace, data)).message == "execution reverted: Dispute wait"
    await marketplace.world.increase_time(31)
    receipt = await marketplace.complete(job_id)
    payment = 1_000 * PRICE // 1000
    refund = 99_000 * PRICE // 1000
    completed = marketplace.events(receipt, "SessionCompleted")[0]
    assert (completed["totalTokensUsed"], completed["hostEarnings"]) == (1_000, payment * 9 // 10)
    assert completed["userRefund"] == refund
    assert marketplace.events(receipt, "RefundCreditedToDeposit")[0]["amount"] == refund
    assert await marketplace.earnings_wei() == payment * 9 // 10
    assert await marketplace.read("accumulatedTreasuryNative") == (payment // 10,)
    assert (await marketplace.session(job_id))["status"] == 1
    assert await refused_claim(marketplace, job_id, 100) == "Session not active"


async def test_the_client_can_complete_at_any_time_and_pays_a_fee_only_without_any_proof(
    marketplace: Marketplace,
) -> None:
    job_id = await marketplace.create_session()
    receipt = await marketplace.complete(job_id, as_host=False)
    fee = 1_000 * PRICE // 1000
    completed = marketplace.events(receipt, "SessionCompleted")[0]
    assert (completed["hostEarnings"], completed["userRefund"]) == (fee, 99_000 * PRICE // 1000)
    assert await marketplace.earnings_wei() == fee
    assert await marketplace.read("accumulatedTreasuryNative") == (0,)


async def test_nobody_else_can_complete(marketplace: Marketplace) -> None:
    job_id = await marketplace.create_session()
    data = marketplace.artifact.encode_call("completeSessionJob", job_id, "cid")
    fault = await refusal(marketplace, data, await marketplace.world.funded_key())
    assert fault.message == "execution reverted: Only host/depositor"


async def test_anyone_can_close_an_idle_session_and_the_proven_tokens_are_paid(marketplace: Marketplace) -> None:
    world = marketplace.world
    job_id = await marketplace.create_session(proof_timeout_s=60)
    await world.increase_time(10)
    await marketplace.claim(job_id, 1_000)
    data = marketplace.artifact.encode_call("triggerSessionTimeout", job_id)
    assert (await refusal(marketplace, data)).message == "execution reverted: Session not timed out"
    await world.increase_time(61)
    receipt = await world.bank.transact(marketplace.address, data)
    timed_out = marketplace.events(receipt, "SessionTimedOut")[0]
    assert timed_out["hostEarnings"] == 900 * PRICE // 1000
    assert (await marketplace.session(job_id))["status"] == 2
    assert await refused_claim(marketplace, job_id, 100) == "Session not active"


async def test_earnings_are_withdrawn_by_the_host_alone(marketplace: Marketplace) -> None:
    world: World = marketplace.world
    job_id = await marketplace.create_session()
    await world.increase_time(10)
    await marketplace.claim(job_id, 1_000)
    await world.increase_time(31)
    await marketplace.complete(job_id)
    earned = await marketplace.earnings_wei()
    earnings, address = marketplace.earnings_artifact, marketplace.earnings_address
    with pytest.raises(RpcFault, match="No earnings to withdraw"):
        await world.payer.transact(address, earnings.encode_call("withdrawAll", NATIVE))
    with pytest.raises(RpcFault, match="Insufficient earnings"):
        await world.host.transact(address, earnings.encode_call("withdraw", earned + 1, NATIVE))
    receipt = await world.host.transact(address, earnings.encode_call("withdrawAll", NATIVE))
    withdrawn = earnings.decode_events(receipt["logs"], "EarningsWithdrawn")[0]
    assert (withdrawn["amount"], withdrawn["remainingBalance"]) == (earned, 0)
    assert await marketplace.earnings_wei() == 0


async def test_the_linked_contracts_belong_together(marketplace: Marketplace) -> None:
    world = marketplace.world
    linked = await world.client.read(marketplace.earnings_artifact, marketplace.earnings_address, "marketplace")
    assert linked == (marketplace.address.lower(),)
    (registry,) = await marketplace.read("proofSystem")
    assert await world.client.read(load_artifact("ProofRegistryStandIn"), registry, "marketplace") == linked
