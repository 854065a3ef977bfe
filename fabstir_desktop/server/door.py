"""What is decided from a request's headers: a page, a refusal, or the way in to the WebSocket."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from fabstir_desktop.server.access import Access
from fabstir_desktop.server.guard import Doorkeeper, GuardedConnection
from fabstir_desktop.server.pages import Page, Pages
from fabstir_desktop.server.session import Peer

_SOCKET_PATHS: Final = frozenset({"/v1/ws", "/"})
_RETRY_AFTER_S: Final = "30"


class Door:
    """Called by websockets with every request, also with those that are no handshake (`process_request`)."""

    def __init__(self, access: Access, doorkeeper: Doorkeeper, pages: Pages, refusal: Callable[[], str | None]) -> None:
        """`refusal` says why no client is let in now, None if they are."""
        self._access = access
        self._doorkeeper = doorkeeper
        self._pages = pages
        self._refusal = refusal

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer, or None to go on with the handshake."""
        if not isinstance(connection, GuardedConnection):
            raise TypeError("connections are made by guard.guarded")
        refused = self._check_headers(connection, request)
        if refused is not None:
            return refused
        path = re.sub("/{2,}", "/", request.path.partition("?")[0])
        if "Upgrade" in request.headers:
            return self._let_in(connection, request, path)
        page = self._pages.page(path)
        if page is not None:
            return self._show(connection, request, page)
        if path in _SOCKET_PATHS:
            return None  # websockets answers 426 Upgrade Required
        return self._refuse(connection, HTTPStatus.NOT_FOUND, "there is nothing at this path")

    def _check_headers(self, connection: GuardedConnection, request: Request) -> Response | None:
        headers = request.headers
        if sum(1 for _ in headers.raw_items()) > self._doorkeeper.limits.header_lines:
            return self._refuse(connection, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers")
        hosts = headers.get_all("Host")
        if len(hosts) != 1:
            return self._refuse(connection, HTTPStatus.BAD_REQUEST, "one Host header is needed")
        if not self._access.allows_host(hosts[0]):
            return self._refuse(connection, HTTPStatus.MISDIRECTED_REQUEST, "this host does not answer to that name")
        if request.method != "GET":
            response = self._refuse(connection, HTTPStatus.METHOD_NOT_ALLOWED, "only GET is served")
            response.headers["Allow"] = "GET"
            return response
        return None

    def _let_in(self, connection: GuardedConnection, request: Request, path: str) -> Response | None:
        if path not in _SOCKET_PATHS:
            return self._refuse(connection, HTTPStatus.NOT_FOUND, "the WebSocket is at /v1/ws")
        origins = request.headers.get_all("Origin")
        if len(origins) > 1 or not self._access.allows_origin(origins[0] if origins else None):
            return self._refuse(connection, HTTPStatus.FORBIDDEN, "this web page may not connect")
        refusal = self._refusal()
        if refusal is not None:
            return self._busy(connection, refusal)
        peer = self._access.peer(_remote(connection), request.headers)
        if not self._doorkeeper.let_in(connection, peer.group, peer.is_loopback):
            return self._busy(connection, "too many connections")
        connection.peer = peer
        return None

    def _busy(self, connection: GuardedConnection, why: str) -> Response:
        response = self._refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, why)
        response.headers["Retry-After"] = _RETRY_AFTER_S
        return response

    def _refuse(self, connection: GuardedConnection, status: HTTPStatus, why: str) -> Response:
        self._doorkeeper.refuse(status.phrase.lower())
        return connection.respond(status, f"{why}\n")

    def _show(self, connection: GuardedConnection, request: Request, page: Page) -> Response:
        response = connection.respond(page.status, page.body.decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = page.content_type
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        origins = request.headers.get_all("Origin")
        if len(origins) == 1 and self._access.allows_origin(origins[0]):
            response.headers["Access-Control-Allow-Origin"] = origins[0]
            response.headers["Vary"] = "Origin"
        return response


def _remote(connection: GuardedConnection) -> str:
    name = connection.remote_address
    return str(name[0]) if isinstance(name, tuple) and name else ""


def peer_of(connection: GuardedConnection) -> Peer:
    """The peer that was let in. Raises RuntimeError for a connection that never passed the door."""
    if connection.peer is None:
        raise RuntimeError("a connection did not pass the door")
    return connection.peer
