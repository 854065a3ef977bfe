"""The model process dies in every way it can; the app stays up, says so, and goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_support import Answer, ask, collect, ready_engine, small_model_path, wait_until
from limits import scaled

from fabstir_desktop.errors import InvalidGenerationRequest, ModelFileError, ModelUnavailable, WorkerCrashed
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.client import EngineClient
from fabstir_desktop.inference.model_files import HashCache
from fabstir_desktop.inference.options import EngineLimits, EngineOptions
from fabstir_desktop.inference.process import worker_environment
from fabstir_desktop.jobs.events import EngineChanged
from fabstir_desktop.jobs.generation import EngineState

QUICK = EngineLimits(restart_delays_s=(0.0, 0.01, 0.01, 0.01, 0.01))


@pytest.fixture
async def engine() -> AsyncIterator[EngineClient]:
    engine = await ready_engine(parallel=4, limits=QUICK)
    yield engine
    await engine.stop()


def worker_pid(engine: EngineClient) -> int:
    pid = engine.status.worker_pid
    assert pid is not None
    return pid


async def kill_while_answering(engine: EngineClient, signal_number: int, prompt: str = "Write a long story.") -> Answer:
    """Kill the worker in the middle of an answer; returns what had come."""
    answer = Answer()
    task = asyncio.create_task(collect(engine, ask(prompt, 500), answer))
    await wait_until(lambda: len(answer.token_ids) >= 3)
    os.kill(worker_pid(engine), signal_number)
    with pytest.raises(WorkerCrashed):
        await task
    return answer


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
async def test_a_death_ends_its_requests_and_the_next_one_works(engine: EngineClient, signal_number: int) -> None:
    answer = await kill_while_answering(engine, signal_number)
    assert len(answer.token_ids) >= 3
    assert engine.status.state is EngineState.RESTARTING
    assert signal.Signals(signal_number).name in engine.status.detail
    after = await collect(engine, ask("Say hello.", 3))
    assert len(after.token_ids) == 3
    assert engine.status.restarts == 1


async def test_a_death_is_seen_within_a_tenth_of_a_second(engine: EngineClient) -> None:
    answer = Answer()
    task = asyncio.create_task(collect(engine, ask("Write a long story.", 500), answer))
    await wait_until(lambda: len(answer.token_ids) >= 3)
    killed_at = time.perf_counter()
    os.kill(worker_pid(engine), signal.SIGKILL)
    with pytest.raises(WorkerCrashed):
        await task
    assert time.perf_counter() - killed_at < scaled(0.1)


async def test_requests_in_the_line_outlive_the_worker(engine: EngineClient) -> None:
    answers = [Answer() for _ in range(4)]
    running = [asyncio.create_task(collect(engine, ask(f"Long story {n}.", 500), answers[n])) for n in range(4)]
    await wait_until(lambda: all(answer.token_ids for answer in answers))
    waiting = asyncio.create_task(collect(engine, ask("Say hello.", 3)))
    await wait_until(lambda: engine.status.queued_requests == 1)
    os.kill(worker_pid(engine), signal.SIGKILL)
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [type(result) for result in results] == [WorkerCrashed] * 4
    assert len((await waiting).token_ids) == 3


async def test_a_prompt_that_was_running_at_a_fault_is_not_tried_again(engine: EngineClient) -> None:
    await kill_while_answering(engine, signal.SIGSEGV, "The poison.")
    with pytest.raises(InvalidGenerationRequest, match="not tried again"):
        await collect(engine, ask("The poison.", 3))
    assert len((await collect(engine, ask("Another.", 3))).token_ids) == 3


async def test_a_prompt_that_was_running_at_a_kill_from_outside_is_not_tried_again_either(engine: EngineClient) -> None:
    """The system that ran out of memory may have been brought there by the prompt."""
    await kill_while_answering(engine, signal.SIGKILL, "The unlucky one.")
    with pytest.raises(InvalidGenerationRequest, match="not tried again"):
        await collect(engine, ask("The unlucky one.", 3))


async def test_the_same_prompt_that_waited_at_a_death_is_not_tried_either() -> None:
    engine = await ready_engine(parallel=1, limits=QUICK)
    try:
        answer = Answer()
        first = asyncio.create_task(collect(engine, ask("The poison.", 500), answer))
        await wait_until(lambda: len(answer.token_ids) >= 3)
        second = asyncio.create_task(collect(engine, ask("The poison.", 3)))
        other = asyncio.create_task(collect(engine, ask("Say hello.", 3)))
        await wait_until(lambda: engine.status.queued_requests == 2)
        os.kill(worker_pid(engine), signal.SIGKILL)
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [WorkerCrashed, InvalidGenerationRequest]
        assert len((await other).token_ids) == 3
    finally:
        await engine.stop()


async def test_a_quarantined_prompt_stays_so_after_a_restart_of_the_app(tmp_path: Path) -> None:
    store = tmp_path / "prompt-quarantine.json"
    engine = await ready_engine(parallel=1, limits=QUICK, quarantine_store=store)
    await kill_while_answering(engine, signal.SIGSEGV, "The poison.")
    await engine.stop()
    engine = await ready_engine(parallel=1, limits=QUICK, quarantine_store=store)
    try:
        with pytest.raises(InvalidGenerationRequest, match="not tried again"):
            await collect(engine, ask("The poison.", 3))
        await engine.load(str(small_model_path()))
        assert len((await collect(engine, ask("The poison.", 3))).token_ids) == 3
    finally:
        await engine.stop()


async def test_a_prompt_that_the_hosts_own_stop_ended_is_not_quarantined(engine: EngineClient) -> None:
    answer = Answer()
    task = asyncio.create_task(collect(engine, ask("Write a long story.", 500), answer))
    await wait_until(lambda: len(answer.token_ids) >= 3)
    await engine.stop()
    with pytest.raises(ModelUnavailable):
        await task
    await engine.start()
    assert len((await collect(engine, ask("Write a long story.", 3))).token_ids) == 3


async def test_after_five_deaths_the_engine_gives_up_and_says_why_until_it_is_started_again(
    engine: EngineClient,
) -> None:
    for death in range(5):
        await wait_until(lambda: engine.status.state is EngineState.READY, 30, "the restart")
        os.kill(worker_pid(engine), signal.SIGABRT)
        await wait_until(lambda count=death: engine.status.restarts == count + 1, 10, "the death")  # type: ignore[misc]
    await wait_until(lambda: engine.status.state is EngineState.FAILED, 10, "the end")
    assert "5 crashes" in engine.status.detail
    assert "SIGABRT" in engine.status.detail
    with pytest.raises(ModelUnavailable):
        await collect(engine, ask("hello", 1))
    await engine.start()
    assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3


async def test_an_engine_that_failed_comes_back_by_itself() -> None:
    engine = await ready_engine(parallel=1, limits=EngineLimits(restart_delays_s=(0.0, 0.05), deaths_until_failed=2))
    try:
        for count in (1, 2):
            await wait_until(lambda: engine.status.state is EngineState.READY, 30, "the restart")
            os.kill(worker_pid(engine), signal.SIGABRT)
            await wait_until(lambda deaths=count: engine.status.restarts == deaths, 10, "the death")  # type: ignore[misc]
        await wait_until(lambda: engine.status.state is EngineState.FAILED, 10, "the failure")
        assert "2 crashes" in engine.status.detail
        await wait_until(lambda: engine.status.state is EngineState.READY, 30, "the next try")
        assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3
    finally:
        await engine.stop()


async def test_a_worker_that_hangs_is_ended_by_the_watchdog_with_its_reason() -> None:
    # Ticks are seconds to the watchdog. They come quickly while the worker is stopped, and at their own pace around it: so
    # no healthy worker is ended, however busy the machine is.
    engine = await ready_engine(parallel=2, limits=EngineLimits(restart_delays_s=(0.0,)))
    details: list[str] = []
    engine._feed.subscribe(EngineChanged, lambda event: details.append(event.status.detail))
    try:
        answer = Answer()
        task = asyncio.create_task(collect(engine, ask("Write a long story.", 500), answer))
        await wait_until(lambda: len(answer.token_ids) >= 3)
        pid = worker_pid(engine)
        os.kill(pid, signal.SIGSTOP)
        while not task.done():
            if engine.status.worker_pid == pid:
                engine._tick_handle.cancel()  # type: ignore[union-attr]
                engine._tick()
            await asyncio.sleep(0.01)
        with pytest.raises(WorkerCrashed):
            await task
        assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3
        assert any("no token for 30 s" in detail for detail in details)
    finally:
        await engine.stop()


async def test_stop_ends_what_runs_and_the_worker_is_gone(engine: EngineClient) -> None:
    answer = Answer()
    task = asyncio.create_task(collect(engine, ask("Write a long story.", 500), answer))
    await wait_until(lambda: len(answer.token_ids) >= 3)
    pid = worker_pid(engine)
    started = time.perf_counter()
    await engine.stop()
    assert time.perf_counter() - started < 3
    with pytest.raises(ModelUnavailable):
        await task
    assert not psutil.pid_exists(pid)
    assert engine.status.state is EngineState.STOPPED
    await engine.stop()


async def test_a_stopped_worker_cannot_delay_the_stop(engine: EngineClient) -> None:
    pid = worker_pid(engine)
    os.kill(pid, signal.SIGSTOP)
    await engine.stop(timeout_s=0.2)
    assert not psutil.pid_exists(pid)


async def test_a_damaged_file_is_said_and_the_old_model_serves_on(engine: EngineClient, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(small_model_path().read_bytes()[:50_000_000])
    pid = worker_pid(engine)
    with pytest.raises(ModelFileError, match="cut off"):
        await engine.load(str(damaged))
    assert worker_pid(engine) == pid
    assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3


async def test_switching_the_model_waits_for_running_answers(engine: EngineClient, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.symlink_to(small_model_path())
    answer = Answer()
    running = asyncio.create_task(collect(engine, ask("Write a long story.", 60), answer))
    await wait_until(lambda: len(answer.token_ids) >= 3)
    pid = worker_pid(engine)
    switching = asyncio.create_task(engine.load(str(other)))
    late = asyncio.create_task(collect(engine, ask("Say hello.", 3)))
    assert (await running).finish_reason in ("length", "stop")
    await switching
    assert engine.status.model is not None
    assert engine.status.model.path == str(other)
    assert worker_pid(engine) != pid
    assert engine.status.restarts == 0
    assert len((await late).token_ids) == 3


async def test_a_switch_to_a_file_that_llama_cpp_refuses_goes_back_to_the_model_before(
    engine: EngineClient, tmp_path: Path
) -> None:
    refused = tmp_path / "refused.gguf"
    raw = small_model_path().read_bytes()
    refused.write_bytes(raw.replace(b"blk.0.attn_q.weight", b"blk.0.attn_z.weight", 1))
    with pytest.raises(ModelFileError, match="is loaded again"):
        await engine.load(str(refused))
    await wait_until(lambda: engine.status.state is EngineState.READY, 30, "the model before")
    assert engine.status.model is not None
    assert engine.status.model.path == str(small_model_path())
    assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3


async def test_a_stop_while_a_model_is_being_switched_ends_the_switch(engine: EngineClient, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.symlink_to(small_model_path())
    switching = asyncio.create_task(engine.load(str(other)))
    await wait_until(lambda: engine.status.state is EngineState.LOADING, 30, "the switch")
    await engine.stop()
    with pytest.raises(ModelUnavailable):
        await asyncio.wait_for(switching, scaled(10))
    assert engine.status.state is EngineState.STOPPED


async def test_a_file_that_is_hashed_for_longer_than_a_load_may_stand_still_kills_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = threading.Event()
    compute = HashCache.sha256

    def slow(cache: HashCache, *arguments: Any) -> str:
        may_end.wait(scaled(60))
        return compute(cache, *arguments)

    monkeypatch.setattr(HashCache, "sha256", slow)
    engine = EngineClient(EngineOptions(small_model_path(), context_window=512, parallel=1), Feed())
    await engine.start()
    try:
        await wait_until(lambda: engine._supervisor._is_hashing, 60, "the loaded worker")
        for _ in range(1000):  # as many seconds as ticks, for the watchdog
            engine._watch()
        may_end.set()
        await wait_until(lambda: engine.status.state is EngineState.READY, 30, "the end of the hashing")
        assert engine.status.restarts == 0
    finally:
        may_end.set()
        await engine.stop()


async def test_without_a_model_prompts_are_refused_until_one_is_loaded() -> None:
    engine = EngineClient(EngineOptions(None, context_window=512, parallel=1), Feed())
    await engine.start()
    try:
        assert engine.status.state is EngineState.NO_MODEL
        with pytest.raises(ModelUnavailable):
            await collect(engine, ask("hello", 1))
        await engine.load(str(small_model_path()))
        assert engine.status.state is EngineState.READY
        assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3
    finally:
        await engine.stop()


async def test_a_missing_file_ends_in_a_state_that_names_it(tmp_path: Path) -> None:
    engine = EngineClient(EngineOptions(tmp_path / "gone.gguf"), Feed())
    await engine.start()
    try:
        await wait_until(lambda: engine.status.state is EngineState.FAILED)
        assert "gone.gguf does not exist" in engine.status.detail
        with pytest.raises(ModelUnavailable, match=r"gone\.gguf"):
            await collect(engine, ask("hello", 1))
    finally:
        await engine.stop()


async def test_the_worker_has_no_secret_no_socket_and_none_of_the_other_rooms(
    engine: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = psutil.Process(worker_pid(engine))
    assert process.net_connections() == []
    loaded = {Path(region.path).name for region in process.memory_maps()}
    assert any("llama" in name for name in loaded)
    assert not any("QtCore" in name or "secp256k1" in name for name in loaded)
    environment = worker_environment(
        {"HOST_PRIVATE_KEY": "0xabc", "RPC_URL": "https://x/key", "PATH": "/bin", "LC_ALL": "C"}
    )
    assert set(environment) == {"PATH", "LC_ALL", "PYTHONPATH"}
    assert set(process.environ()) <= set(worker_environment(dict(os.environ)))


async def test_the_key_is_not_in_the_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_PRIVATE_KEY", "0x" + "c0ffee" * 10 + "beef")
    engine = await ready_engine(parallel=1)
    try:
        environ = Path(f"/proc/{worker_pid(engine)}/environ").read_bytes()
        command = Path(f"/proc/{worker_pid(engine)}/cmdline").read_bytes()
        assert b"c0ffee" not in environ + command
        assert b"HOST_PRIVATE_KEY" not in environ
    finally:
        await engine.stop()


PARENT = """
import asyncio, sys
sys.path[:0] = {paths!r}
from engine_support import ready_engine
async def main():
    engine = await ready_engine(parallel=1)
    print(engine.status.worker_pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_the_worker_is_gone_two_seconds_after_its_parent_was_killed() -> None:
    tests = Path(__file__).parent.parent
    code = PARENT.format(paths=[str(tests), str(tests.parent)])
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 60))
    assert psutil.pid_exists(pid)
    parent.kill()
    await parent.wait()
    await wait_until(lambda: not psutil.pid_exists(pid), 2, "the worker's end")


def test_importing_the_client_does_not_import_llama_cpp() -> None:
    code = (
        "import sys, fabstir_desktop.inference.client; sys.exit('llama_cpp' in sys.modules or 'jinja2' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
