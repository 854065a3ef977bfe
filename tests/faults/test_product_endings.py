"""Every way an answer can end, against the real product: frames, `stream_end` and `jobs --json` tell the same number."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from host_environment import host_environment
from limits import scaled
from product_support import Answer, Product, ask_once, brief_request, running, tokens_of
from secrets_support import canary_key
from websockets.asyncio.client import ClientConnection, connect

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import deploy_demo

PROMPT = "Write an endless list of animals with a sentence about each of them."
MANY = 1_500
"""Tokens that no answer of these comes to before it is ended."""


def request_of(job_id: int, name: str, max_tokens: int = MANY, **more: Any) -> dict[str, Any]:
    made = brief_request(job_id, f"{name}: {PROMPT}", max_tokens, f"session-{name}")
    made["request"].update({"temperature": 0, **more})  # no luck: a sampled answer may end after a word
    return made


async def interrupted(
    product: Product, request: dict[str, Any], interrupt: Callable[[ClientConnection], Awaitable[None]]
) -> Answer:
    """An answer that is interrupted once after some tokens; read to its end, or until the socket closes."""
    answer, is_interrupted = Answer(), False
    async with asyncio.timeout(scaled(90)), connect(product.url) as socket:
        await socket.send(json.dumps(request))
        async for message in socket:
            frame = json.loads(message)
            answer.chunk_tokens += tokens_of(frame)
            if frame["type"] == "error":
                answer.error = frame
            if frame["type"] == "stream_end":
                answer.end = frame
                break
            if answer.chunk_tokens >= 5 and not is_interrupted:
                is_interrupted = True
                await interrupt(socket)
    return answer


async def end_in_every_way(product: Product, job_id: int) -> dict[str, Answer]:
    """By the name of the ending, one answer after the other, all of one job."""

    async def cancel(socket: ClientConnection) -> None:
        await socket.send(json.dumps({"type": "stream_cancel", "session_id": "session-cancel"}))

    async def kill_worker(_: ClientConnection) -> None:
        status = await product.wait_for(lambda answer: answer["engine"]["worker_pid"] is not None)
        os.kill(status["engine"]["worker_pid"], signal.SIGKILL)

    answers = {
        "length": await ask_once(product.url, request_of(job_id, "length", 9)),
        "stop": await ask_once(product.url, request_of(job_id, "stop", stop=["e"])),
        "cancelled": await interrupted(product, request_of(job_id, "cancel"), cancel),
        "error": await interrupted(product, request_of(job_id, "crash"), kill_worker),
    }
    await product.wait_for(lambda answer: answer["engine"]["state"] == "ready", 60)
    answers["after"] = await ask_once(product.url, request_of(job_id, "after the crash", 4))
    return answers


async def test_however_an_answer_ends_frames_and_ledger_tell_the_same_number(tmp_path: Path) -> None:
    async with EmbeddedChain.start(block_time_s=0.2) as chain:
        world = await deploy_demo(chain, host_key=canary_key(), jobs=2, tokens=10**6)
        job_id, other_id = world.job_ids
        async with running(tmp_path / "data", host_environment(world, LOG_LEVEL="INFO")) as product:
            answers = await end_in_every_way(product, job_id)
            for name, answer in answers.items():
                assert answer.end is not None, name
                assert answer.chunk_tokens == answer.tokens_used, name
            ends = {name: answer.end["finish_reason"] for name, answer in answers.items() if answer.end}
            assert ends == {**{name: name for name in ("length", "stop", "cancelled", "error")}, "after": "length"}
            assert (answers["length"].tokens_used, answers["after"].tokens_used) == (9, 4)
            assert 5 <= answers["cancelled"].tokens_used < MANY
            assert answers["error"].error is not None
            assert answers["error"].error["code"] == "WORKER_CRASHED"

            closed = await interrupted(product, request_of(other_id, "closed"), lambda socket: socket.close())
            assert closed.end is None
            await product.wait_for(lambda answer: answer["server"]["active_requests"] == 0)
            rows = await product.jobs()
            assert rows[str(job_id)]["generated"] == sum(answer.tokens_used for answer in answers.values())
            left = rows[str(other_id)]["generated"]
            assert closed.chunk_tokens <= left < MANY, "what was made before the socket closed, and no more"
            await product.job(job_id, lambda job: job["settled"] == job["generated"])
            row = await product.job(other_id, lambda job: job["settled"] == job["generated"])
            assert row["generated"] == left
