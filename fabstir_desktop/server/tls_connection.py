"""A connection that begins TLS itself, so that it is counted from its first byte.

asyncio's servers tell a protocol of a TLS connection only after the handshake: sockets that never say a word would be seen by
no limit, and hold a file descriptor each for as long as a handshake may take.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

from websockets.asyncio.server import ServerConnection

from fabstir_desktop.server.guard import Doorkeeper, GuardedConnection


class TlsConnection(GuardedConnection):
    """A guarded connection whose bytes are encrypted. websockets hears of it once the handshake is done."""

    def __init__(self, context: ssl.SSLContext, doorkeeper: Doorkeeper, *arguments: Any, **options: Any) -> None:
        super().__init__(doorkeeper, *arguments, **options)
        self._context = context
        self._is_secure = False
        self._is_lost = False
        self._early = bytearray()
        """What came decrypted with the end of the handshake, before websockets was told of the connection."""
        self._securing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, then begin the handshake."""
        self.transport = cast("asyncio.Transport", transport)
        if self.count(transport):
            self.transport.pause_reading()
            self._securing = self.loop.create_task(self._secure(self.transport))
        else:
            self.cut_off("too many")

    async def _secure(self, transport: asyncio.Transport) -> None:
        limits = self._limits
        secured: asyncio.Transport | None = None
        try:
            secured = await self.loop.start_tls(
                transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=limits.open_s,
                ssl_shutdown_timeout=limits.close_s,
            )
        except OSError:  # no TLS, a broken one, too slow, or gone
            self._doorkeeper.refuse("tls handshake")
        if secured is None or self._is_lost:
            transport.abort()
            self._doorkeeper.leave(self)  # asyncio reports no loss of a connection that it never reported made
            return
        self._is_secure = True
        self.made(secured)
        if self._early:
            self.data_received(bytes(self._early))

    def data_received(self, data: bytes) -> None:
        """Keep what comes too early."""
        if self._is_secure:
            super().data_received(data)
        else:
            self._early += data

    def eof_received(self) -> None:
        """A peer that ends before it began is gone."""
        if self._is_secure:
            super().eof_received()
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Uncount it."""
        self._is_lost = True
        if self._is_secure:
            super().connection_lost(exc)
        else:
            self._doorkeeper.leave(self)


def connection_factory(doorkeeper: Doorkeeper, tls: ssl.SSLContext | None) -> type[ServerConnection]:
    """What to give to `serve` as `create_connection`; TLS begins in the connection, not in `serve`."""

    def make(*arguments: Any, **options: Any) -> GuardedConnection:
        if tls is None:
            return GuardedConnection(doorkeeper, *arguments, **options)
        return TlsConnection(tls, doorkeeper, *arguments, **options)

    return cast("type[ServerConnection]", make)
