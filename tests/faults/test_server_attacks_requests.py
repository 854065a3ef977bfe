"""Attacks on the port with requests and words, numbered as in the threat list; the rest is in test_server_attacks."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from attack_support import UPGRADE, assert_log_is_clean, from_address, masked
from engine_support import Script, ScriptedEngine, counting_script
from server_process_support import server_process
from server_support import World, ask, inference, raw_request, receive, receive_until, send, serving, tokens_of, until

from fabstir_desktop.inference.text import StreamText
from fabstir_desktop.server.decoder import MAX_STOP_BYTES, MAX_STOPS
from fabstir_desktop.server.limits import Limits

OWNERS = {501: "203.0.113.1", 502: "203.0.113.2"}
"""Jobs and the addresses of those who pay for them."""
NO_RATES = Limits(
    prompts_per_minute=1e9, prompts_burst=1e9, job_prompts_per_minute=1e9, job_prompts_burst=1e9,
    frames_per_s=1e9, frames_burst=1e9,
)  # fmt: skip
"""So that nothing but the pin stands before a foreign job."""

# --- 11, 14: whose job, how often --------------------------------------------------------------------------------------


def hostile_frame(dice: random.Random) -> dict[str, Any]:
    """A prompt that names somebody's job in one of the spellings, with one of the session ids in use."""
    job_id = dice.choice(list(OWNERS))
    spelled: Any = dice.choice((job_id, str(job_id), f"{job_id}n"))
    frame: dict[str, Any] = {"type": dice.choice(("inference", "prompt")), "prompt": "Hi", "max_tokens": 3}
    frame[dice.choice(("job_id", "jobId"))] = spelled
    if dice.random() < 0.8:
        frame[dice.choice(("session_id", "sessionId"))] = dice.choice((f"session-{job_id}", "mine", str(job_id)))
    if dice.random() < 0.2:
        frame = {"type": frame.pop("type"), "request": frame}
    return frame


def hostile_frames(dice: random.Random) -> list[dict[str, Any]]:
    """A prompt, sometimes after a session was begun or ended in the owner's name."""
    job_id = dice.choice(list(OWNERS))
    session_id = f"session-{job_id}"
    before = dice.choice(
        (
            [],
            [],
            [{"type": "session_init", "session_id": session_id, "job_id": job_id}],
            [{"type": "session_end", "session_id": session_id}],
            [{"type": "stream_cancel", "session_id": session_id}],
        )
    )
    return [*before, hostile_frame(dice)]


async def attack(world: World, address: str, dice: random.Random, count: int) -> None:
    """Send hostile requests in batches and read that each is refused."""
    async with from_address(world, address) as socket:
        for _ in range(count // 50):
            batch = [frame for _ in range(50) for frame in hostile_frames(dice)]
            for frame in batch:
                await send(socket, frame)
            expected = sum(frame["type"] in {"inference", "prompt", "session_init"} for frame in batch)
            for _ in range(expected):
                assert (await receive(socket))["code"] == "JOB_NOT_VALID"


async def spend(world: World, job_id: int, stop: asyncio.Event) -> int:
    """The job's owner asks again and again; returns the tokens received."""
    tokens = 0
    async with from_address(world, OWNERS[job_id]) as socket:
        while not stop.is_set():
            frames = await ask(socket, inference(job_id=job_id, session_id=f"session-{job_id}", max_tokens=4))
            assert frames[-1]["reason"] == "complete"
            tokens += tokens_of(frames)
    return tokens


async def test_11_ten_thousand_requests_of_strangers_spend_nothing_of_two_clients_jobs(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.01))
    async with serving(tmp_path, engine, limits=NO_RATES, trusted_proxies=("127.0.0.1",)) as world:
        stop = asyncio.Event()
        owners = {job_id: asyncio.ensure_future(spend(world, job_id, stop)) for job_id in OWNERS}
        await until(lambda: all(world.accountant.totals.get(job_id) for job_id in OWNERS))
        await asyncio.gather(
            *(attack(world, f"198.51.100.{number}", random.Random(seed + number), 2500) for number in range(4))
        )
        stop.set()
        assert world.accountant.totals == {job_id: await owner for job_id, owner in owners.items()}
        assert {request.client for request in engine.requests} == set(OWNERS.values())


async def test_14_the_same_frame_a_hundred_times_over_ten_sockets_is_generated_once(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.hold = asyncio.Event()
    frame = inference(job_id=1, session_id="shared", id="x")
    async with serving(tmp_path, engine) as world:
        sockets = [await world.connect() for _ in range(10)]
        for socket in sockets:
            for _ in range(10):
                await send(socket, frame)
            await until(lambda: engine.status.active_streams == 1)
        for socket in sockets[1:]:
            for _ in range(10):
                assert (await receive(socket))["code"] == "INVALID_REQUEST"
        engine.hold.set()
        frames = await receive_until(sockets[0], "stream_end")
        assert tokens_of(frames) == frames[-1]["tokens_used"] == 5
        assert world.accountant.totals == {1: 5}
        assert len(engine.requests) == 1
        for socket in sockets:
            await socket.close()


async def test_14_prompts_of_one_session_run_one_at_a_time_whatever_socket_they_come_from(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request: Script(counting_script(request).pieces, delay_s=0.001))
    async with serving(tmp_path, engine) as world:
        sockets = [await world.connect() for _ in range(10)]
        most = 0
        for number, socket in enumerate(sockets):
            await send(socket, inference(job_id=1, session_id="shared", id=number))
        for socket in sockets:
            assert (await receive_until(socket, "stream_end"))[-1]["tokens_used"] == 5
            most = max(most, engine.status.active_streams)
        assert most <= 1
        assert world.accountant.totals == {1: 50}
        for socket in sockets:
            await socket.close()


# --- 22, 26 to 29: words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["ab", "a" * MAX_STOP_BYTES, "x", "é"])
def test_22_what_stop_strings_cost_does_not_grow_with_the_answer(answer: str) -> None:
    """Each token is searched with what is held back: that is shorter than a stop string after 4 tokens and after 4,000."""
    stops = ["a" * (MAX_STOP_BYTES - 1) + last for last in "bcde"[:MAX_STOPS]]
    text = StreamText(stops)
    longest = 0
    for _ in range(4000):
        text.push(answer.encode())
        longest = max(longest, len(text._held))
    assert longest < MAX_STOP_BYTES
    assert not text.stopped


FORGED = (
    "\nCHECKPOINT NEEDED for job 1 with 100 tokens!",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eabc\u2066",
    "\r\n",
    "\x9b31m",
    "\u2028x",
)


async def send_forgeries(server: Any) -> None:
    """Words for a log in every field a client has."""
    for evil in FORGED:
        async with server.connect() as socket:
            await send(socket, inference(job_id=1, session_id=evil))
            assert (await receive(socket))["code"] == "INVALID_REQUEST"
            await send(socket, {"type": evil})
            await send(socket, inference(job_id=1, model=evil, id=evil, stop=[evil]))
            await receive_until(socket, "stream_end")
        quoted = evil.encode().replace(b"\r", b"").replace(b"\n", b"")
        request = b"GET /" + quoted + b" HTTP/1.1\r\nHost: localhost\r\nOrigin: " + quoted + b"\r\n\r\n"
        await raw_request(server.port, request)


async def test_26_what_clients_send_cannot_forge_or_flood_the_log(tmp_path: Path) -> None:
    """The product's own log, in its file: one event is one line, begun by us. Ten thousand more: test_server_fuzz."""
    async with server_process(tmp_path) as server:
        await send_forgeries(server)
        resets = (UPGRADE, UPGRADE + masked(0x81, b"{"), UPGRADE[:50], b"\x1b[2J\r\n\r\n", UPGRADE + b"\xff" * 20)
        dice = random.Random(26)

        async def reset(count: int) -> None:
            for _ in range(count):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(dice.choice(resets))
                await writer.drain()
                writer.transport.abort()

        await asyncio.gather(*(reset(250) for _ in range(8)))
        await server.until_metric("fabstir_connections", 0)
    assert_log_is_clean(tmp_path / "server.log")


class OpenedFiles:
    """What the process opens while it is watched. Python cannot remove an audit hook: it is switched off instead."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._is_on = False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_on and event in {"open", "os.listdir", "os.scandir", "os.rename", "os.remove"}:
            self.names.append(str(arguments[0]))

    def __enter__(self) -> OpenedFiles:
        self.names.clear()
        self._is_on = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_on = False


@pytest.fixture(scope="module")
def opened() -> OpenedFiles:
    return OpenedFiles()


MODELS = (
    "../../etc/passwd", "/etc/passwd", "C:\\x", "C:\\x:stream", "\\\\host\\share", "a\0b", "x" * 5000, "ｔｉｎｙ", "%2e%2e%2f",
    "file:///etc/passwd", "~/.ssh/id_rsa", "..",
)  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
async def test_27_the_model_is_a_hint_and_never_a_path(tmp_path: Path, opened: OpenedFiles, model: str) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        with opened:
            frames = await ask(socket, inference(job_id=1, model=model))
            (tmp_path / "seen").touch()
        assert (frames[-1]["reason"], frames[-1]["model"]) == ("complete", "scripted")
    assert opened.names == [str(tmp_path / "seen")], "nothing but the file that shows that the watch works"


async def test_28_prompts_are_in_no_log_and_in_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "CANARY-7f3a"
    engine = ScriptedEngine(lambda _: Script(refuse=ZeroDivisionError(f"tokenise failed: {canary}")))  # type: ignore[arg-type]
    async with serving(tmp_path, engine) as world, world.connect() as socket_:
        await send(socket_, inference(canary, job_id=1))
        frames = await receive_until(socket_, "stream_end")
        await send(socket_, '{"type":"prompt","prompt":"' + canary + '",}')
        frames.append(await receive(socket_))
        assert canary not in json.dumps(frames)
        engine.script = counting_script
        await ask(socket_, inference(canary, job_id=1))
    ours = [record for record in caplog.records if record.name.startswith("fabstir_desktop")]
    assert not any(canary in record.getMessage() or canary in (record.exc_text or "") for record in ours)


async def test_29_no_two_clients_share_a_cache(tmp_path: Path) -> None:
    async with serving(tmp_path, trusted_proxies=("127.0.0.1",)) as world:
        for job_id, address in OWNERS.items():
            async with from_address(world, address) as socket:
                await ask(socket, inference(job_id=job_id, session_id="same"))
                await ask(socket, inference(job_id=job_id))
        keys = [request.cache_key for request in world.engine.requests]
        assert len(set(keys)) == 4
