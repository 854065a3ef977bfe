"""The certificate of a running server: renewed without a restart, and never asked for on a terminal."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from engine_support import ScriptedEngine
from server_support import World, ask, inference, make_settings, serving

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.server.limits import Limits


def write_pair(folder: Path, authority: trustme.CA, password: bytes | None = None) -> dict[str, Path]:
    issued = authority.issue_cert("localhost")
    key, chain = folder / "key.pem", folder / "cert.pem"
    pem = issued.private_key_pem.bytes()
    if password is not None:
        loaded = serialization.load_pem_private_key(pem, None)
        pem = loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )
    key.write_bytes(pem)
    issued.cert_chain_pems[0].write_to_path(str(chain))
    return {"tls_certificate": chain, "tls_key": key}


async def shown_certificate(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, ssl=context), 30)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown


async def test_a_running_server_shows_the_renewed_certificate_and_keeps_its_connections(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = write_pair(tmp_path, authority)
    async with serving(tmp_path, limits=Limits(certificate_check_s=0.1), **files) as world:
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with world.connect(ssl=trusting, server_hostname="localhost") as socket:
            before = await shown_certificate(world.port)
            files["tls_certificate"].write_text("half a renewal")
            await asyncio.sleep(0.6)
            assert await shown_certificate(world.port) == before
            write_pair(tmp_path, authority)
            os.utime(files["tls_key"], (1, 1))  # a clock that counts whole seconds must not hide it
            async with asyncio.timeout(60):
                while await shown_certificate(world.port) == before:
                    await asyncio.sleep(0.1)
            assert (await ask(socket, inference(job_id=1)))[-1]["reason"] == "complete"


async def test_an_encrypted_key_is_said_and_not_asked_about(tmp_path: Path) -> None:
    files = write_pair(tmp_path, trustme.CA(), password=b"canary")
    world = World(make_settings(tmp_path, **files), ScriptedEngine(), None)
    with pytest.raises(EnvironmentFault, match="TLS_KEY cannot be used"):
        await asyncio.wait_for(world.server.start(), 60)
    await world.server.stop()
