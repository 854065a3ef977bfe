"""Who is at the other end, and whether the request's Host and Origin are ones we answer to. Pure."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from fabstir_desktop.server.session import Peer
from fabstir_desktop.settings import Settings

_FORWARDING_HEADERS: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
_LOOPBACK_NAMES: Final = frozenset({"localhost"})

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> IpAddress | None:
    """The IP address in a text (brackets and zone allowed, IPv4 in IPv6 unpacked), None if it is not one."""
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]").split("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def group_of(address: str) -> str:
    """What limits count by: an IPv4 address as it is, an IPv6 address by its /64, which is one customer's."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and not parsed.is_loopback:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed) if parsed is not None else address


def is_loopback(address: str) -> bool:
    """Whether the address is this machine's own."""
    parsed = parse_address(address)
    return parsed is not None and parsed.is_loopback


class Access:
    """The allow-lists that follow from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(settings.api_origins)
        self._trusted = frozenset(group_of(proxy) for proxy in settings.trusted_proxies)
        self._listens_on_loopback = settings.api_host == "localhost" or is_loopback(settings.api_host)
        names = set(_LOOPBACK_NAMES)
        if settings.public_url is not None:
            names.add((urlsplit(settings.public_url).hostname or "").lower())
        if not self._listens_on_loopback:
            own = socket.gethostname().lower()
            names |= {own, f"{own}.local", settings.api_host.lower()}
        self._names = frozenset(names - {""})

    def peer(self, remote: str, headers: Headers) -> Peer:
        """The client. Forwarding headers are believed only if the connection comes from a trusted proxy."""
        address = remote
        forwarded = any(name in headers for name in _FORWARDING_HEADERS)
        if group_of(remote) in self._trusted:
            address = self._forwarded_address(headers.get_all("X-Forwarded-For")) or remote
        loopback = is_loopback(address)
        is_local = loopback and "Origin" not in headers and (not forwarded or address != remote)
        return Peer(address, group_of(address), loopback, is_local)

    def _forwarded_address(self, values: Iterable[str]) -> str | None:
        """The last address in the chain that is not a trusted proxy: everything before it the client may have made up."""
        chain = [part.strip() for value in values for part in value.split(",")]
        for part in reversed(chain):
            parsed = parse_address(part)
            if parsed is None:
                return None
            if group_of(part) not in self._trusted:
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


def _host_name(host: str) -> str | None:
    """The name in `name`, `name:port`, `[v6]` or `[v6]:port`; None if it is none of these."""
    if host.startswith("["):
        name, bracket, port = host.partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
        return name[1:]
    name, colon, port = host.partition(":")
    if not name or (colon and not _is_port(":" + port)):
        return None
    return name


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6
