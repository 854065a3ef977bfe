"""One conversation of one client: its sockets, its prompts in order, what was said. Pure, without IO."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import nsmallest
from itertools import chain, count
from typing import Final

from fabstir_desktop.jobs.generation import Message
from fabstir_desktop.server.frames import Prompt

MAX_KEPT_MESSAGES: Final = 64
MAX_KEPT_CHARACTERS: Final = 256 * 1024
_CHARACTERS_PER_TOKEN = 3
"""A cautious guess, used only to forget old turns in time; the engine counts exactly."""
_TRANSCRIPT_MARKS = ("<|im_start|>", "<|start|>", "<|start_header_id|>", "<start_of_turn>", "[INST]")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. `group` is what limits count by: an IPv4 address or an IPv6 /64.

    `is_local`: a program on this machine: loopback, no web page (no Origin), not passed on by a proxy.
    `hidden_as`: a name for this connection alone, where a proxy that is not trusted hides many clients behind one address.
    """

    address: str
    group: str
    is_loopback: bool
    is_local: bool
    hidden_as: str | None = None

    @property
    def identity(self) -> str:
        """Whose sessions and jobs these are: the group's, but of clients that cannot be told apart each has its own."""
        return self.hidden_as or self.group


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Session ids are chosen by clients and easily guessed: two peers with the same id have two sessions."""

    identity: str
    session_id: str


class RequestState(StrEnum):
    """Where a prompt stands."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class CancelReason(StrEnum):
    """Why a request is ended early."""

    ASKED = "asked"  # stream_cancel or session_end
    GONE = "gone"  # the socket that asked is closed
    STOPPING = "stopping"  # the host stops
    STALLED = "stalled"  # the engine gave nothing for too long


@dataclass(slots=True, eq=False)
class PromptRequest:
    """A prompt on its way through the host. `key` is ours and unique; the client's own id is in `prompt`."""

    key: str
    socket_id: int
    session: Session
    prompt: Prompt
    job_id: int | None
    peer: Peer
    state: RequestState = RequestState.WAITING
    cancelled: CancelReason | None = None

    @property
    def reply_session_id(self) -> str | None:
        """The session id to echo: only one the client knows."""
        return self.session.session_id if self.session.is_named else None


class Conversation:
    """What was said in a session, bounded; forgets whole old exchanges first."""

    def __init__(self) -> None:
        self._turns: deque[Message] = deque()

    def __len__(self) -> int:
        return len(self._turns)

    def before(self, text: str, max_tokens: int, context_window: int) -> tuple[Message, ...]:
        """The earlier turns to put before a prompt, as many of the newest as should fit beside it and its answer.

        A prompt that is itself a transcript (it holds a chat template's marks) gets none.
        """
        if any(mark in text for mark in _TRANSCRIPT_MARKS):
            return ()
        answer_tokens = min(max_tokens, context_window // 2)
        room = (context_window - answer_tokens) * _CHARACTERS_PER_TOKEN - len(text)
        kept: list[Message] = []
        for turn in reversed(self._turns):
            room -= len(turn.content) + 8 * _CHARACTERS_PER_TOKEN
            if room < 0:
                break
            kept.append(turn)
        while kept and kept[-1].role == "assistant":
            kept.pop()  # an answer without its question is noise
        return tuple(reversed(kept))

    def replace(self, turns: tuple[Message, ...]) -> None:
        """Take the client's own account of the conversation."""
        self._turns = deque(turns)
        self._bound()

    def add(self, text: str | None, answer: str) -> None:
        """Remember an exchange; `text` is None if the prompt stands in the turns already."""
        if text is not None:
            self._turns.append(Message("user", text))
        if answer:
            self._turns.append(Message("assistant", answer))
        self._bound()

    def _bound(self) -> None:
        size = sum(len(turn.content) for turn in self._turns)
        while len(self._turns) > MAX_KEPT_MESSAGES or (self._turns and size > MAX_KEPT_CHARACTERS):
            size -= len(self._turns.popleft().content)


@dataclass(slots=True, eq=False)
class Session:
    """State of a session. `is_named`: the client chose the id; else it is one socket's own.

    Only a session that was opened with `session_init` keeps a conversation: a prompt that merely names a session for its
    job's account stands by itself.
    """

    key: SessionKey
    is_named: bool
    opened_at_s: float
    job_id: int | None = None
    jobs: set[int] = field(default_factory=set)
    """Every job that tokens were admitted for."""
    sockets: set[int] = field(default_factory=set)
    conversation: Conversation | None = None
    waiting: deque[PromptRequest] = field(default_factory=deque)
    running: PromptRequest | None = None
    used_at_s: float = 0.0
    deserted_at_s: float | None = None
    """Since when it has no socket."""
    account_name: str = ""
    """What its tokens are counted under: the session id, unless another session in use has the same."""
    is_over: bool = False

    @property
    def session_id(self) -> str:
        """The id as ledger and client know it."""
        return self.key.session_id

    @property
    def cache_key(self) -> str:
        """What an engine knows the conversation by."""
        return f"{self.key.identity} {self.key.session_id}"

    @property
    def is_worth_keeping(self) -> bool:
        """Whether, without sockets, it waits for its client: only if there is something to come back to."""
        return self.is_named and bool(self.jobs or self.conversation)

    def turns_for(self, request: PromptRequest, context_window: int) -> tuple[Message, ...]:
        """The conversation to render for the request: what the client gave, or what is kept, and the new turn."""
        prompt = request.prompt
        new = () if prompt.text is None else (Message("user", prompt.text),)
        if prompt.context is not None:
            return prompt.context + new
        if self.conversation is None or prompt.text is None:
            return new
        return self.conversation.before(prompt.text, prompt.max_tokens, context_window) + new

    def remember(self, request: PromptRequest, answer: str) -> None:
        """Keep the exchange, where a conversation is kept."""
        if self.conversation is None:
            return
        if request.prompt.context is not None:
            self.conversation.replace(request.prompt.context)
        self.conversation.add(request.prompt.text, answer)


@dataclass(slots=True, eq=False)
class Socket:
    """A connected client, as the protocol knows it. `current` is the session of its last session_init; `own` the one it has
    without having named any."""

    socket_id: int
    peer: Peer
    opened_at_s: float
    used_at_s: float
    has_spoken: bool = False
    is_closing: bool = False
    current: Session | None = None
    own: Session | None = None
    sessions: set[Session] = field(default_factory=set)
    jobs: set[int] = field(default_factory=set)

    @property
    def is_spare(self) -> bool:
        """Whether it has nothing that a flood would have to pay for: a job that was admitted, or a prompt on its way."""
        return not any(session.jobs or session.running or session.waiting for session in self.sessions)


def idlest(sockets: Iterable[Socket], count: int, before_s: float) -> list[Socket]:
    """Up to `count` sockets to close when there is no room for others: spare ones last used by `before_s`, longest first."""
    spare = [socket for socket in sockets if socket.is_spare and socket.used_at_s <= before_s]
    return nsmallest(count, spare, key=lambda socket: socket.used_at_s)


def take_name(session_id: str, taken: set[str]) -> str:
    """A name for the account of a session, from now on taken.

    Ids are chosen by clients: the end of one session must not be taken for the end of another's.
    """
    numbered = (f"{session_id} ({number})" for number in count(2))
    name = next(name for name in chain((session_id,), numbered) if name not in taken)
    taken.add(name)
    return name
