"""The server: carries what happens on sockets to the protocol, and carries out what it answers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Final, assert_never
from uuid import uuid4

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed

from fabstir_desktop import __version__
from fabstir_desktop.errors import EnvironmentFault, FabstirError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.accounting import Accountant
from fabstir_desktop.jobs.events import RequestChanged
from fabstir_desktop.jobs.generation import Engine, KeepsConversations
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import ServerStatus, StatusSource
from fabstir_desktop.server.access import Access
from fabstir_desktop.server.actions import (
    Abandon,
    Action,
    Cancel,
    CloseSocket,
    EndSession,
    JobContested,
    Reply,
    Start,
)
from fabstir_desktop.server.announcer import Announcer
from fabstir_desktop.server.answering import Answering, Run
from fabstir_desktop.server.decoder import decode_frame
from fabstir_desktop.server.door import Door, peer_of
from fabstir_desktop.server.exposure import exposure_of
from fabstir_desktop.server.frames import Frame, ProtocolError, ReplyWriter, Usage
from fabstir_desktop.server.guard import Doorkeeper, GuardedConnection
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.server.listener import listen, url_of
from fabstir_desktop.server.metrics import ServerMetrics
from fabstir_desktop.server.pages import Pages
from fabstir_desktop.server.protocol import Protocol
from fabstir_desktop.server.rates import FrameRates
from fabstir_desktop.server.session import CancelReason, PromptRequest, Session
from fabstir_desktop.server.tls import Certificate, certificate_of
from fabstir_desktop.settings import Settings
from fabstir_desktop.tasks import OwnTasks

log = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_END_SESSION_LIMIT_S: Final = 60.0
_LARGE_FRAME_BYTES: Final = 32 * 1024
"""Frames above are decoded in a thread, so that they do not hold up the tokens of others."""
_FRAMES_PER_TURN: Final = 32
"""Frames of one connection that may be served before the others get the loop."""


def _protocol_for(settings: Settings, engine: Engine, limits: Limits) -> Protocol:
    """The state machine, told by the engine who waits there, and telling it which conversations are over."""
    protocol = Protocol(
        chain_id=settings.chain_id,
        version=__version__,
        grace_s=settings.session_grace_seconds,
        idle_s=settings.session_idle_seconds,
        limits=limits,
    )
    if isinstance(engine, KeepsConversations):
        keeper: KeepsConversations = engine
        protocol.session_over = lambda session: keeper.forget(session.cache_key)
    protocol.waiting.queued = lambda: engine.status.queued_requests
    return protocol


class ApiServer:
    """Serves `/v1/ws` and the GET endpoints. All methods belong to the loop it was started in."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        accountant: Accountant,
        status_source: StatusSource,
        feed: Feed,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._accountant = accountant
        self._feed = feed
        self._instance = uuid4().hex
        self._limits = limits or Limits()
        self._doorkeeper = Doorkeeper(self._limits, settings.max_connections)
        self._protocol = _protocol_for(settings, engine, self._limits)
        self._metrics = ServerMetrics(lambda: status_source.status, lambda: Counter(self._doorkeeper.refused), feed)
        self._announcer = Announcer(settings, feed, self._tell_job, self._instance)
        admitted, contested = self._protocol.job_admitted, self._announcer.job_contested
        self._answering = Answering(
            engine, accountant, self._metrics, self._limits, settings.free_use, admitted, contested
        )
        pages = Pages(status_source, self._metrics)
        self._door = Door(Access(settings), self._doorkeeper, pages, lambda: self._protocol.openness.closed_door)
        self._frame_rates = FrameRates(self._limits)
        # a thread of its own: a flood of frames must not stand before the ledger's work
        self._decoding = ThreadPoolExecutor(1, "decode")
        self._server: Server | None = None
        self._certificate: Certificate | None = None
        self._url: str | None = None
        self._detail, self._exposure = "", exposure_of(settings).sentences
        self._connections: dict[int, GuardedConnection] = {}
        self._runs: dict[str, Run] = {}
        self._tasks = OwnTasks()
        self._watches: list[asyncio.Task[None]] = []

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Listen; returns the WebSocket's URL. May be tried again after a failure, not after `stop`.

        Raises EnvironmentFault (port taken, address or certificate unusable).
        """
        if self._server is not None and self._url is not None:
            return self._url
        try:
            self._certificate = await certificate_of(self._settings)
            tls = self._certificate.context if self._certificate is not None else None
            self._server = await listen(
                self._settings, self._serve_socket, self._door, self._doorkeeper, tls=tls, instance=self._instance
            )
        except EnvironmentFault as error:
            self._detail = str(error)
            raise
        self._detail = ""
        self._url = url_of(self._settings.api_host, self._server, is_tls=tls is not None)
        self._announcer.warn_of_exposure()
        self._watches.append(self._tasks.start(self._announcer.watch_public_url(), "public URL"))
        self._watches.append(self._tasks.start(self._tick(), "server tick"))
        return self._url

    async def stop(self, timeout_s: float = 3.0) -> None:
        """Take nothing new, end what runs, settle every session, close every socket. Safe to call twice."""
        self._url = None
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + timeout_s
        for task in self._watches:
            task.cancel()
        self._perform(self._protocol.drain())
        await self._tasks.finish(timeout_s * 0.7)
        server, self._server = self._server, None
        if server is not None:
            server.close(code=1001, reason="the host is stopping")
            await self._wait_closed(server, max(0.1, ends_at_s - loop.time()))
        await self._tasks.finish(0.1)
        self._announcer.close()
        self._metrics.close()
        self._decoding.shutdown(wait=False, cancel_futures=True)

    def pause(self) -> None:
        """Take no new prompts; running ones end."""
        self._protocol.openness.pause()

    def finish_jobs(self) -> None:
        """Open no new session (connections get 503, prompts BUSY); those that are open go on until they are over."""
        self._protocol.openness.finish_jobs()

    def resume(self) -> None:
        """Take prompts again, unless the host stops."""
        self._protocol.openness.resume()
        self._announcer.check_public_url()

    @property
    def status(self) -> ServerStatus:
        """Who is connected and what runs; cheap."""
        queued = self._engine.status.queued_requests
        return ServerStatus(
            url=self._url,
            connections=self.connections,
            sessions=self._protocol.session_count,
            active_requests=max(0, self._protocol.running_count - queued),
            queued_requests=self._protocol.waiting_count + queued,
            detail=self._detail,
            exposure=self._exposure,
        )

    async def try_public_url(self, url: str) -> Problem | None:
        """Whether a client that connects to `url` comes to this very server; None if so."""
        return await self._announcer.try_public_url(url)

    @property
    def connections(self) -> int:
        """Open WebSockets."""
        return len(self._connections)

    # --- sockets ----------------------------------------------------------------------------------------------------

    async def _serve_socket(self, connection: ServerConnection) -> None:
        if not isinstance(connection, GuardedConnection):
            raise TypeError("connections are made by guard.guarded")
        peer = peer_of(connection)
        self._announcer.client_came(peer)
        socket_id, actions = self._protocol.socket_opened(peer, self._now())
        self._connections[socket_id] = connection
        try:
            self._perform(actions)
            await self._read(socket_id, connection)
        except ConnectionClosed:
            pass
        finally:
            del self._connections[socket_id]
            self._perform(self._protocol.socket_closed(socket_id, self._now()))

    async def _read(self, socket_id: int, connection: GuardedConnection) -> None:
        peer = peer_of(connection)
        frames = 0
        while True:
            data = await connection.next_message()
            if not peer.is_loopback:
                await self._wait_for_rate(peer.group, len(data))
            try:
                frame = await self._decode(data)
            except ProtocolError as problem:
                self._metrics.frames_refused += 1
                connection.write(self._protocol.refused_frame(socket_id, problem))
            else:
                self._perform(self._protocol.frame_received(socket_id, frame, self._now()))
            await connection.wait_writable()
            frames += 1
            if frames % _FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _wait_for_rate(self, group: str, size: int) -> None:
        """Wait until the address may have one more frame served. Who waited asks again: others of its address did too."""
        wait_s = self._frame_rates.take_frame(group, self._now())
        while wait_s > 0:
            await asyncio.sleep(wait_s)
            wait_s = self._frame_rates.take_frame(group, self._now())
        wait_s = self._frame_rates.take_bytes(group, size, self._now())
        while wait_s > 0:
            await asyncio.sleep(wait_s)
            wait_s = self._frame_rates.take_bytes(group, size, self._now())

    async def _decode(self, data: str | bytes) -> Frame:
        """Read a frame. Raises ProtocolError."""
        if len(data) <= _LARGE_FRAME_BYTES:
            return decode_frame(data)
        return await asyncio.get_running_loop().run_in_executor(self._decoding, decode_frame, data)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Reply():
                    self._write(action.socket_id, action.data)
                case Start():
                    self._begin(action.request)
                case Cancel():
                    self._cancel(action.request)
                case Abandon():
                    self._abandon(action.request)
                case EndSession():
                    self._end_session(action.session)
                case CloseSocket():
                    connection = self._connections.get(action.socket_id)
                    if connection is not None:
                        self._tasks.start(connection.close(action.code, action.reason), "closing a socket")
                case JobContested():
                    self._announcer.job_contested(action.job_id)
                case _:
                    assert_never(action)

    def _write(self, socket_id: int, data: bytes) -> bool:
        connection = self._connections.get(socket_id)
        return connection is not None and connection.write(data)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _begin(self, request: PromptRequest) -> None:
        connection = self._connections.get(request.socket_id)
        if connection is None:  # its socket went in the same instant
            self._perform(self._protocol.request_ended(request, None, self._now()))
            return
        run = self._runs[request.key] = Run(request, connection.write_and_wait)
        self._tasks.start(self._answer(run), f"request {request.key}")

    async def _answer(self, run: Run) -> None:
        request = run.request
        answer: str | None = None
        self._feed.publish(RequestChanged(request.job_id))
        try:
            answer = await self._answering.answer(run)
        finally:
            del self._runs[request.key]
            self._perform(self._protocol.request_ended(request, answer, self._now()))
            self._feed.publish(RequestChanged(request.job_id))

    def _cancel(self, request: PromptRequest) -> None:
        self._engine.cancel(request.key)
        run = self._runs.get(request.key)
        if run is not None:
            run.cancel()

    def _abandon(self, request: PromptRequest) -> None:
        writer = ReplyWriter(request.prompt.request_id, request.reply_session_id)
        if request.cancelled is CancelReason.STOPPING:
            self._write(request.socket_id, writer.error("SHUTTING_DOWN", "the host is stopping"))
            return
        model = self._engine.status.model
        name, window = (model.name, model.context_window) if model is not None else ("", 0)
        self._write(request.socket_id, writer.end("cancelled", Usage(0, 0, window), name))

    def _end_session(self, session: Session) -> None:
        self._announcer.jobs_released(session.jobs)
        self._tasks.start(self._settle(session.account_name), f"end of session {session.session_id}")

    async def _settle(self, session_id: str) -> None:
        try:
            await asyncio.wait_for(self._accountant.end_session(session_id), _END_SESSION_LIMIT_S)
        except TimeoutError:
            log.warning("session %s was not settled in time; its tokens stay in the ledger", session_id)
        except FabstirError as error:
            log.warning("session %s was not settled: %s", session_id, error)

    def _tell_job(self, job_id: int, data: bytes) -> None:
        for socket_id in self._protocol.sockets_of_job(job_id):
            self._write(socket_id, data)

    # --- own --------------------------------------------------------------------------------------------------------

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _tick(self) -> None:
        """What takes no event to become due; also stands in for timers on the token's way."""
        looked_at_s = self._now()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = self._now()
            self._perform(self._protocol.tick(now_s))
            self._perform(self._protocol.make_room(self._doorkeeper.crowding, now_s))
            self._doorkeeper.tick(now_s)
            for run in list(self._runs.values()):
                if run.accepted is not None and now_s - run.last_event_s > self._limits.stall_s:
                    run.request.cancelled = run.request.cancelled or CancelReason.STALLED
                    self._cancel(run.request)
            if self._certificate is not None and now_s - looked_at_s >= self._limits.certificate_check_s:
                looked_at_s = now_s
                await self._renew(self._certificate)

    @staticmethod
    async def _renew(certificate: Certificate) -> None:
        try:
            if await asyncio.to_thread(certificate.reload_if_changed):
                log.info("the TLS certificate was read again")
        except EnvironmentFault as error:
            log.warning("%s; the old certificate stays in use", error)

    async def _wait_closed(self, server: Server, limit_s: float) -> None:
        closing = asyncio.get_running_loop().create_task(server.wait_closed())
        await asyncio.wait({closing}, timeout=limit_s)
        for connection in list(self._doorkeeper.connections):
            connection.transport.abort()
        if not closing.done():
            await asyncio.wait({closing}, timeout=0.5)
            closing.cancel()
