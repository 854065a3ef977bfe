"""A server's certificate for tests, and clients with and without a TLS library between them and their bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trustme
import websockets
from attack_support import UPGRADE
from limits import scaled
from server_support import World, serving


def certificate(folder: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """The settings that name a new certificate for this machine, and a context that trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = {"tls_certificate": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
    issued.private_key_pem.write_to_path(files["tls_key"])
    issued.cert_chain_pems[0].write_to_path(files["tls_certificate"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return files, context


@contextlib.asynccontextmanager
async def world_of(tmp_path: Path, scheme: str, **options: Any) -> AsyncIterator[tuple[World, Any]]:
    """A server on ws or wss, and how to connect to it as an honest client."""
    files: dict[str, Any] = {}
    context: ssl.SSLContext | None = None
    if scheme == "wss":
        files, context = certificate(tmp_path)
    async with serving(tmp_path, **files, **options) as world:
        url = f"{scheme}://localhost:{world.port}/v1/ws"
        yield world, lambda **more: websockets.connect(url, ssl=context, proxy=None, **more)


async def secure_socket(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """TLS is spoken, HTTP not yet."""
    opening = asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    return await asyncio.wait_for(opening, scaled(30))


async def secure_websocket(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket without a library, inside TLS: the handshakes are done, the rest is bytes."""
    reader, writer = await secure_socket(port, context)
    writer.write(UPGRADE)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), scaled(30))
    assert head.startswith(b"HTTP/1.1 101 ")
    return reader, writer


def client_hello() -> bytes:
    """How a TLS handshake begins."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()
