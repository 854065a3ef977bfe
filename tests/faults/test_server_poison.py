"""A client whose prompts kill the model process, each a little different from the last: held off, and nobody else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_support import Script, ScriptedEngine, counting_script
from server_support import inference, receive, send, serving

from fabstir_desktop.jobs.generation import GenerationRequest
from fabstir_desktop.server.blame import FAULTS, FAULTS_WITHIN_S, HELD_S, Blame
from fabstir_desktop.server.frames import Prompt
from fabstir_desktop.server.session import Peer, PromptRequest, Session, SessionKey


def fragile(request: GenerationRequest) -> Script:
    """A worker that dies of prompts that begin with poison, before their first token; of late poison after two."""
    text = request.messages[-1].content
    if text.startswith("late poison"):
        return Script(counting_script(request).pieces, crash_after=2)
    return Script(crash_after=0) if text.startswith("poison") else counting_script(request)


async def told(socket: Any, text: str, **fields: Any) -> tuple[str, float]:
    """The error's code and when to come back, or the reason of an answer without one."""
    await send(socket, inference(text, **fields))
    error: dict[str, Any] | None = None
    while True:
        frame = await receive(socket)
        error = frame if frame["type"] == "error" else error
        if frame["type"] == "stream_end" or (error is not None and error["code"] != "WORKER_CRASHED"):
            return (frame["reason"], 0.0) if error is None else (error["code"], error.get("retry_after_s", 0.0))


ATTACKER, OTHER = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "198.51.100.1"}


@pytest.mark.parametrize("varies", ["job", "address"])
async def test_after_three_deaths_its_client_is_held_off_whatever_it_varies(tmp_path: Path, varies: str) -> None:
    async with serving(
        tmp_path, ScriptedEngine(fragile), trusted_proxies=("127.0.0.1",), session_grace_seconds=0
    ) as world:
        for number in range(FAULTS + 1):
            address = ATTACKER if varies == "job" else {"X-Forwarded-For": f"203.0.113.{number}"}
            async with world.connect(additional_headers=address) as socket:
                job_id = 100 + number if varies == "job" else 7
                code, retry_after_s = await told(socket, f"poison {number}", job_id=job_id)
                assert code == ("WORKER_CRASHED" if number < FAULTS else "RATE_LIMITED")
        assert 0 < retry_after_s <= HELD_S
        assert len(world.engine.requests) == FAULTS, "the worker was given one more"
        async with world.connect(additional_headers=OTHER) as other:
            assert await told(other, "hello", job_id=9) == ("complete", 0.0)
        async with world.connect() as own:
            assert await told(own, "hello") == ("complete", 0.0)


async def test_a_program_of_this_machine_is_held_off_by_its_job(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedEngine(fragile)) as world, world.connect() as socket:
        for number in range(FAULTS):
            assert (await told(socket, f"poison {number}", job_id=7))[0] == "WORKER_CRASHED"
        assert (await told(socket, "poison again", job_id=7))[0] == "RATE_LIMITED"
        assert (await told(socket, "hello", job_id=8))[0] == "complete"


async def test_who_was_already_answered_when_the_worker_died_is_no_suspect(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedEngine(fragile)) as world, world.connect() as socket:
        for number in range(FAULTS + 2):
            assert (await told(socket, f"late poison {number}", job_id=7))[0] == "WORKER_CRASHED"
        assert (await told(socket, "hello", job_id=7))[0] == "complete"


def request_of(job_id: int | None, address: str) -> PromptRequest:
    peer = Peer(address, address, is_loopback=False, is_local=False)
    prompt = Prompt("s", None, job_id, None, None, "x", 5, None, ())  # type: ignore[arg-type]
    return PromptRequest("key", 1, Session(SessionKey(address, "s"), True, 0.0), prompt, job_id, peer)


def test_deaths_far_apart_and_long_ago_are_forgiven() -> None:
    blame, mine = Blame(), request_of(5, "203.0.113.1")
    for number in range(10):
        blame.note(mine, number * FAULTS_WITHIN_S)
        assert blame.held_s(mine, number * FAULTS_WITHIN_S) == 0
    blame.note(mine, 9 * FAULTS_WITHIN_S + 1)
    blame.note(mine, 9 * FAULTS_WITHIN_S + 2)
    assert blame.held_s(mine, 9 * FAULTS_WITHIN_S + 2) == HELD_S
    assert blame.held_s(mine, 9 * FAULTS_WITHIN_S + 2 + HELD_S) == 0
    assert blame.held_s(request_of(6, "203.0.113.2"), 9 * FAULTS_WITHIN_S + 2) == 0


def test_of_endless_clients_only_the_latest_are_remembered() -> None:
    blame = Blame()
    for number in range(5000):
        blame.note(request_of(number, f"10.0.{number // 250}.{number % 250}"), float(number))
    assert len(blame._faults_s) <= 1024
