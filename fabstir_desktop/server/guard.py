"""What stands between a socket and the rest: counts of connections, and a connection that cuts off who abuses it.

websockets leaves to us: how many may connect, how long a message may take, pings without end, readers that do not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import CONNECTING, OPEN, Event

from fabstir_desktop.jobs.addresses import group_of, is_loopback
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.server.rates import Rate
from fabstir_desktop.server.session import Peer

log = logging.getLogger(__name__)

_METHODS: Final = (b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT")
_NOT_ALLOWED: Final = b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_SLOW_S: Final = 1.0
_DATA: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Doorkeeper:
    """Counts connections from their first byte on, and remembers why some were refused or cut off.

    A connection is half open until its request's headers are read, and inside once it was let in as a WebSocket. A burst of
    honest clients is half open for an instant: only those that stay so are a burden.
    """

    def __init__(self, limits: Limits, max_connections: int) -> None:
        self.limits = limits
        self.connections: set[GuardedConnection] = set()
        self.half_open: dict[GuardedConnection, float] = {}
        """Since when; oldest first."""
        self.watched: set[GuardedConnection] = set()
        """Those in the middle of something that must not last: messages not complete or not read, a full buffer, a close."""
        self.refused: Counter[str] = Counter()
        self.most_inside = max_connections
        self.most_sockets = max_connections + 4 * limits.half_open
        self._inside = 0
        self._inside_by_group: Counter[str] = Counter()
        self._half_open_by_group: Counter[str] = Counter()
        self._arrivals = Rate(limits.connections_per_s, limits.connections_burst)

    @property
    def crowding(self) -> int:
        """How many WebSockets there are beyond the share of places from which on the idle ones give way."""
        return max(0, self._inside - int(self.most_inside * self.limits.crowded_share))

    def fit(self, sockets: int) -> None:
        """Allow no more sockets than this, some of them for those that are not inside yet."""
        self.most_sockets = min(self.most_sockets, sockets)
        self.most_inside = max(1, min(self.most_inside, sockets - min(self.limits.half_open, sockets // 4)))

    def enter(self, connection: GuardedConnection, now_s: float) -> bool:
        """Count a new connection; False if it must be cut off at once because there are too many."""
        self.connections.add(connection)
        self.half_open[connection] = now_s
        self._half_open_by_group[connection.group] += 1
        if len(self.connections) > self.most_sockets:
            return False
        if connection.is_loopback:
            return True
        mine = self._half_open_by_group[connection.group]
        return mine <= self.limits.half_open_per_address and self._arrivals.take(connection.group, now_s) == 0

    def headers_read(self, connection: GuardedConnection) -> None:
        """No longer half open. Safe to call twice."""
        if self.half_open.pop(connection, None) is not None:
            _decrease(self._half_open_by_group, connection.group)

    def let_in(self, connection: GuardedConnection, group: str, is_loopback_peer: bool) -> bool:
        """Whether there is room; counts it if so. `group` is the client's, behind a proxy not the connection's own."""
        if self._inside >= self.most_inside:
            return False
        if not is_loopback_peer:
            if self._inside_by_group[group] >= self.limits.connections_per_address:
                return False
            if group != connection.group and self._arrivals.take(group, connection.loop.time()) > 0:
                return False  # its proxy's connections were counted at the door, not its own
        self._inside += 1
        self._inside_by_group[group] += 1
        connection.inside_as = group
        return True

    def leave(self, connection: GuardedConnection) -> None:
        """The connection is gone. Safe to call twice."""
        self.headers_read(connection)
        self.connections.discard(connection)
        self.watched.discard(connection)
        if connection.inside_as is not None:
            self._inside -= 1
            _decrease(self._inside_by_group, connection.inside_as)
            connection.inside_as = None

    def refuse(self, why: str) -> None:
        """Count a refusal, for the metrics."""
        self.refused[why] += 1

    def tick(self, now_s: float) -> None:
        """Called often: cut off slow readers, messages that never end, too much that is unfinished or half open.

        Connections that are merely there cost nothing here.
        """
        unfinished = 0
        for connection in list(self.watched):
            unfinished += connection.unfinished_bytes
            connection.check_times(now_s)
        if unfinished > self.limits.partial_total:
            for connection in list(self.watched):
                if connection.unfinished_bytes > self.limits.partial_share:
                    connection.cut_off("memory")
        for connection, since_s in list(self.half_open.items())[: max(0, len(self.half_open) - self.limits.half_open)]:
            if now_s - since_s > _SLOW_S:
                connection.cut_off("half open")


def _decrease(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if counter[name] <= 0:
        del counter[name]


class GuardedConnection(ServerConnection):
    """A connection that ends itself when its peer breaks a limit. Made by `serve(create_connection=...)`."""

    def __init__(self, doorkeeper: Doorkeeper, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.group = ""
        self.is_loopback = False
        self.inside_as: str | None = None
        """The group it is counted in as a WebSocket."""
        self.peer: Peer | None = None
        """Who it is, once let in."""
        self._doorkeeper = doorkeeper
        self._limits = doorkeeper.limits
        self._is_half_open = True
        self._handshake_bytes = 0
        self._fragments = 0
        self._control_frames = 0
        self._control_since_s = 0.0
        self._message_since_s: float | None = None
        self._message_bytes = 0
        self._unread_bytes: deque[int] = deque()
        """Sizes of the complete messages that wait to be read."""
        self._blocked_since_s: float | None = None
        self._closing_since_s: float | None = None

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Put a text frame into the send buffer without waiting; False if the connection is not open."""
        if self.protocol.state is not OPEN or self.transport.is_closing():
            return False
        self.protocol.send_text(data)
        self.send_data()
        if self.transport.get_write_buffer_size() > self._limits.write_buffer_abort:
            self.cut_off("write buffer")
            return False
        return True

    async def write_and_wait(self, data: bytes) -> bool:
        """As `write`, then wait while the peer reads too slowly."""
        if not self.write(data):
            return False
        if self.paused:
            await self.wait_writable()
        return True

    async def wait_writable(self) -> None:
        """Wait while the peer reads too slowly; a reader slower than `send_s` is cut off by the tick.

        Costs no timer: it stands in every token's way.
        """
        if not self.paused:
            return
        if self._blocked_since_s is None:
            self._blocked_since_s = self.loop.time()
            self._doorkeeper.watched.add(self)
        try:
            await self.drain()
        except OSError:
            pass  # the connection broke while we waited: the next write says so
        finally:
            self._blocked_since_s = None

    def cut_off(self, why: str) -> None:
        """End the connection now, without a closing handshake."""
        if not self.transport.is_closing():
            self._doorkeeper.refuse(why)
            log.debug("connection cut off: %s", why)
        self.transport.abort()

    # --- reading ----------------------------------------------------------------------------------------------------

    async def next_message(self) -> str | bytes:
        """The next message, whole. Raises ConnectionClosed."""
        message = await self.recv()
        if self._unread_bytes:
            self._unread_bytes.popleft()
        return message

    # --- watching ---------------------------------------------------------------------------------------------------

    @property
    def unfinished_bytes(self) -> int:
        """Bytes held of messages that are not complete, or not read yet."""
        return self._incomplete_bytes + sum(self._unread_bytes)

    @property
    def _incomplete_bytes(self) -> int:
        return len(self.protocol.reader.buffer) + (self.protocol.current_size or 0)

    def check_times(self, now_s: float) -> None:
        """Called often while it is watched; it no longer is once nothing is due."""
        if self._closing_since_s is not None:
            if now_s - self._closing_since_s > self._limits.close_s:
                self.transport.abort()
        elif self._blocked_since_s is not None and now_s - self._blocked_since_s > self._limits.send_s:
            self.cut_off("slow reader")
        elif self._is_resting:
            if self._message_since_s is not None:
                self._message_since_s = now_s  # it is we who do not read: the message is not slow
        elif self._message_since_s is not None and now_s - self._message_since_s > self._limits.message_s:
            self.protocol.fail(1008, "the message took too long")
            self.send_data()
            self.cut_off_soon("slow message")
        elif self._message_since_s is None and not self._unread_bytes:
            self._doorkeeper.watched.discard(self)

    @property
    def _is_resting(self) -> bool:
        """Whether nothing is read from the socket now: its client reads too slowly, or its last messages wait still."""
        return self._blocked_since_s is not None or self.recv_messages.paused

    def cut_off_soon(self, why: str) -> None:
        """End the connection once what is written has been sent; the peer's answer is not waited for."""
        self._doorkeeper.refuse(why)
        self._closing_since_s = self.loop.time()
        self._doorkeeper.watched.add(self)
        self.transport.close()

    # --- asyncio's callbacks ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, then let websockets have it."""
        may_stay = self.count(transport)
        self.made(transport)
        if not may_stay:
            self.cut_off("too many")

    def made(self, transport: asyncio.BaseTransport) -> None:
        """Let websockets have it."""
        super().connection_made(transport)

    def count(self, transport: asyncio.BaseTransport) -> bool:
        """Learn the peer's address and count the connection; False if there are too many."""
        name = transport.get_extra_info("peername")
        address = str(name[0]) if isinstance(name, tuple) and name else ""
        self.group, self.is_loopback = group_of(address), is_loopback(address)
        return self._doorkeeper.enter(self, self.loop.time())

    def data_received(self, data: bytes) -> None:
        """Watch what came before and after websockets has read it."""
        if self.request is None and self._answer_method(data):
            return
        super().data_received(data)
        if self._is_half_open:
            self._check_handshake(len(data))
        elif self._incomplete_bytes == 0:
            self._message_since_s = None
        elif self._message_since_s is None:
            self._message_since_s = self.loop.time()
            self._doorkeeper.watched.add(self)
        if self.transport.get_write_buffer_size() > self._limits.write_buffer_abort:
            self.cut_off("write buffer")

    def _answer_method(self, data: bytes) -> bool:
        """websockets reads a request with a body as malformed; say plainly that only GET is served."""
        if self._handshake_bytes or data.split(b" ", 1)[0] not in _METHODS:
            return False
        self.transport.write(_NOT_ALLOWED)
        self.cut_off_soon("method")
        return True

    def _check_handshake(self, size: int) -> None:
        self._handshake_bytes += size
        if self.request is not None:
            self._is_half_open = False
            self._doorkeeper.headers_read(self)
        elif self._handshake_bytes > self._limits.handshake_bytes and self.protocol.state is CONNECTING:
            self.cut_off("handshake size")

    def process_event(self, event: Event) -> None:
        """Count fragments and control frames on their way."""
        if isinstance(event, Frame):
            if self.transport.is_closing():
                return
            if event.opcode in _DATA:
                self._count_message(event)
                self._fragments = 0 if event.fin else self._fragments + 1
                if self._fragments > self._limits.fragments:
                    self.protocol.fail(1008, "too many fragments")
                    self.send_data()
                    self.cut_off_soon("fragments")
                    return
            elif self._is_flood_of_control_frames():
                self.cut_off("control frames")
                return
        super().process_event(event)

    def _count_message(self, frame: Frame) -> None:
        self._message_bytes += len(frame.data)
        if frame.fin:
            self._unread_bytes.append(self._message_bytes)
            if self._message_bytes > self._limits.partial_share:
                self._doorkeeper.watched.add(self)
            self._message_bytes = 0

    def _is_flood_of_control_frames(self) -> bool:
        now_s = self.loop.time()
        if now_s - self._control_since_s >= 1.0:
            self._control_since_s, self._control_frames = now_s, 0
        self._control_frames += 1
        return self._control_frames > self._limits.control_frames_per_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Uncount it."""
        self._doorkeeper.leave(self)
        super().connection_lost(exc)
