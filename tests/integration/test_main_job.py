"""The main job from outside: a WebSocket client's prompt, a real model, a real chain, the product as a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from chain_support import Anvil
from host_environment import host_environment
from product_support import Answer, Product, ask, ask_once, brief_request, get_json, running, tokens_of
from secrets_support import canary_key
from websockets.asyncio.client import connect

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.artifacts import DecodedEvent, load_artifact
from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.devnet.demo import DemoWorld, create_job, deploy_demo

LONG_PROMPT = (
    "Write a very long and detailed story about a lighthouse keeper, a storm and an old radio. Do not stop early."
)


@pytest.fixture
async def world() -> AsyncIterator[DemoWorld]:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        yield await deploy_demo(chain, host_key=canary_key(), jobs=3)


@pytest.fixture(params=["embedded", "anvil"])
async def either_world(
    request: pytest.FixtureRequest, start_anvil: Callable[..., Awaitable[Anvil]]
) -> AsyncIterator[DemoWorld]:
    """The same on a chain of each kind."""
    if request.param == "anvil":
        anvil = await start_anvil(block_time_s=0.3)
        yield await deploy_demo(anvil.rpc_url, host_key=canary_key(), bank_key=anvil.bank_key, jobs=3)
        return
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        yield await deploy_demo(chain, host_key=canary_key(), jobs=3)


async def tokens_paid(world: DemoWorld, job_id: int) -> int:
    """The contract's own total for the job."""
    async with ChainClient(world.rpc_url) as client:
        job = await client.read(load_artifact("ProofSystem"), world.contract, "jobs", job_id)
    return int(job[4])


async def events(world: DemoWorld, name: str) -> list[DecodedEvent]:
    async with ChainClient(world.rpc_url) as client:
        logs = await client.request("eth_getLogs", {"address": world.contract, "fromBlock": "0x0", "toBlock": "latest"})
    return load_artifact("ProofSystem").decode_events(logs, name)


async def balance(world: DemoWorld, address: str) -> int:
    async with ChainClient(world.rpc_url) as client:
        return await client.balance_wei(address)


async def long_answer(url: str, job_id: int, tokens: int, session_id: str = "user-session-001") -> Answer:
    """One socket, prompts until at least `tokens` tokens came; the frames of all answers together."""
    total = Answer()
    async with connect(url) as socket:
        while total.chunk_tokens < tokens:
            answer = await ask(socket, brief_request(job_id, LONG_PROMPT, tokens - total.chunk_tokens, session_id))
            assert answer.error is None, answer.error
            assert answer.tokens_used == answer.chunk_tokens
            total.frames += answer.frames
            total.chunk_tokens += answer.chunk_tokens
            total.text += answer.text
            total.end = answer.end
    return total


async def test_the_briefs_client_is_answered_counted_and_paid(either_world: DemoWorld, tmp_path: Path) -> None:
    world = either_world
    job_id = world.job_ids[0]
    before = await balance(world, world.treasury_address)
    async with running(tmp_path / "data", host_environment(world)) as product:
        answer = await long_answer(product.url, job_id, 420)
        kinds = [frame["type"] for frame in answer.frames]
        last_chunk = len(kinds) - 1 - kinds[::-1].index("stream_chunk")
        assert kinds[:last_chunk].count("checkpoint_confirmed") >= 2, "two are on chain while it streams"
        told = [frame for frame in answer.frames if frame["type"] == "checkpoint_confirmed"]
        assert {frame["job_id"] for frame in told} == {str(job_id)}
        row = await product.job(job_id, lambda job: job["settled"] == job["generated"])
        assert row["generated"] == answer.chunk_tokens
        assert await tokens_paid(world, job_id) == answer.chunk_tokens
        checkpoints = await events(world, "CheckpointSubmitted")
        assert len(checkpoints) >= 3, "two at the threshold and the rest after the client left"
        assert sum(int(event["tokensGenerated"]) for event in checkpoints) == answer.chunk_tokens
        price = world.price_per_token_wei
        paid = await events(world, "PaymentDistributed")
        assert sum(int(event["hostAmount"]) for event in paid) == answer.chunk_tokens * price * 9 // 10
        assert await balance(world, world.treasury_address) - before == answer.chunk_tokens * price // 10
        assert row["earned"] == [{"token": "ETH", "amount": str(answer.chunk_tokens * price * 9 // 10)}]
        await product.wait_for_log(
            f"Checkpoint confirmed for job {job_id} - payment distributed (90% host, 10% treasury)"
        )
        log = product.log
        assert f"Generated 1 tokens for job {job_id} (total: 57, last checkpoint: 0)" in log
        assert f"CHECKPOINT NEEDED for job {job_id} with 100 tokens!" in log
        for event in checkpoints:
            assert event["proofHash"]
        assert f"Checkpoint submitted successfully for job {job_id} - tx_hash: 0x" in log
        assert world.host_key.removeprefix("0x") not in log + product.output
        assert "lighthouse" not in log + product.output
        code, text = await product.command("transactions", "--json")
        rows = json.loads(text)
        assert code == 0
        assert {row["state"] for row in rows} <= {"confirmed", "final"}
        assert (
            sorted((claim["from"], claim["to"]) for row in rows for claim in row["claims"])[-1][1]
            == answer.chunk_tokens
        )
        await proofs_verify(product)


async def proofs_verify(product: Product) -> None:
    """Every stored proof record passes `verify` with its tokens replayed; a changed one does not."""
    records = sorted((product.data_dir / "proofs").glob("*.json"))
    records = [record for record in records if "transcript" not in record.name]
    assert len(records) >= 3
    for record in records:
        code, text = await product.command("verify", str(record), "--replay")
        assert code == 0, text
        assert "replay of answer" in text
    forged = product.data_dir / "forged.json"
    forged.write_bytes(records[0].read_bytes().replace(b'"to":"', b'"to":"9'))
    code, text = await product.command("verify", str(forged))
    assert code == 1, text


async def test_eight_clients_on_three_jobs_are_paid_to_the_token(world: DemoWorld, tmp_path: Path) -> None:
    async with running(tmp_path / "data", host_environment(world)) as product:
        jobs = [world.job_ids[number % 3] for number in range(8)]
        answers = await asyncio.gather(
            *(
                long_answer(product.url, job_id, 60 + 10 * number, f"session-{number}")
                for number, job_id in enumerate(jobs)
            )
        )
        for job_id in world.job_ids:
            expected = sum(answer.chunk_tokens for answer, job in zip(answers, jobs, strict=True) if job == job_id)
            row = await product.job(job_id, lambda job: job["settled"] == job["generated"] and not job["unclaimed"])
            assert row["generated"] == expected
            assert await tokens_paid(world, job_id) == expected


async def test_without_a_key_it_counts_and_logs_and_sends_nothing(world: DemoWorld, tmp_path: Path) -> None:
    settings = host_environment(world)
    del settings["HOST_PRIVATE_KEY"]
    job_id = world.job_ids[0]
    async with running(tmp_path / "data", settings) as product:
        answer = await long_answer(product.url, job_id, 120)
        await product.job(job_id, lambda job: job["generated"] == answer.chunk_tokens)
        log = product.log
        assert f"CHECKPOINT NEEDED for job {job_id} with 100 tokens!" in log
        assert "CHECKPOINT SUBMISSION REQUIRED:" in log
        for line in (
            f"- Job ID: {job_id}",
            "- Tokens to submit: 100",
            "- Session ID: user-session-001",
            f"- Contract: ProofSystem at {world.contract}",
        ):
            assert line in log
        assert await events(world, "CheckpointSubmitted") == []
        assert json.loads((await product.command("transactions", "--json"))[1]) == []
        status, health = await get_json(product.http_url + "/health")
        assert status == 200
        assert health["model_loaded"] is True
        code, text = await product.command("doctor")
        assert code == 1
        assert "key" in text.lower()


async def test_sigterm_ends_within_five_seconds_and_what_was_counted_is_claimed(
    world: DemoWorld, tmp_path: Path
) -> None:
    job_id = world.job_ids[0]
    async with running(tmp_path / "data", host_environment(world)) as product:
        maps = Path(f"/proc/{product.process.pid}/maps").read_text() if product.process else ""
        assert "libQt6" not in maps
        assert "PySide6" not in maps
        async with connect(product.url) as socket:
            await socket.send(json.dumps(brief_request(job_id, LONG_PROMPT, 400)))
            received = 0
            while received < 40:
                frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
                received += tokens_of(frame)
            started = time.monotonic()
            stopping = asyncio.create_task(product.stop())
            async for message in socket:
                received += tokens_of(json.loads(message))
            code, _ = await stopping
            assert code == 0, product.output[-3000:]
            assert time.monotonic() - started < 5.5
    code, text = await product.command("jobs", "--json")
    assert code == 0
    (row,) = json.loads(text)
    assert row["generated"] >= received
    async with running(tmp_path / "data", host_environment(world)) as again:
        final = await again.job(job_id, lambda job: job["settled"] == job["generated"])
    assert await tokens_paid(world, job_id) == final["generated"] == row["generated"]


async def test_the_demo_runs_once_from_prompt_to_payment(tmp_path: Path) -> None:
    product = Product(tmp_path / "unused", {})
    code, text = await product.command("--demo", "--once", "--data-dir", str(tmp_path / "demo"))
    assert code == 0, text
    assert text.count("tx_hash 0x") >= 2
    assert "earnings: " in text
    assert (tmp_path / "demo" / "ledger.db").exists()
    code, rows = await product.command("jobs", "--json", "--data-dir", str(tmp_path / "demo"))
    assert code == 0
    (row,) = json.loads(rows)
    assert row["settled"] == row["generated"] > 0


async def test_a_job_of_another_host_is_refused_before_a_token_is_made(world: DemoWorld, tmp_path: Path) -> None:
    foreign = await create_job(world, host=world.client_address)
    small = await create_job(world, tokens=30)
    async with running(tmp_path / "data", host_environment(world)) as product:
        await product.wait_for(lambda status: status["chain"]["submitting"])
        for job_id in (foreign, 10**70):
            refused = await ask_once(product.url, brief_request(job_id, "Hello", 20))
            assert refused.error is not None
            assert refused.error["code"] == "JOB_NOT_VALID"
            assert refused.chunk_tokens == 0
        first = await long_answer(product.url, small, 30)
        assert first.chunk_tokens == 30, "generation stops at the deposit"
        await product.job(small, lambda job: job["settled"] == 30)
        empty = await ask_once(product.url, brief_request(small, "Hello", 20))
        assert empty.error is not None
        assert empty.error["code"] == "DEPOSIT_EXHAUSTED"
        assert await tokens_paid(world, small) == 30
