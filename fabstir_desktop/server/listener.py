"""Opening the port: websockets' server with our limits instead of its defaults, and what a failure means in plain words."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.server.descriptors import room_for_sockets
from fabstir_desktop.server.door import Door
from fabstir_desktop.server.exposure import INSTANCE_HEADER
from fabstir_desktop.server.guard import Doorkeeper
from fabstir_desktop.server.quiet import quiet_logger
from fabstir_desktop.server.tls_connection import connection_factory
from fabstir_desktop.settings import Settings

log = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE = 1
"""In one turn of the loop. Out of descriptors, asyncio tries all of them in vain and sets a timer for each, and each timer tries
all of them again: with more than one that grows without end."""
_BACKLOG = 256
"""Connections that the system holds until they are accepted."""
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared with, not bound to

Handler = Callable[[ServerConnection], Awaitable[None]]


async def listen(
    settings: Settings,
    handler: Handler,
    door: Door,
    doorkeeper: Doorkeeper,
    *,
    tls: ssl.SSLContext | None,
    instance: str,
) -> Server:
    """Open the port of the settings; `instance` is shown in each handshake. Raises EnvironmentFault with what to do."""
    limits = doorkeeper.limits

    def introduce(_: ServerConnection, __: Request, response: Response) -> None:
        response.headers[INSTANCE_HEADER] = instance

    _make_room(doorkeeper, settings.max_connections)
    try:
        server = await serve(
            handler,
            settings.api_host,
            settings.api_port,
            process_request=door,
            process_response=introduce,
            create_connection=connection_factory(doorkeeper, tls),
            compression=None,
            server_header=None,
            open_timeout=limits.open_s,
            ping_interval=limits.ping_s,
            ping_timeout=limits.ping_s,
            close_timeout=limits.close_s,
            max_size=limits.message_bytes,
            max_queue=limits.receive_queue,
            write_limit=limits.write_buffer,
            logger=quiet_logger(),
            backlog=_ACCEPTED_AT_ONCE,
        )
    except (OSError, ValueError, OverflowError) as error:
        raise EnvironmentFault(_explain(error, settings)) from error
    _hold_more(server)
    return server


def _hold_more(server: Server) -> None:
    """Let the system hold connections that are not accepted yet; asyncio has one number for both."""
    for listening in server.sockets:
        with listening.dup() as own:
            own.listen(_BACKLOG)


def _make_room(doorkeeper: Doorkeeper, max_connections: int) -> None:
    room = room_for_sockets(doorkeeper.most_sockets)
    if room < doorkeeper.most_sockets:
        doorkeeper.fit(room)
        if doorkeeper.most_inside < max_connections:
            log.warning(
                "this system allows so few open files that %d clients can be connected, not %d (MAX_CONNECTIONS)",
                doorkeeper.most_inside,
                max_connections,
            )


def _explain(error: Exception, settings: Settings) -> str:
    where = f"{settings.api_host}:{settings.api_port}"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {settings.api_port} on {settings.api_host} is taken by another program: free it, or set API_PORT"
    if number in {errno.EACCES, errno.EPERM}:
        return f"this user may not listen on {where}: set API_PORT to 1024 or above"
    if number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{settings.api_host} is not an address of this machine: set API_HOST"
    return f"cannot listen on {where}: {getattr(error, 'strerror', None) or type(error).__name__}"


def url_of(host: str, server: Server, *, is_tls: bool) -> str:
    """The URL a program on this machine uses; the port is the one that was picked."""
    port = next(iter(server.sockets)).getsockname()[1]
    name = _UNSPECIFIED.get(host, host)
    shown = f"[{name}]" if ":" in name else name
    return f"{'wss' if is_tls else 'ws'}://{shown}:{port}/v1/ws"
