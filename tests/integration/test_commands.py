"""The commands from outside, on one running product and on its ledger afterwards: what scripts may rely on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psutil
from host_environment import host_environment
from product_support import Product, ask_once, brief_request, running
from secrets_support import canary_key, planted

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import DemoWorld, deploy_demo

PROMPT = "Write a long and detailed story about a clockmaker who repairs the clock of a tower."
JOB_FIELDS = {
    "job_id": str, "session_id": str, "state": str, "generated": int, "claimed": int, "proven": int, "settled": int,
    "unclaimed": int, "earned": list, "updated_at": float,
}  # fmt: skip
TRANSACTION_FIELDS = {
    "tx_hash": str, "kind": str, "nonce": int, "state": str, "claims": list, "block": int, "gas_used": int,
    "fee_wei": int, "replaces": (str, type(None)), "error": (str, type(None)),
}  # fmt: skip


async def rows_of(product: Product, command: str) -> list[dict[str, Any]]:
    code, text = await product.command(command, "--json")
    assert code == 0, text
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def assert_fields(row: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, kind in fields.items():
        assert isinstance(row[name], kind), f"{name} is {row[name]!r}"


def environment(world: DemoWorld) -> dict[str, str]:
    return host_environment(world, CHECKPOINT_THRESHOLD="1000", SESSION_GRACE_SECONDS="600", LOG_LEVEL="INFO")


async def test_a_hosts_commands_from_chat_to_the_ledger_of_an_app_that_is_off(tmp_path: Path) -> None:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        world = await deploy_demo(chain, host_key=canary_key())
        job_id = str(world.job_id)
        async with running(tmp_path / "data", environment(world)) as product:
            await product.wait_for(lambda status: status["chain"]["submitting"] and status["chain"]["state"] == "ready")
            assert "HOST_PRIVATE_KEY is read from the environment; the OS keyring is safer" in product.log
            code, text = await product.command("chat", "--job", job_id, "--max-tokens", "150", planted(PROMPT))
            assert code == 0, text
            served = int(re.search(r"\[(\d+) tokens, (?:length|stop)\]", text).group(1))  # type: ignore[union-attr]
            assert_said_once_a_second(product.log, job_id, served)
            await forced_claim_is_said_and_paid(product, job_id, served)
            (row,) = await rows_of(product, "jobs")
            assert_fields(row, JOB_FIELDS)
            assert all(isinstance(part[name], str) for part in row["earned"] for name in ("token", "amount"))
            await a_dead_model_costs_its_own_request(product, world.job_id)
            await product.stop()
        await the_ledger_answers_for_an_app_that_is_off(product, world, served)


async def forced_claim_is_said_and_paid(product: Product, job_id: str, served: int) -> None:
    code, text = await product.command("checkpoint", job_id)
    assert code == 0, text
    assert f"job {job_id}: submitted {served} tokens, tx_hash 0x" in text
    await product.job(int(job_id), lambda job: job["settled"] == served)
    code, text = await product.command("checkpoint", job_id)
    assert (code, f"job {job_id}: not submitted: nothing unclaimed" in text) == (1, True), text
    (transaction,) = await rows_of(product, "transactions")
    assert_fields(transaction, TRANSACTION_FIELDS)
    assert transaction["claims"] == [{"job_id": job_id, "from": 0, "to": served}]


def assert_said_once_a_second(log: str, job_id: str, served: int) -> None:
    """At INFO a job's tokens are told at most once a second, not for each step."""
    lines = re.findall(rf"^(\S+ [\d:]+),\d+ INFO \S+: Generated \d+ tokens for job {job_id} ", log, re.MULTILINE)
    assert 1 <= len(lines) < served
    assert len(lines) <= 2 * len(set(lines)), "two of one second lie in different seconds of the job"


def workers_of(product: Product) -> list[psutil.Process]:
    assert product.process is not None
    children = psutil.Process(product.process.pid).children(recursive=True)
    return [child for child in children if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "fabstir_desktop.inference.worker" in process.cmdline()
    except psutil.Error:
        return False


async def a_dead_model_costs_its_own_request(product: Product, job_id: int) -> None:
    before = workers_of(product)
    assert before
    for worker in before:
        worker.kill()
    await product.wait_for(
        lambda status: (
            status["engine"]["state"] == "ready"
            and {one.pid for one in workers_of(product)} - {one.pid for one in before}
        )
    )
    answer = await ask_once(product.url, brief_request(job_id, "Say hello to the world, please.", 5))
    assert answer.error is None, answer.error
    assert answer.tokens_used > 0


async def the_ledger_answers_for_an_app_that_is_off(product: Product, world: DemoWorld, served: int) -> None:
    (row,) = await rows_of(product, "jobs")
    assert row["settled"] >= served
    assert [one["state"] for one in await rows_of(product, "transactions")][-1] in {"confirmed", "final"}
    code, text = await product.command("status")
    assert code == 0, text
    assert "Not running" in text
    assert f"tokens: generated {row['generated']}" in text
    code, text = await product.command("checkpoint")
    assert code == 2
    assert "no running app" in text
    code, text = await product.command("key", "show")
    assert (code, world.host_address in text) == (0, True), text


async def test_a_key_is_shown_by_its_address_and_removed_for_good(tmp_path: Path) -> None:
    product = Product(tmp_path / "data", {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"})
    key = canary_key()
    code, text = await product.command("key", "set", "--file", input_text=f"{key}\ncorrect horse battery staple\n")
    assert code == 0, text
    address = re.search(r"0x[0-9a-fA-F]{40}", text).group()  # type: ignore[union-attr]
    code, text = await product.command("key", "show")
    assert (code, address in text) == (0, True), text
    assert key.removeprefix("0x") not in text
    code, text = await product.command("key", "remove", input_text="yes\n")
    assert code == 0, text
    code, text = await product.command("key", "show")
    assert (code, address in text) == (2, False), text
