"""Who is at the other end, and whether the request's Host and Origin are ones we answer to. Pure."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from websockets.datastructures import Headers

from fabstir_desktop.jobs.addresses import group_of, is_loopback, parse_address
from fabstir_desktop.server.session import Peer
from fabstir_desktop.settings import Settings

_FORWARDING_HEADERS: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
_LOOPBACK_NAMES: Final = frozenset({"localhost"})

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Access:
    """The allow-lists that follow from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(settings.api_origins)
        self._trusted = tuple(network for network in map(_network, settings.trusted_proxies) if network is not None)
        self._listens_on_loopback = settings.api_host == "localhost" or is_loopback(settings.api_host)
        own = socket.gethostname().lower()
        self._public_name = (urlsplit(settings.public_url or "").hostname or "").lower()
        self._local_names = _LOOPBACK_NAMES | {own, f"{own}.local"} - {self._public_name, ""}
        names = set(_LOOPBACK_NAMES) | {self._public_name}
        if not self._listens_on_loopback:
            names |= {own, f"{own}.local", settings.api_host.lower()}
        self._names = frozenset(names - {""})

    def peer(self, remote: str, headers: Headers) -> Peer:
        """The client. Forwarding headers are believed only if the connection comes from a trusted proxy.

        Whoever came through a proxy is not this machine's own program, also where the proxy is one and hides who it serves.
        Behind a proxy that is not trusted clients cannot be told apart: they share their limits, but never a conversation.
        """
        is_forwarded = any(name in headers for name in _FORWARDING_HEADERS)
        if is_forwarded and self._is_trusted(remote):
            address = self._forwarded_address(headers.get_all("X-Forwarded-For"))
            if address is not None:
                group = group_of(address)
                return Peer(address, group, is_loopback=False, is_local=False)
        loopback = is_loopback(remote)
        if is_forwarded or (loopback and not self._is_named_as_local(headers)):
            group = group_of(remote)
            shared = f"a proxy at {group}" if loopback else group
            return Peer(remote, shared, is_loopback=False, is_local=False, hidden_as=f"{shared} #{uuid4().hex}")
        is_local = loopback and "Origin" not in headers
        return Peer(remote, group_of(remote), is_loopback=loopback, is_local=is_local)

    def _is_trusted(self, address: str) -> bool:
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self._trusted)

    def _is_named_as_local(self, headers: Headers) -> bool:
        """Whether the Host is one that a program on this machine uses; our public name is one that a tunnel passes on."""
        name = _host_name(headers.get("Host", "")) or ""
        return name.lower() in self._local_names or is_loopback(name)

    def _forwarded_address(self, values: Iterable[str]) -> str | None:
        """The last address in the chain that is not a trusted proxy: everything before it the client may have made up."""
        chain = [part.strip() for value in values for part in value.split(",")]
        for part in reversed(chain):
            parsed = parse_address(_without_port(part))
            if parsed is None:
                return None
            if not self._is_trusted(str(parsed)):
                return str(parsed)
        return None

    def allows_host(self, host: str) -> bool:
        """Whether a Host header names us. Against DNS rebinding: a foreign name that points here is refused.

        An address literal cannot be rebound, so any is taken where we listen beyond loopback.
        """
        name = _host_name(host)
        if name is None:
            return False
        address = parse_address(name)
        if address is None:
            return name.lower() in self._names
        if address.is_unspecified:
            return False
        return address.is_loopback or not self._listens_on_loopback

    def allows_origin(self, origin: str | None) -> bool:
        """Programs send no Origin and pass; a web page's must be listed. A single `*` in the list allows every page."""
        return origin is None or origin in self._origins or "*" in self._origins


def _network(proxy: str) -> IpNetwork | None:
    """A trusted proxy: one address, or a network where one is written. None if it is neither."""
    address = parse_address(proxy)
    try:
        return ipaddress.ip_network(address if address is not None else proxy, strict=False)
    except ValueError:
        return None


def _without_port(text: str) -> str:
    """The address in `1.2.3.4:5678` or `[v6]:5678`, as some proxies write it; other texts as they are."""
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0] if text.count(":") == 1 else text


def _host_name(host: str) -> str | None:
    """The name in `name`, `name:port`, `[v6]` or `[v6]:port`; None if it is none of these."""
    if host.startswith("["):
        name, bracket, port = host.partition("]")
        if not bracket or ":" not in name or (port and not _is_port(port)):
            return None
        return name[1:]
    name, colon, port = host.partition(":")
    if not name or (colon and not _is_port(":" + port)):
        return None
    return name


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6
