"""Who runs and who waits before an engine elsewhere: never more than `parallel` at once, whatever is cancelled when. No IO."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp

from fabstir_desktop.errors import GenerationError, InvalidGenerationRequest
from fabstir_desktop.inference.line import Waiting, WaitingLine
from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.jobs.generation import GenerationRequest


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way. `turn` is done when it may run, or holds why it may not; `ending` is done once it is to end."""

    request: GenerationRequest
    turn: asyncio.Future[None]
    ending: asyncio.Future[None]
    place: Waiting | None = None
    has_stream: bool = False
    response: aiohttp.ClientResponse | None = None

    @property
    def is_ended(self) -> bool:
        """Whether it was cancelled or the engine stops."""
        return self.ending.done()

    def end(self) -> None:
        """Let go of whatever it waits for, and close its connection."""
        if not self.ending.done():
            self.ending.set_result(None)
        if not self.turn.done():
            self.turn.set_result(None)
        if self.response is not None:
            self.response.close()

    def refuse(self, error: GenerationError) -> None:
        """Tell the one who waits why it cannot run; nothing if it was told before."""
        if not self.turn.done():
            self.turn.set_exception(error)


class Turns:
    """A stream is given to a call in `_dispatch` alone and given back in `leave` alone. To be used on one loop."""

    def __init__(self, limits: EngineLimits, parallel: int) -> None:
        self.parallel = parallel
        self._line = WaitingLine(limits)
        self._calls: dict[str, Call] = {}

    @property
    def active(self) -> int:
        """Calls that have a stream."""
        return sum(call.has_stream for call in self._calls.values())

    @property
    def waiting(self) -> int:
        """Calls in the line."""
        return len(self._line)

    def calls(self) -> list[Call]:
        """All of them."""
        return list(self._calls.values())

    def enter(self, request: GenerationRequest, now_s: float) -> Call:
        """Take a stream, or a place in the line. Raises EngineBusy, and InvalidGenerationRequest for an id in use."""
        if request.request_id in self._calls:
            raise InvalidGenerationRequest("a request of this id is running")
        loop = asyncio.get_running_loop()
        call = Call(request, loop.create_future(), loop.create_future())
        if self.active < self.parallel and not len(self._line):
            call.has_stream = True
            call.turn.set_result(None)
        else:
            call.place = self._line.enter(request, now_s)
        self._calls[request.request_id] = call
        return call

    def leave(self, call: Call) -> None:
        """The call is over, however it ended: give back what it has."""
        call.end()
        if not call.turn.cancelled():
            call.turn.exception()  # looked at, also where its waiter was cancelled before it was told
        if self._calls.get(call.request.request_id) is call:
            del self._calls[call.request.request_id]
        if call.place is not None:
            self._line.leave(call.place)
        self._dispatch()

    def cancel(self, request_id: str) -> bool:
        """End the call; False if there is none of this id."""
        call = self._calls.get(request_id)
        if call is None:
            return False
        if call.place is not None:
            self._line.leave(call.place)
        call.end()
        return True

    def refuse_overdue(self, now_s: float) -> None:
        """Tell those who waited too long."""
        for entry, error in self._line.overdue(now_s):
            self._calls[entry.request.request_id].refuse(error)

    def refuse_waiting(self, error: GenerationError) -> None:
        """Tell all who wait."""
        for entry in self._line.clear():
            self._calls[entry.request.request_id].refuse(error)

    def _dispatch(self) -> None:
        while self.active < self.parallel:
            running = [call.request.job_key for call in self._calls.values() if call.has_stream]
            entry = self._line.next(running)
            if entry is None:
                return
            call = self._calls[entry.request.request_id]
            call.has_stream = True
            if not call.turn.done():  # a task that was just cancelled gives its stream back when it leaves
                call.turn.set_result(None)
