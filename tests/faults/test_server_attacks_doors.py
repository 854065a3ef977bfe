"""Attacks on the port's doors: pages and names of others (32, 33), verbs (34), what is open at all (35), odd HTTP (37)."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attack_support import is_served
from server_support import World, ask, http_get, inference, raw_request, send, serving

import fabstir_desktop.server
from fabstir_desktop.settings import Settings


def public_world(tmp_path: Path) -> Any:
    """A server that listens on every address and answers to one public name and one page."""
    return serving(
        tmp_path, api_host="0.0.0.0", public_url="wss://host.example.org/v1/ws", api_origins=("https://app.example",)
    )


def foreign_origins() -> Iterator[str]:
    """Pages that look like the listed one: schemes, ports, subdomains, cases, endings, and what browsers send for none."""
    names = (
        "evil.example",
        "app.example.evil.example",
        "sub.app.example",
        "app.example.",
        "xapp.example",
        "app.exampl",
    )
    for scheme in ("https", "http", "ws", "wss", "chrome-extension"):
        yield from (f"{scheme}://{name}{port}" for name in names for port in ("", ":443", ":8443", ":0"))
    for own in ("app.example", "127.0.0.1", "localhost", "host.example.org", "[::1]", "0.0.0.0"):
        yield from (f"{scheme}://{own}{port}" for scheme in ("http", "ftp") for port in ("", ":80", ":8080"))
        yield f"https://{own}:8443"
    yield from (
        "null",
        "file://",
        "",
        "*",
        "https://",
        "https://app.example/",
        "https://app.example, https://x",
        "about:blank",
    )
    yield from (
        "https://user@app.example",
        "https://app.example:443",
        "HTTPS://EVIL.EXAMPLE",
        "data:text/html,x",
        "https:app.example",
    )
    yield from ("https://app.example%2eevil.example", "https://app.example#x", "https://app.example?x", "//app.example")


async def status_of(world: World, *headers: str, path: str = "/v1/ws") -> int:
    """What the door says to a whole handshake."""
    lines = [
        f"GET {path} HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers, "", "",
    ]  # fmt: skip
    answer = await raw_request(world.port, "\r\n".join(lines).encode(), read_all=False)
    return int(answer.split(b" ")[1])


async def test_32_two_hundred_pages_that_are_not_listed_may_not_connect_to_a_public_host(tmp_path: Path) -> None:
    origins = sorted(set(foreign_origins()))
    assert len(origins) >= 170
    async with public_world(tmp_path) as world:
        found = {origin: await status_of(world, "Host: localhost", f"Origin: {origin}") for origin in origins}
        assert {origin: status for origin, status in found.items() if status != 403} == {}
        assert await status_of(world, "Host: localhost", "Origin: https://app.example") == 101
        assert await status_of(world, "Host: localhost") == 101


def rebound_names() -> Iterator[str]:
    """Names that a page's owner could let point at this machine, and spellings that are no name at all."""
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "host.example.org.evil.example"):
        yield from (name, f"{name}:8080", f"{name}.", name.upper(), f"www.{name}", f"{name}:0", f"x@{name}")
    for own in ("localhost", "host.example.org"):
        yield from (
            f"{own}.",
            f"x.{own}",
            f"{own}x",
            f"x{own}",
            f"{own}:port",
            f"{own}:",
            f"{own}:99999999",
            f"u@{own}",
        )
        yield from (f"{own}, evil.example", f"{own} evil.example", f"{own}/", f"http://{own}", f"{own}%00", f"[{own}]")
    yield from (
        "0.0.0.0",
        "0.0.0.0:8080",
        "[::]",
        "[::]:8080",
        "::1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
    )
    yield from (
        "",
        ":",
        ":8080",
        "[",
        "]",
        "[]",
        "[::1",
        "::1]",
        "*",
        "%",
        "..",
        "127.0.0.1.",
        "127.0.0.1:x",
        "localhost:8\t0",
    )


@pytest.mark.parametrize("path", ["/health", "/v1/ws"])
async def test_33_a_public_host_answers_to_no_name_that_is_not_its_own(tmp_path: Path, path: str) -> None:
    names = sorted(set(rebound_names()))
    async with public_world(tmp_path) as world:
        found = {name: await status_of(world, f"Host: {name}", path=path) for name in names}
        assert {name: status for name, status in found.items() if status != 421} == {}
        for own in ("host.example.org", "HOST.example.org:443", "localhost", "203.0.113.9:8080", "[2001:db8::1]:8080"):
            assert (await http_get(world.port, "/health", own))[0] == 200


def modules_of_the_server() -> Iterator[ast.Module]:
    for path in Path(fabstir_desktop.server.__file__).parent.glob("*.py"):
        yield ast.parse(path.read_text(encoding="utf-8"))


def imported_modules() -> Iterator[str]:
    for module in modules_of_the_server():
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)


def test_34_the_port_cannot_reach_key_money_or_settings() -> None:
    forbidden = ("fabstir_desktop.wallet", "fabstir_desktop.ledger", "fabstir_desktop.settlement", "keyring", "web3")
    modules = list(imported_modules())
    assert not [name for name in modules if name.startswith(forbidden)]
    assert "fabstir_desktop.settings.save_setting" not in modules


def test_34_these_are_all_frames_the_port_knows() -> None:
    """Read from the decoder itself: a new kind of frame must be added here, on purpose."""
    reader = next(
        node for module in modules_of_the_server() for node in module.body if getattr(node, "name", "") == "_read"
    )
    kinds = {
        node.value
        for case in ast.walk(reader)
        if isinstance(case, ast.MatchValue)
        for node in ast.walk(case)
        if isinstance(node, ast.Constant)
    }
    assert kinds == {"inference", "prompt", "session_init", "stream_cancel", "session_end"}


VERBS = (
    "settings", "set_setting", "key", "key_set", "wallet", "withdraw", "checkpoint", "load_model", "load", "models", "pause",
    "resume", "shutdown", "stop", "quit", "exit", "restart", "update", "jobs", "transactions", "ledger", "logs", "doctor",
    "eval", "rpc", "debug", "admin", "config", "status", "subscribe",
)  # fmt: skip
PAGES = {"/health", "/v1/health", "/v1/models", "/v1/version", "/status", "/metrics"}


async def test_34_no_verb_of_the_control_socket_does_anything_here(tmp_path: Path) -> None:
    async with serving(tmp_path) as world, world.connect() as socket:
        for verb in VERBS:
            await send(socket, {"type": verb, "command": verb, "arguments": {}, "id": verb})
            for path in (f"/{verb}", f"/v1/{verb}", f"/api/{verb}", f"/{verb}/"):
                assert ((await http_get(world.port, path))[0] == 200) == (path in PAGES), path
        frames = await ask(socket, inference(job_id=1))  # nothing was answered before it
        assert {frame["type"] for frame in frames} == {"stream_chunk", "stream_end"}
        assert len(frames) == 6


def test_35_a_new_host_listens_on_its_own_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the running product listens on is looked at in test_product_health."""
    for name in [name for name in os.environ if name.lower() in Settings.model_fields]:
        monkeypatch.delenv(name)
    fresh = Settings(data_dir=tmp_path)
    assert (fresh.api_host, fresh.free_use, fresh.api_origins) == ("127.0.0.1", "loopback", ())


async def test_37_a_thousand_odd_requests_get_an_honest_status_or_none(tmp_path: Path) -> None:
    allowed = {b"200", b"400", b"403", b"404", b"405", b"414", b"421", b"426", b"431", b"505"}
    methods = ("GET", "POST", "get", "PRI", "A" * 300, "\x00", "GET\t")
    paths = ("/", "/health", "*", "http://evil/", "/" + "a" * 9000, "/%00", "//", "/v1/ws#x", "/é", "")
    versions = ("HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "", "HTTP/1.1 x")
    extras = (
        "",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "X: " + "y" * 9000 + "\r\n",
        "bad line\r\n",
    )
    async with serving(tmp_path) as world:
        for number in range(1000):
            method, path = methods[number % 7], paths[number // 7 % 10]
            version, extra = versions[number // 70 % 5], extras[number // 350 % 5]
            line = f"{method} {path} {version}\r\nHost: localhost\r\n{extra}\r\n".encode("utf-8", "replace")
            answer = await raw_request(world.port, line)
            assert answer == b"" or answer.split(b" ")[1] in allowed, (line[:100], answer[:100])
        assert await is_served(world)
