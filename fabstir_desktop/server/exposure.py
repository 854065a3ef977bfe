"""What of this host others can reach: said before it is made so, shown while it is so, and tried from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from fabstir_desktop.errors import SettingError
from fabstir_desktop.jobs.addresses import is_loopback, parse_address
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.server.client import socket_url
from fabstir_desktop.server.quiet import quiet_logger
from fabstir_desktop.settings import Settings

INSTANCE_HEADER: Final = "X-Fabstir-Instance"
PLAINTEXT_CODE: Final = "X01"
UNREACHABLE_CODE: Final = "H04"
CONTESTED_CODE: Final = "X02"
UNKNOWN_PROXY_CODE: Final = "X03"
_TRY_LIMIT_S = 15.0
_WHAT_THEY_CAN = "They can send prompts for paid jobs, and read health, model name, load and counts."


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is reachable from beyond this machine, as sentences for the host to read before agreeing; none if nothing is.

    `is_public`: the port itself listens beyond this machine. `is_plaintext`: and what crosses the network can be read.
    """

    is_public: bool
    is_plaintext: bool
    sentences: tuple[str, ...]


def exposure_of(settings: Settings) -> Exposure:
    """Judge the settings alone; ask it of changed settings before they are stored."""
    if settings.api_host == "localhost" or is_loopback(settings.api_host):
        return Exposure(False, False, tuple(_passed_on(settings)))
    address = parse_address(settings.api_host)
    everywhere = address is not None and address.is_unspecified
    where = "every network of this machine" if everywhere else f"the network of {settings.api_host}"
    is_plaintext = settings.tls_certificate is None  # a proxy's TLS is no help to whoever comes straight to this port
    sentences = [
        f"Anyone who reaches port {settings.api_port} from {where} can connect.",
        _WHAT_THEY_CAN,
        *_opened(settings),
    ]
    if is_plaintext:
        sentences.append("Prompts and answers are not encrypted on the way: set TLS_CERTIFICATE and TLS_KEY.")
    return Exposure(True, is_plaintext, tuple(sentences))


def exposure_after(settings: Settings, changes: Mapping[str, Any]) -> Exposure:
    """Judge the settings with these fields changed; None is a field's default. Raises SettingError if one cannot be used."""
    fields = {name: getattr(settings, name) for name in Settings.model_fields}
    fields |= changes
    kept = {name: value for name, value in fields.items() if value is not None}
    try:
        return exposure_of(Settings.model_validate(kept))
    except ValidationError:
        raise SettingError(f"{', '.join(name.upper() for name in changes)} cannot be used") from None


def _passed_on(settings: Settings) -> list[str]:
    """What others reach although the port is this machine's own: through a reverse proxy, or from a web page."""
    sentences = []
    if settings.public_url is not None or settings.trusted_proxies:
        address = urlsplit(settings.public_url or "").hostname or "a reverse proxy"
        sentences += [f"Anyone who reaches {address} can connect, through a reverse proxy.", _WHAT_THEY_CAN]
    return sentences + _opened(settings)


def _opened(settings: Settings) -> list[str]:
    """What is open to others by choice, wherever the port listens."""
    sentences = []
    if settings.free_use == "everyone":
        sentences.append("Whoever connects can send prompts without a job: you earn nothing for those.")
    if "*" in settings.api_origins:
        sentences.append("Every web page may connect.")
    return sentences


def plaintext_problem(settings: Settings) -> Problem | None:
    """The warning that stands while prompts cross a network in the clear."""
    exposure = exposure_of(settings)
    if not (exposure.is_public and exposure.is_plaintext):
        return None
    message = "Others can connect to this host, and prompts and answers are not encrypted on the way."
    return problem(PLAINTEXT_CODE, message, advice="Set a TLS certificate, or listen on 127.0.0.1.")


def contested_problem(job_id: int) -> Problem:
    """A second client asked for a job that another one uses."""
    message = f"A second client asked for job {job_id}, which another one uses. It was refused."
    return problem(CONTESTED_CODE, message, subject=str(job_id))


def unknown_proxy_problem(address: str) -> Problem:
    """Clients come through a proxy on this machine that the settings do not name."""
    message = f"Requests come through a proxy at {address} that is not in TRUSTED_PROXIES: its clients share one set of limits."
    return problem(UNKNOWN_PROXY_CODE, message, advice="Add its address to TRUSTED_PROXIES if it is yours.")


async def try_public_url(url: str, instance: str) -> Problem | None:
    """Connect to the public URL as a client would; None if this very host answers there."""
    try:
        async with connect(
            socket_url(url),
            proxy=None,
            open_timeout=_TRY_LIMIT_S,
            close_timeout=2,
            compression=None,
            logger=quiet_logger(),
        ) as socket:
            found = socket.response.headers.get(INSTANCE_HEADER) if socket.response is not None else None
    except InvalidStatus as refused:  # paused, or full: it is reached all the same
        found = refused.response.headers.get(INSTANCE_HEADER)
        if found is None:
            return _unreachable(f"answers with status {refused.response.status_code}")
    except (OSError, WebSocketException, ValueError) as error:
        return _unreachable(f"does not answer ({type(error).__name__})")
    return None if found == instance else _unreachable("is answered by another program or host")


def _unreachable(why: str) -> Problem:
    message = f"The public address of this host {why}: clients cannot use it."
    return problem(UNREACHABLE_CODE, message, advice="Check the router's port forwarding, the proxy and PUBLIC_URL.")
