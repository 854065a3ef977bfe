"""The state of all sockets, sessions and requests, and what follows from each event. Pure: no IO, no clock, no tasks.

The server feeds in what happened (a socket opened, a frame arrived, a request ended, a second passed) and carries out the
actions that come back, in order. Rules kept here: prompts of one session run one after the other, in the order they came;
other frames act at once; a request whose socket is gone is cancelled, its session lives on for the grace period; a job is
pinned to the peer that first used it for as long as a session of that peer uses it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from uuid import uuid4

from fabstir_desktop.server.actions import (
    Abandon,
    Action,
    Cancel,
    CloseSocket,
    Contested,
    EndSession,
    JobContested,
    Refusal,
    Reply,
    Start,
)
from fabstir_desktop.server.chain_check import check_chain
from fabstir_desktop.server.frames import (
    Frame,
    Ignored,
    Prompt,
    ProtocolError,
    ReplyWriter,
    SessionEnd,
    SessionInit,
    StreamCancel,
    connected_frame,
    session_init_ack,
)
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.server.openness import Openness
from fabstir_desktop.server.pins import JobPins
from fabstir_desktop.server.rates import PromptRates
from fabstir_desktop.server.session import (
    CancelReason,
    Conversation,
    Peer,
    PromptRequest,
    RequestState,
    Session,
    SessionKey,
    Socket,
    idlest,
    take_name,
)
from fabstir_desktop.server.waiting_room import WaitingRoom

CLOSE_NORMAL = 1000
CLOSE_TRY_LATER = 1013


class Protocol:
    """Decides; see the module's text. Times are seconds on one monotonic clock."""

    def __init__(self, *, chain_id: int, version: str, grace_s: float, idle_s: float, limits: Limits) -> None:
        self._chain_id = chain_id
        self._greeting = connected_frame(version)
        self._grace_s = grace_s
        self._idle_s = idle_s
        self._limits = limits
        self._rates = PromptRates(limits)
        self.waiting = WaitingRoom(limits)
        self.session_over: Callable[[Session], None] = lambda _: None
        self._sockets: dict[int, Socket] = {}
        self._sessions: dict[SessionKey, Session] = {}
        self.openness = Openness(self._sessions)
        self._live: dict[str, PromptRequest] = {}
        self._pins = JobPins()
        self._watchers: dict[int, set[int]] = {}
        self._names: set[str] = set()
        self._socket_ids = itertools.count(1)

    # --- what may be asked ------------------------------------------------------------------------------------------

    @property
    def session_count(self) -> int:
        """Sessions that are not over."""
        return len(self._sessions)

    @property
    def waiting_count(self) -> int:
        """Prompts that wait for an earlier one of their session."""
        return len(self.waiting)

    @property
    def running_count(self) -> int:
        """Prompts handed over and not ended."""
        return sum(request.state is RequestState.RUNNING for request in self._live.values())

    def sockets_of_job(self, job_id: int) -> frozenset[int]:
        """Every open socket of the sessions that use the job or used it."""
        return frozenset(self._watchers.get(job_id, ()))

    # --- sockets ----------------------------------------------------------------------------------------------------

    def socket_opened(self, peer: Peer, now_s: float) -> tuple[int, list[Action]]:
        """A client is connected; returns the socket's number here."""
        socket_id = next(self._socket_ids)
        self._sockets[socket_id] = Socket(socket_id, peer, now_s, now_s)
        return socket_id, [Reply(socket_id, self._greeting)]

    def socket_closed(self, socket_id: int, now_s: float) -> list[Action]:
        """The socket is gone, however that came. Safe to call twice."""
        socket = self._sockets.pop(socket_id, None)
        if socket is None:
            return []
        actions: list[Action] = []
        for request in [request for request in self._live.values() if request.socket_id == socket_id]:
            actions += self._cancel(request, CancelReason.GONE)
        for job_id in socket.jobs:
            self._watchers[job_id].discard(socket_id)
            if not self._watchers[job_id]:
                del self._watchers[job_id]
        for session in list(socket.sessions):
            session.sockets.discard(socket_id)
            if not session.sockets:
                session.deserted_at_s = now_s
                if self._grace_s <= 0 or not session.is_worth_keeping:
                    actions += self._end(session, CancelReason.GONE)
        return actions

    def frame_received(self, socket_id: int, frame: Frame, now_s: float) -> list[Action]:
        """A frame was read from the socket."""
        socket = self._sockets.get(socket_id)
        if socket is None:
            return []
        socket.has_spoken = True
        match frame:
            case Prompt():
                return self._prompt(socket, frame, now_s)
            case SessionInit():
                return self._session_init(socket, frame, now_s)
            case StreamCancel():
                request = self._request_meant(socket, frame)
                return self._cancel(request, CancelReason.ASKED) if request else []
            case SessionEnd():
                session = self._known_session(socket, frame.session_id)
                return self._end(session, CancelReason.ASKED) if session else []
            case Ignored():
                return []

    def refused_frame(self, socket_id: int, problem: ProtocolError) -> bytes:
        """The `error` for a frame that could not be used; of the socket's session where the frame named none."""
        socket = self._sockets.get(socket_id)
        session_id = problem.session_id
        if session_id is None and socket is not None and socket.current is not None:
            session_id = socket.current.session_id
        return ReplyWriter(problem.request_id, session_id).error(problem.code, str(problem))

    # --- requests ---------------------------------------------------------------------------------------------------

    def job_admitted(self, request: PromptRequest) -> bool:
        """The request's job was found good: pin it to the peer. False if another peer has it."""
        if request.job_id is None:
            return True
        if not self._pins.take(request.job_id, request.peer, request.session):
            return False
        for socket_id in request.session.sockets:
            self._watch(self._sockets[socket_id], request.job_id)
        return True

    def request_ended(self, request: PromptRequest, answer: str | None, now_s: float) -> list[Action]:
        """A started request has ended; `answer` is its text if the exchange is worth remembering."""
        if request.state is RequestState.ENDED:
            return []
        request.state = RequestState.ENDED
        self._live.pop(request.key, None)
        session = request.session
        session.running = None
        session.used_at_s = now_s
        if answer is not None:
            session.remember(request, answer)
        if session.is_over:
            return self._finish(session)
        if session.waiting:
            return self._start(session)
        if not session.sockets and not session.is_worth_keeping:
            return self._end(session, CancelReason.GONE)
        return []

    def tick(self, now_s: float) -> list[Action]:
        """Some time has passed: refuse who waited too long, end deserted and idle sessions, close sockets that do nothing."""
        actions: list[Action] = []
        for request, reply in self.waiting.overdue(now_s):
            self._take_out(request)
            actions.append(reply)
        for session in list(self._sessions.values()):
            is_deserted = session.deserted_at_s is not None and now_s - session.deserted_at_s >= self._grace_s
            is_idle = session.running is None and not session.waiting and now_s - session.used_at_s >= self._idle_s
            if is_deserted or is_idle:
                actions += self._end(session, CancelReason.GONE)
        for socket in self._sockets.values():
            if not socket.has_spoken and now_s - socket.opened_at_s >= self._limits.first_message_s:
                actions.append(CloseSocket(socket.socket_id, CLOSE_NORMAL, "no request came"))
            elif not socket.sessions and now_s - socket.used_at_s >= self._idle_s:
                actions.append(CloseSocket(socket.socket_id, CLOSE_NORMAL, "idle"))
        return actions

    def make_room(self, count: int, now_s: float) -> list[Action]:
        """The host is crowded: close up to `count` sockets whose clients ask for nothing."""
        if count <= 0:
            return []
        actions: list[Action] = []
        for socket in idlest(self._sockets.values(), count, now_s - self._limits.idle_when_crowded_s):
            if not socket.is_closing:  # one that does not let go is counted, so that no other has to go for it
                socket.is_closing = True
                actions.append(CloseSocket(socket.socket_id, CLOSE_TRY_LATER, "idle, and the host is full"))
        return actions

    def drain(self) -> list[Action]:
        """The host stops: no new prompt, running ones end, every session is over."""
        self.openness.stop()
        actions: list[Action] = []
        for session in list(self._sessions.values()):
            actions += self._end(session, CancelReason.STOPPING)
        return actions

    # --- own: frames ------------------------------------------------------------------------------------------------

    def _session_init(self, socket: Socket, frame: SessionInit, now_s: float) -> list[Action]:
        try:
            check_chain(self._chain_id, frame.job_id, frame.chain_id)
            self._check_pin(frame.job_id, socket.peer)
            session = self._named_session(socket, frame.session_id, now_s)
        except Refusal as refusal:
            writer = ReplyWriter(frame.request_id, frame.session_id)
            return self._refuse(socket, writer, refusal, frame.job_id)
        session.job_id = frame.job_id
        session.used_at_s = now_s
        if session.conversation is None:
            session.conversation = Conversation()
        socket.current = session
        socket.used_at_s = now_s
        return [Reply(socket.socket_id, session_init_ack(frame, self._chain_id))]

    def _prompt(self, socket: Socket, prompt: Prompt, now_s: float) -> list[Action]:
        job_id = prompt.job_id
        try:
            self.openness.check_prompt()
            session = self._session_for(socket, prompt.session_id, now_s)
            job_id = session.job_id if job_id is None else job_id
            check_chain(self._chain_id, job_id, prompt.chain_id)
            self._check_pin(job_id, socket.peer)
            if self._is_resent(socket, session, prompt):
                return []  # the running answer is the answer
            self.waiting.check(session, job_id, socket.peer, self._live.values())
            if not socket.peer.is_loopback:
                self._rates.take(socket.peer.group, job_id, now_s)
        except Refusal as refusal:
            session_id = prompt.session_id or (socket.current.session_id if socket.current else None)
            return self._refuse(socket, ReplyWriter(prompt.request_id, session_id), refusal, job_id)
        socket.used_at_s = session.used_at_s = now_s
        request = PromptRequest(uuid4().hex, socket.socket_id, session, prompt, job_id, socket.peer)
        self._live[request.key] = request
        session.waiting.append(request)
        self.waiting.enter(request, now_s)
        return self._start(session) if session.running is None else []

    @staticmethod
    def _refuse(socket: Socket, writer: ReplyWriter, refusal: Refusal, job_id: int | None) -> list[Action]:
        actions: list[Action] = [Reply(socket.socket_id, writer.error(refusal.code, str(refusal), **refusal.further))]
        if isinstance(refusal, Contested) and job_id is not None:
            actions.append(JobContested(job_id))
        return actions

    def _check_pin(self, job_id: int | None, peer: Peer) -> None:
        if self._pins.is_anothers(job_id, peer):
            raise Contested("JOB_NOT_VALID", "this job is in use by another client")

    def _is_resent(self, socket: Socket, session: Session, prompt: Prompt) -> bool:
        """The very same frame again while the first is being served: one generation answers both.

        From another socket it cannot: the frames of an answer go where it was asked for. Raises Refusal.
        """
        if prompt.request_id is None:
            return False
        same = [one for one in self._live.values() if one.session is session and one.prompt == prompt]
        if same and all(one.socket_id != socket.socket_id for one in same):
            raise Refusal("INVALID_REQUEST", "this id is being answered on another connection of the session")
        return bool(same)

    def _request_meant(self, socket: Socket, frame: StreamCancel) -> PromptRequest | None:
        session = self._known_session(socket, frame.session_id)
        if frame.request_id is not None:
            return next(
                (
                    request
                    for request in self._live.values()
                    if request.prompt.request_id == frame.request_id
                    and (request.session is session or request.socket_id == socket.socket_id)
                ),
                None,
            )
        if frame.session_id is not None or (session is not None and session.running is not None):
            return session.running if session else None
        running = [
            request
            for request in self._live.values()
            if request.socket_id == socket.socket_id and request.state is RequestState.RUNNING
        ]
        return running[-1] if running else None

    # --- own: sessions ----------------------------------------------------------------------------------------------

    def _known_session(self, socket: Socket, session_id: str | None) -> Session | None:
        if session_id is None:
            return socket.current or socket.own
        return self._sessions.get(SessionKey(socket.peer.identity, session_id))

    def _session_for(self, socket: Socket, session_id: str | None, now_s: float) -> Session:
        if session_id is not None:
            return self._named_session(socket, session_id, now_s)
        if socket.current is not None:
            return socket.current
        if socket.own is None:
            key = SessionKey(socket.peer.identity, f"socket-{uuid4().hex}")
            socket.own = self._open(socket, key, now_s, is_named=False)
        return socket.own

    def _named_session(self, socket: Socket, session_id: str, now_s: float) -> Session:
        key = SessionKey(socket.peer.identity, session_id)
        session = self._sessions.get(key)
        if session is None:
            return self._open(socket, key, now_s, is_named=True)
        session.sockets.add(socket.socket_id)
        session.deserted_at_s = None
        socket.sessions.add(session)
        for job_id in session.jobs:
            self._watch(socket, job_id)
        return session

    def _watch(self, socket: Socket, job_id: int) -> None:
        socket.jobs.add(job_id)
        self._watchers.setdefault(job_id, set()).add(socket.socket_id)

    def _open(self, socket: Socket, key: SessionKey, now_s: float, *, is_named: bool) -> Session:
        self.openness.check_new_session()
        if len(socket.sessions) >= self._limits.sessions_per_socket:
            raise self.waiting.busy("too many sessions on one connection")
        if len(self._sessions) >= self._limits.sessions:
            raise self.waiting.busy("this host has too many sessions")
        session = Session(key, is_named, now_s, used_at_s=now_s, account_name=take_name(key.session_id, self._names))
        session.sockets.add(socket.socket_id)
        socket.sessions.add(session)
        self._sessions[key] = session
        return session

    def _start(self, session: Session) -> list[Action]:
        request = session.running = session.waiting.popleft()
        request.state = RequestState.RUNNING
        self.waiting.leave(request)
        return [Start(request)]

    def _cancel(self, request: PromptRequest, reason: CancelReason) -> list[Action]:
        if request.cancelled is not None:
            return []
        request.cancelled = reason
        if request.state is RequestState.RUNNING:
            return [Cancel(request)]
        self._take_out(request)
        return [] if reason is CancelReason.GONE else [Abandon(request)]

    def _take_out(self, request: PromptRequest) -> None:
        """It waits no more, and never ran."""
        request.state = RequestState.ENDED
        request.session.waiting.remove(request)
        self.waiting.leave(request)
        self._live.pop(request.key, None)

    def _end(self, session: Session, reason: CancelReason) -> list[Action]:
        if session.is_over:
            return []
        session.is_over = True
        self._sessions.pop(session.key, None)
        for socket in [self._sockets[socket_id] for socket_id in session.sockets]:
            socket.sessions.discard(session)
            socket.current = None if socket.current is session else socket.current
            socket.own = None if socket.own is session else socket.own
        session.sockets.clear()
        actions: list[Action] = []
        for request in [*session.waiting, *([session.running] if session.running else [])]:
            actions += self._cancel(request, reason)
        return actions if session.running else actions + self._finish(session)

    def _finish(self, session: Session) -> list[Action]:
        """Nothing of the session runs any more: let go of its jobs."""
        self.session_over(session)
        self._names.discard(session.account_name)
        self._pins.release(session)
        return [EndSession(session)] if session.jobs else []
