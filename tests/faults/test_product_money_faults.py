"""What stands between a token and its payment is said plainly, loses nothing, and needs no restart when it is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from host_environment import host_environment
from product_support import Product, ask, brief_request, running
from rpc_switch import RpcSwitch
from secrets_support import canary_key
from websockets.asyncio.client import connect

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.artifacts import contract_address, load_artifact
from fabstir_desktop.devnet.client import ChainClient, Sender
from fabstir_desktop.devnet.demo import DemoWorld, create_job, deploy_demo

PROMPT = "Count from one to one hundred in words, one number a line, and never stop."
TOKENS = 120
PASSWORD = "correct horse battery staple"


@pytest.fixture
async def chain() -> AsyncIterator[EmbeddedChain]:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        yield chain


async def serve_tokens(product: Product, job_id: int, tokens: int = TOKENS) -> int:
    served = 0
    async with connect(product.url) as socket:
        while served < tokens:
            answer = await ask(socket, brief_request(job_id, PROMPT, tokens - served))
            assert answer.error is None, answer.error
            served += answer.chunk_tokens
    return served


async def has_problem(product: Product, code: str) -> dict[str, Any]:
    """The problem as the running app tells it; what it tells stands in the log too."""
    status = await product.wait_for(lambda found: code in {problem["code"] for problem in found["problems"]})
    problem: dict[str, Any] = next(problem for problem in status["problems"] if problem["code"] == code)
    await product.wait_for_log(f"{code}: {problem['message'][:20]}")
    return problem


async def failed_lines(product: Product) -> dict[str, str]:
    """What `doctor` finds wrong, by name; it ends with 1."""
    code, text = await product.command("doctor")
    lines = [line.removeprefix("FAILED").strip() for line in text.splitlines() if line.startswith("FAILED")]
    assert (code, bool(lines)) == (1, True), text
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}


async def tokens_paid(world: DemoWorld, job_id: int) -> int:
    async with ChainClient(world.rpc_url) as client:
        return int((await client.read(load_artifact("ProofSystem"), world.contract, "jobs", job_id))[4])


async def all_paid(product: Product, world: DemoWorld, job_id: int, served: int) -> None:
    row = await product.job(job_id, lambda job: job["settled"] == job["generated"] == served)
    assert row["unclaimed"] == 0
    assert await tokens_paid(world, job_id) == served


async def test_an_rpc_that_goes_away_delays_payment_and_nothing_else(chain: EmbeddedChain, tmp_path: Path) -> None:
    world = await deploy_demo(chain, host_key=canary_key())
    async with (
        RpcSwitch(world.rpc_url) as rpc,
        running(tmp_path / "data", host_environment(world, RPC_URL=rpc.url)) as product,
    ):
        served = await serve_tokens(product, world.job_id, 20)
        rpc.down = True
        served += await serve_tokens(product, world.job_id, TOKENS)
        problem = await has_problem(product, "C02")
        assert problem["message"]
        assert problem["action"]
        row = await product.job(world.job_id, lambda job: job["generated"] == served)
        assert row["generated"] - row["settled"] >= TOKENS
        failed = await failed_lines(product)
        assert {"RPC", "chain id", "contract", "gas money"} <= set(failed)
        assert "no contact" in failed["RPC"]
        rpc.down = False
        await all_paid(product, world, world.job_id, served)
        await product.wait_for(lambda status: not any(problem["code"] == "C02" for problem in status["problems"]))


async def test_a_wrong_chain_id_locks_signing_until_it_is_right(chain: EmbeddedChain, tmp_path: Path) -> None:
    world = await deploy_demo(chain, host_key=canary_key())
    async with (
        RpcSwitch(world.rpc_url) as rpc,
        running(tmp_path / "data", host_environment(world, RPC_URL=rpc.url)) as product,
    ):
        served = await serve_tokens(product, world.job_id, 20)
        await all_paid(product, world, world.job_id, served)
        rpc.chain_id = 1
        problem = await has_problem(product, "C01")
        assert "chain 1" in problem["message"]
        rpc.seen.clear()
        served += await serve_tokens(product, world.job_id, TOKENS)
        assert "eth_sendRawTransaction" not in rpc.seen, "nothing is sent to a wrong chain"
        failed = await failed_lines(product)
        assert "on chain 1" in failed["chain id"]
        rpc.chain_id = None
        await all_paid(product, world, world.job_id, served)


async def test_a_contract_that_is_not_there_is_said_and_claimed_from_once_it_is(
    chain: EmbeddedChain, tmp_path: Path
) -> None:
    world = await deploy_demo(chain, host_key=canary_key())
    async with ChainClient(world.rpc_url) as client:
        bank = Sender(client, chain.bank_key)
        nonce = await client.number("eth_getTransactionCount", bank.address, "pending")
        absent = contract_address(bank.address, nonce)
        settings = host_environment(world, CONTRACT_PROOF_SYSTEM=absent)
        async with running(tmp_path / "data", settings) as product:
            problem = await has_problem(product, "C06")
            assert absent.lower() in problem["message"].lower()
            assert absent.lower() in (await failed_lines(product))["contract"].lower()
            deployment = load_artifact("ProofSystem").encode_deployment(world.treasury_address)
            await client.receipt(await bank.send(None, deployment, gas=3_000_000))
            job_id = await create_job(_at(world, absent))
            await product.wait_for(lambda status: status["chain"]["submitting"] and status["chain"]["state"] == "ready")
            served = await serve_tokens(product, job_id)
            await all_paid(product, _at(world, absent), job_id, served)


def _at(world: DemoWorld, contract: str) -> DemoWorld:
    return replace(world, contract=contract)


async def test_without_gas_money_claims_wait_and_follow_when_it_arrives(chain: EmbeddedChain, tmp_path: Path) -> None:
    world = await deploy_demo(chain, host_key=canary_key())
    poor_key = canary_key()
    async with ChainClient(world.rpc_url) as client:
        poor = Sender(client, poor_key)
        job_id = await create_job(world, host=poor.address)
        async with running(tmp_path / "data", host_environment(world, HOST_PRIVATE_KEY=poor_key)) as product:
            problem = await has_problem(product, "G02")
            assert "ETH" in problem["message"]
            assert "send ETH" in (await failed_lines(product))["gas money"]
            served = await serve_tokens(product, job_id)
            await product.job(job_id, lambda job: job["generated"] == served and job["settled"] == 0)
            bank = Sender(client, chain.bank_key)
            await client.receipt(await bank.send(poor.address, value_wei=10**18, gas=21_000))
            await all_paid(product, world, job_id, served)


async def test_a_key_that_is_not_the_jobs_host_is_said_and_signs_nothing_until_the_right_one_is_there(
    chain: EmbeddedChain, tmp_path: Path
) -> None:
    world = await deploy_demo(chain, host_key=canary_key())
    wrong_key = canary_key()
    settings = host_environment(world, HOST_PRIVATE_KEY="", PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring")
    async with (
        ChainClient(world.rpc_url) as client,
        RpcSwitch(world.rpc_url) as rpc,
        running(tmp_path / "data", {**settings, "RPC_URL": rpc.url}) as product,
    ):
        bank = Sender(client, chain.bank_key)
        await client.receipt(await bank.send(Sender(client, wrong_key).address, value_wei=10**18, gas=21_000))
        served = await serve_tokens(product, world.job_id)
        await set_key(product, wrong_key)
        problem = await has_problem(product, "T02")
        assert world.host_address.lower() in problem["message"].lower()
        assert "T02" in (await failed_lines(product))["running app"]
        assert "eth_sendRawTransaction" not in rpc.seen
        await set_key(product, world.host_key, "--replace")
        await all_paid(product, world, world.job_id, served)
        await product.wait_for(lambda status: "T02" not in {problem["code"] for problem in status["problems"]})


async def set_key(product: Product, key: str, *options: str) -> None:
    code, text = await product.command("key", "set", "--file", *options, input_text=f"{key}\n{PASSWORD}\n")
    assert code == 0, text
    code, text = await product.command("key", "unlock", input_text=PASSWORD + "\n")
    assert code == 0, text


async def test_doctor_finds_nothing_wrong_where_nothing_is(chain: EmbeddedChain, tmp_path: Path) -> None:
    world = await deploy_demo(chain, host_key=canary_key())
    product = Product(tmp_path / "data", host_environment(world))
    code, text = await product.command("doctor")
    assert code == 0, text
    names = [line.removeprefix("ok").strip().partition(":")[0] for line in text.splitlines()]
    assert names == ["key", "model", "RPC", "chain id", "contract", "gas money", "port", "disk"]
    async with running(tmp_path / "data", host_environment(world)) as product:
        served = await serve_tokens(product, world.job_id, 20)
        await all_paid(product, world, world.job_id, served)
        code, text = await product.command("doctor")
        assert code == 0, text
        assert f"the running app listens on {product.url}" in text
