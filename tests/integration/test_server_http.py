"""The GET endpoints on the same port, and who may come in."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets
from engine_support import ScriptedEngine
from prometheus_client.parser import text_string_to_metric_families
from server_support import (
    World,
    ask,
    http_get,
    inference,
    make_settings,
    raw_request,
    receive,
    serving,
    until,
)

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.events import ClaimChanged, ProblemCleared, ProblemRaised
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.jobs.status import ChainState, ServingState, WalletState, WalletStatus
from fabstir_desktop.server.exposure import exposure_of, try_public_url
from fabstir_desktop.server.tls import Certificate


@pytest.mark.parametrize("path", ["/health", "/v1/health", "//v1/health", "/health?x=1"])
async def test_a_host_that_serves_and_claims_is_healthy(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as world:
        status, headers, body = await http_get(world.port, path)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(body) == {
            "status": "healthy",
            "healthy": True,
            "issues": [],
            "model_loaded": True,
            "chain_id": 84532,
            "version": "0.1.0",
        }
        assert "server" not in headers


async def test_health_tells_the_truth(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:

        async def health() -> tuple[int, str, list[str]]:
            status, _, body = await http_get(world.port, "/health")
            answer = json.loads(body)
            assert answer["healthy"] == (status == 200)
            return status, answer["status"], answer["issues"]

        source = world.source
        usual = source.chain
        world.engine.set_state(EngineState.LOADING)
        assert await health() == (503, "unhealthy", ["the model is being loaded"])
        world.engine.set_state(EngineState.READY)
        source.chain = replace(usual, state=ChainState.WRONG_CHAIN)
        assert await health() == (503, "unhealthy", ["the host is on the wrong chain"])
        source.chain = replace(usual, state=ChainState.UNREACHABLE, detail="https://rpc.example/v2/SECRET")
        assert await health() == (200, "degraded", ["the chain cannot be reached: checkpoints wait"])
        source.chain = usual
        source.problems = (Problem("D01", Severity.ERROR, "/home/someone/ledger.db is full", ""),)
        assert await health() == (503, "unhealthy", ["the ledger cannot be written"])
        source.problems = ()
        source.wallet = WalletStatus(WalletState.NONE)
        assert (await health())[:2] == (200, "degraded")
        source.wallet = WalletStatus(WalletState.READY)
        source.state = ServingState.PAUSED
        assert await health() == (200, "degraded", ["the host has paused serving"])
        source.state = ServingState.DRAINING
        assert (await health())[:2] == (503, "unhealthy")
        source.state = ServingState.SERVING
        assert (await health())[:2] == (200, "healthy")


async def test_models_version_and_status_are_served_and_tell_no_secrets(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        status, _, body = await http_get(world.port, "/v1/models")
        models = json.loads(body)
        assert (status, models["chain_id"], models["models"][0]["id"]) == (200, 84532, "scripted")
        status, _, body = await http_get(world.port, "/v1/version")
        version = json.loads(body)
        assert (status, version["version"], version["chains"]) == (200, "0.1.0", [84532])
        status, _, body = await http_get(world.port, "/status")
        told = json.loads(body)
        assert (told["models_loaded"], told["active_sessions"], told["state"]) == (["scripted"], 0, "serving")
        for path in ("/v1/models", "/v1/version", "/status", "/metrics", "/health"):
            _, _, body = await http_get(world.port, path)
            assert str(tmp_path).encode() not in body
            assert b"/models/scripted.gguf" not in body
        world.engine.set_state(EngineState.NO_MODEL)
        assert json.loads((await http_get(world.port, "/v1/models"))[2])["models"] == []


async def test_metrics_are_prometheus_text_with_real_numbers(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        await ask(socket, inference(job_id=1, max_tokens=30))
        await ask(socket, inference(max_tokens=7))
        await socket.send("{")
        await receive(socket)
        for state in (ClaimState.PLANNED, ClaimState.BOUND, ClaimState.BOUND, ClaimState.CONFIRMED):
            world.feed.publish(ClaimChanged(1, 1, 30, state, "0xab", ""))
        _, headers, body = await http_get(world.port, "/metrics")
        assert headers["content-type"].startswith("text/plain")
        samples: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                samples[(sample.name, next(iter(sample.labels.values()), ""))] = sample.value
        assert samples[("fabstir_tokens_generated_total", "job")] == 30
        assert samples[("fabstir_tokens_generated_total", "free")] == 7
        assert samples[("fabstir_requests_total", "length")] == 2
        assert samples[("fabstir_checkpoints_total", "bound")] == 1
        assert samples[("fabstir_checkpoints_total", "confirmed")] == 1
        assert samples[("fabstir_malformed_frames_total", "")] == 1
        assert samples[("fabstir_connections", "")] == 1
        assert samples[("fabstir_loop_lag_seconds", "")] == 0.0015
        for name in ("active_streams", "queued_requests", "tokens_per_second"):
            assert (f"fabstir_{name}", "") in samples


@pytest.mark.parametrize(
    ("first_line", "status"),
    [
        ("GET /v1/nothing HTTP/1.1", 404),
        ("GET /health/ HTTP/1.1", 404),
        ("GET /../settings.toml HTTP/1.1", 404),
        ("GET /v1/ws HTTP/1.1", 426),
        ("GET / HTTP/1.1", 426),
        ("POST /health HTTP/1.1", 405),
        ("HEAD /health HTTP/1.1", 405),
        ("OPTIONS /v1/ws HTTP/1.1", 405),
        ("BREW /health HTTP/1.1", 405),
        ("GET /health HTTP/1.0", 200),
    ],
)
async def test_odd_requests_get_the_status_they_deserve(tmp_path: Path, first_line: str, status: int) -> None:
    async with serving(tmp_path) as world:
        answer = await raw_request(world.port, f"{first_line}\r\nHost: localhost\r\n\r\n".encode())
        assert answer.split(b" ")[1] == str(status).encode(), answer
        if status == 405:
            assert b"Allow: GET\r\n" in answer


@pytest.mark.parametrize("first_line", ["GET /health HTTP/2.0", "GET /health", "\x16\x03\x01", "GET  /health HTTP/1.1"])
async def test_what_is_no_http_is_closed_without_harm(tmp_path: Path, first_line: str) -> None:
    async with serving(tmp_path) as world:
        assert await raw_request(world.port, f"{first_line}\r\nHost: localhost\r\n\r\n".encode()) == b""
        assert (await http_get(world.port, "/health"))[0] == 200


async def test_a_post_with_a_body_is_told_that_only_get_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        body = b'{"prompt":"x"}'
        head = f"POST /v1/inference HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert (await raw_request(world.port, head + body)).startswith(b"HTTP/1.1 405 ")


async def test_a_request_with_too_many_headers_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        for count in (40, 1000):
            lines = "".join(f"X-{number}: y\r\n" for number in range(count))
            answer = await raw_request(world.port, f"GET /health HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 431 ")
        assert (await http_get(world.port, "/health"))[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8080", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:8080", 200),
        ("127.0.0.2", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.", 421),
        ("localhost.evil.example:8080", 421),
        ("0.0.0.0", 421),
        ("192.168.1.5", 421),
        ("[::]", 421),
        ("2130706433", 421),
        ("localhost:port", 421),
        ("user@localhost", 421),
        ("", 421),
        ("localhost, evil.example", 421),
    ],
)
async def test_only_our_own_names_are_answered(tmp_path: Path, host: str, status: int) -> None:
    async with serving(tmp_path) as world:
        for path in ("/health", "/v1/ws"):
            upgrade = ["Upgrade: websocket", "Connection: Upgrade"] if path == "/v1/ws" else []
            found = (await http_get(world.port, path, host, *upgrade))[0]
            assert found == (status if status == 421 else (200 if path == "/health" else 400))


async def test_a_missing_or_doubled_host_is_a_bad_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        for hosts in ("", "Host: localhost\r\nHost: evil.example\r\n"):
            answer = await raw_request(world.port, f"GET /health HTTP/1.1\r\n{hosts}\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 400 ")


async def test_the_public_name_and_addresses_are_answered_where_they_are_configured(tmp_path: Path) -> None:
    async with serving(tmp_path, api_host="0.0.0.0", public_url="wss://host.example.org/v1/ws") as world:
        assert world.url.startswith("ws://127.0.0.1:")
        for host, status in (("host.example.org", 200), ("203.0.113.9:8080", 200), ("other.example.org", 421)):
            assert (await http_get(world.port, "/health", host))[0] == status


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "file://",
        "https://sub.app.example",
        "http://app.example",
        "https://app.example:8443",
    ],
)
async def test_web_pages_that_are_not_listed_may_not_connect(tmp_path: Path, origin: str) -> None:
    async with serving(tmp_path, api_origins=("https://app.example",)) as world:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await world.connect(origin=origin)
        assert refused.value.response.status_code == 403
        assert (
            "access-control-allow-origin"
            not in (await http_get(world.port, "/health", "localhost", f"Origin: {origin}"))[1]
        )
        async with world.connect(origin="https://app.example") as socket:
            assert (await ask(socket, inference(job_id=1)))[-1]["reason"] == "complete"
        headers = (await http_get(world.port, "/health", "localhost", "Origin: https://app.example"))[1]
        assert headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("path", ["/v1/ws", "//v1/ws", "/", "/v1/ws?token=x"])
async def test_the_paths_that_sdks_use_are_all_open(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as world:
        url = f"ws://127.0.0.1:{world.port}{path}"
        async with websockets.connect(url, proxy=None) as socket:
            assert (await ask(socket, inference()))[-1]["reason"] == "complete"


async def test_other_paths_are_no_websocket(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        for path in ("/ws", "/v1/ws/", "/v1", "/health", "/v1/../v1/ws"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"ws://127.0.0.1:{world.port}{path}", proxy=None)
            assert refused.value.response.status_code == 404


async def free_answer(world: Any, **options: Any) -> str:
    async with world.connect(**options) as socket:
        frames = await ask(socket, inference(id="f"))
        return str(frames[-1].get("code", frames[-1].get("reason")))


async def test_free_prompts_are_for_programs_on_this_machine_only(tmp_path: Path) -> None:
    async with serving(tmp_path, api_origins=("https://app.example",)) as world:
        assert await free_answer(world) == "complete"
        assert await free_answer(world, origin="https://app.example") == "JOB_NOT_VALID"
        for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
            assert await free_answer(world, additional_headers={header: "127.0.0.1"}) == "JOB_NOT_VALID"
        assert world.accountant.log == []
        assert len(world.engine.requests) == 1


async def test_free_prompts_can_be_open_to_all_or_to_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, free_use="everyone", api_origins=("https://app.example",)) as world:
        assert await free_answer(world, origin="https://app.example") == "complete"
    async with serving(tmp_path, free_use="nobody") as world:
        assert await free_answer(world) == "JOB_NOT_VALID"
        assert world.engine.requests == []


async def test_forwarded_addresses_are_believed_from_a_trusted_proxy_only(tmp_path: Path) -> None:
    forged = {"X-Forwarded-For": "203.0.113.50, 198.51.100.7"}
    async with serving(tmp_path) as world:
        async with world.connect(additional_headers=forged) as socket:
            await ask(socket, inference(job_id=1))
        assert world.accountant.clients == ["127.0.0.1"]
    async with serving(tmp_path, trusted_proxies=("127.0.0.1", "198.51.100.7")) as world:
        async with world.connect(additional_headers=forged) as socket:
            await ask(socket, inference(job_id=1))
            [refusal] = await ask(socket, inference())
            assert refusal["code"] == "JOB_NOT_VALID"
        assert world.accountant.clients == ["203.0.113.50"]


async def test_behind_a_proxy_two_clients_cannot_use_one_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(tmp_path, trusted_proxies=("127.0.0.1",)) as world,
        world.connect(additional_headers={"X-Forwarded-For": "203.0.113.1"}) as owner,
        world.connect(additional_headers={"X-Forwarded-For": "203.0.113.2"}) as thief,
    ):
        await ask(owner, inference(job_id=5, session_id="s"))
        [refusal] = await ask(thief, inference(job_id=5, session_id="s"))
        assert refusal["code"] == "JOB_NOT_VALID"
        assert world.accountant.totals == {5: 5}
        assert "second client asked for job 5" in caplog.text


def tls_files(folder: Path, authority: trustme.CA, name: str = "localhost") -> dict[str, Path]:
    certificate = authority.issue_cert(name)
    key, chain = folder / "key.pem", folder / "cert.pem"
    certificate.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    return {"tls_certificate": chain, "tls_key": key}


async def test_with_a_certificate_the_server_speaks_wss(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with serving(tmp_path, **tls_files(tmp_path, authority)) as world:
        assert world.url.startswith("wss://127.0.0.1:")
        url = f"wss://localhost:{world.port}/v1/ws"
        async with websockets.connect(url, ssl=context, proxy=None) as socket:
            assert (await ask(socket, inference(job_id=1)))[-1]["reason"] == "complete"
        answer = await raw_request(world.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not answer.startswith(b"HTTP/1.1 200")


def test_a_renewed_certificate_is_read_again_and_a_broken_one_is_not_used(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = tls_files(tmp_path, authority)
    certificate = Certificate(files["tls_certificate"], files["tls_key"])
    assert certificate.reload_if_changed() is False
    before = files["tls_certificate"].read_bytes()
    tls_files(tmp_path, authority)
    assert certificate.reload_if_changed() is True
    files["tls_certificate"].write_text("not a certificate")
    with pytest.raises(EnvironmentFault, match="TLS_CERTIFICATE"):
        certificate.reload_if_changed()
    files["tls_certificate"].write_bytes(before)
    with pytest.raises(EnvironmentFault, match="cannot be used"):  # the old certificate does not fit the new key
        certificate.reload_if_changed()


async def test_half_a_tls_setting_is_said_plainly(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        other = World(make_settings(tmp_path, tls_key=tmp_path / "key.pem"), world.engine, None)
        with pytest.raises(EnvironmentFault, match="belong together"):
            await other.server.start()


async def test_the_ports_of_pages_are_freed(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        await asyncio.gather(*(http_get(world.port, "/health") for _ in range(100)))
        await until(lambda: len(world.server._doorkeeper.connections) == 0)


# --- what is exposed ---------------------------------------------------------------------------------------------------


def test_what_becomes_reachable_is_said_before_it_is(tmp_path: Path) -> None:
    closed = exposure_of(make_settings(tmp_path))
    assert (closed.is_public, closed.is_plaintext) == (False, False)
    everyone = exposure_of(make_settings(tmp_path, api_host="0.0.0.0", free_use="everyone", api_origins=("*",)))
    assert (everyone.is_public, everyone.is_plaintext) == (True, True)
    told = " ".join(everyone.sentences)
    for word in ("every network", "earn nothing", "not encrypted", "Every web page"):
        assert word in told
    safe = exposure_of(make_settings(tmp_path, api_host="192.0.2.7", tls_certificate=tmp_path / "c", tls_key=tmp_path))
    assert (safe.is_public, safe.is_plaintext) == (True, False)


async def test_listening_beyond_this_machine_without_tls_is_a_standing_warning(tmp_path: Path) -> None:
    world = World(make_settings(tmp_path, api_host="0.0.0.0"), ScriptedEngine(), None)
    raised: list[str] = []
    world.feed.subscribe(ProblemRaised, lambda event: raised.append(event.problem.code))
    await world.server.start()
    assert raised == ["X01"]
    await world.server.stop(1.0)


async def test_a_contested_job_is_shown_to_the_host_until_it_is_free(tmp_path: Path) -> None:
    async with serving(tmp_path, trusted_proxies=("127.0.0.1",), session_grace_seconds=0) as world:
        shown: list[tuple[str, str]] = []
        world.feed.subscribe(ProblemRaised, lambda event: shown.append((event.problem.code, event.problem.subject)))
        world.feed.subscribe(ProblemCleared, lambda event: shown.append(("cleared", event.subject)))
        async with (
            world.connect(additional_headers={"X-Forwarded-For": "203.0.113.1"}) as owner,
            world.connect(additional_headers={"X-Forwarded-For": "203.0.113.2"}) as thief,
        ):
            await ask(owner, inference(job_id=5, session_id="s"))
            for _ in range(3):
                await ask(thief, inference(job_id=5, session_id="s"))
            assert shown == [("X02", "5")]
        await until(lambda: shown == [("X02", "5"), ("cleared", "5")])


async def test_the_public_url_is_tried_and_must_lead_to_this_very_host(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, serving(tmp_path) as stranger:
        instance = world.server._instance
        assert await try_public_url(world.url, instance) is None
        other = await try_public_url(stranger.url, instance)
        assert other is not None
        assert "another program or host" in other.message
        nobody = await try_public_url("ws://127.0.0.1:1", instance)
        assert nobody is not None
        assert nobody.code == "H04"


async def test_a_public_url_that_leads_nowhere_is_shown_to_the_host(tmp_path: Path) -> None:
    world = World(make_settings(tmp_path, public_url="ws://127.0.0.1:1"), ScriptedEngine(), None)
    raised: list[str] = []
    world.feed.subscribe(ProblemRaised, lambda event: raised.append(event.problem.code))
    await world.server.start()
    await until(lambda: raised == ["H04"])
    await world.server.stop(1.0)
