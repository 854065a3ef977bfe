"""Endings that come from within: a model that gives nothing any more, a certificate that is renewed while the host serves."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
import websockets
from engine_support import ScriptedEngine
from server_support import LIMIT_S, ask, inference, receive_until, send, serving, tokens_of, until
from test_server_http import tls_files

from fabstir_desktop.server import api_server
from fabstir_desktop.server.limits import Limits


@pytest.mark.parametrize("tokens_before", [0, 3])
async def test_a_model_that_gives_nothing_for_too_long_is_an_error_and_an_end(
    tmp_path: Path, tokens_before: int
) -> None:
    engine = ScriptedEngine()
    async with serving(tmp_path, engine, Limits(stall_s=0.3)) as world, world.connect() as socket:
        engine.hold = asyncio.Event()
        if tokens_before:
            engine.hold = HoldAfter(tokens_before)  # type: ignore[assignment]
        await send(socket, inference(job_id=1, session_id="s", id="r", max_tokens=50))
        frames = await receive_until(socket, "stream_end")
        assert [frame["type"] for frame in frames] == ["stream_chunk"] * tokens_before + ["error", "stream_end"]
        assert (frames[-2]["code"], frames[-2]["message"]) == ("INTERNAL", "the model gave no token for too long")
        assert (frames[-1]["reason"], frames[-1]["finish_reason"]) == ("error", "error")
        assert {frame["id"] for frame in frames} == {"r"}
        assert tokens_of(frames) == frames[-1]["tokens_used"] == world.accountant.totals.get(1, 0) == tokens_before
        await until(lambda: engine.status.active_streams == 0)
        engine.hold.set()
        assert (await ask(socket, inference(job_id=1, session_id="s")))[-1]["reason"] == "complete"


class HoldAfter:
    """An engine's `hold` that lets so many tokens through."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        self._left -= 1
        return self._is_set or self._left >= 0


async def certificate_shown(port: int, context: ssl.SSLContext) -> bytes:
    """What a new client is shown, as DER; its trust is checked."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return shown
    finally:
        writer.close()


async def test_a_renewed_certificate_is_shown_by_the_running_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that are connected stay; a half-written renewal changes nothing."""
    monkeypatch.setattr(api_server, "_CERTIFICATE_CHECK_TICKS", 1)
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    files = tls_files(tmp_path, authority)
    async with (
        serving(tmp_path, **files) as world,
        websockets.connect(f"wss://localhost:{world.port}/v1/ws", ssl=context, proxy=None) as before,
    ):
        first = await certificate_shown(world.port, context)
        whole = files["tls_certificate"].read_bytes()
        files["tls_certificate"].write_bytes(whole[:100])
        await until(lambda: "the old certificate stays in use" in caplog.text)
        assert await certificate_shown(world.port, context) == first
        tls_files(tmp_path, authority)
        async with asyncio.timeout(LIMIT_S):
            while await certificate_shown(world.port, context) == first:
                await asyncio.sleep(0.05)
        assert (await ask(before, inference(job_id=1)))[-1]["reason"] == "complete"
        async with websockets.connect(f"wss://localhost:{world.port}/v1/ws", ssl=context, proxy=None) as after:
            assert (await ask(after, inference(job_id=1, session_id="t")))[-1]["reason"] == "complete"
