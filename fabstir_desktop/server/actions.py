"""What the server is to do after an event: the words in which the protocol answers."""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.server.session import PromptRequest, Session


@dataclass(frozen=True, slots=True)
class Reply:
    """Send these bytes as one text frame."""

    socket_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Start:
    """Begin to answer the request; report its end with `request_ended`."""

    request: PromptRequest


@dataclass(frozen=True, slots=True)
class Cancel:
    """Let the running request end as soon as it can; `request.cancelled` says why."""

    request: PromptRequest


@dataclass(frozen=True, slots=True)
class Abandon:
    """A request that never ran is given up: tell its client."""

    request: PromptRequest


@dataclass(frozen=True, slots=True)
class EndSession:
    """The session is over and nothing of it runs: what its jobs have unclaimed is to be claimed."""

    session: Session


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close with this code."""

    socket_id: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class JobContested:
    """A second peer asked for a job that another one uses; the host should know."""

    job_id: int


Action = Reply | Start | Cancel | Abandon | EndSession | CloseSocket | JobContested


class Refusal(Exception):
    """A prompt that is not taken, and what to tell its client."""

    def __init__(self, code: str, message: str, **further: float) -> None:
        super().__init__(message)
        self.code = code
        self.further = further


class Contested(Refusal):
    """The job is pinned to another peer."""
