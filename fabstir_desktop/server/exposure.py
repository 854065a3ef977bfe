"""What of this host others can reach: said before it is made so, shown while it is so, and tried from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.server.access import is_loopback, parse_address
from fabstir_desktop.server.client import socket_url
from fabstir_desktop.server.quiet import quiet_logger
from fabstir_desktop.settings import Settings

INSTANCE_HEADER: Final = "X-Fabstir-Instance"
PLAINTEXT_CODE: Final = "S04"
UNREACHABLE_CODE: Final = "S05"
CONTESTED_CODE: Final = "S06"
_TRY_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is reachable from beyond this machine, as sentences for the host to read before agreeing."""

    is_public: bool
    is_plaintext: bool
    sentences: tuple[str, ...]


def exposure_of(settings: Settings) -> Exposure:
    """Judge the settings alone; ask it of changed settings before they are stored."""
    if settings.api_host == "localhost" or is_loopback(settings.api_host):
        sentences = ["Only programs on this machine can connect."]
        if settings.public_url is not None:
            sentences.append("A reverse proxy on this machine may pass others on to it.")
        return Exposure(False, False, tuple(sentences))
    address = parse_address(settings.api_host)
    everywhere = address is not None and address.is_unspecified
    where = "every network of this machine" if everywhere else f"the network of {settings.api_host}"
    is_plaintext = settings.tls_certificate is None and not settings.trusted_proxies
    sentences = [
        f"Anyone who reaches port {settings.api_port} from {where} can connect.",
        "They can send prompts for paid jobs, and read health, model name, load and counts.",
    ]
    if settings.free_use == "everyone":
        sentences.append("They can send prompts without a job: you earn nothing for those.")
    if is_plaintext:
        sentences.append("Prompts and answers are not encrypted on the way: set TLS_CERTIFICATE and TLS_KEY.")
    if "*" in settings.api_origins:
        sentences.append("Every web page may connect.")
    return Exposure(True, is_plaintext, tuple(sentences))


def plaintext_problem(settings: Settings) -> Problem | None:
    """The warning that stands while prompts cross a network in the clear."""
    exposure = exposure_of(settings)
    if not (exposure.is_public and exposure.is_plaintext):
        return None
    return Problem(
        PLAINTEXT_CODE,
        Severity.WARNING,
        "Others can connect to this host, and prompts and answers are not encrypted on the way.",
        "Set a TLS certificate, or listen on 127.0.0.1",
        page="settings",
    )


def contested_problem(job_id: int) -> Problem:
    """A second client asked for a job that another one uses."""
    return Problem(
        CONTESTED_CODE,
        Severity.INFORMATION,
        f"A second client asked for job {job_id}, which another one uses. It was refused.",
        "",
        subject=str(job_id),
        page="jobs",
    )


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
    except (OSError, WebSocketException, ValueError) as error:
        return _unreachable(f"does not answer ({type(error).__name__})")
    return None if found == instance else _unreachable("is answered by another program or host")


def _unreachable(why: str) -> Problem:
    return Problem(
        UNREACHABLE_CODE,
        Severity.WARNING,
        f"The public address of this host {why}: clients cannot use it.",
        "Check the router's port forwarding, the proxy and PUBLIC_URL",
        page="settings",
    )
