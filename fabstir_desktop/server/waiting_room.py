"""Who may wait behind an earlier prompt of the same session: the queue's bounds hold there as in the engine's line. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fabstir_desktop.server.actions import Refusal, Reply
from fabstir_desktop.server.frames import ReplyWriter
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.server.session import Peer, PromptRequest, Session

RETRY_S = 5
"""When to come back, as told to whom is refused."""


class WaitingRoom:
    """The prompts that wait in their sessions, in the order they came."""

    def __init__(self, limits: Limits) -> None:
        self.queued: Callable[[], int] = lambda: 0
        """Tells how many more wait in the engine's line."""
        self._limits = limits
        self._since_s: dict[PromptRequest, float] = {}

    def __len__(self) -> int:
        return len(self._since_s)

    def check(self, session: Session, job_id: int | None, peer: Peer, live: Iterable[PromptRequest]) -> None:
        """Raises Refusal, with the place the prompt would have had, if there is no room for it. `live`: all that run or wait."""
        limits = self._limits
        same_peer = 0 if peer.is_loopback else sum(other.peer.group == peer.group for other in live)
        if same_peer >= limits.prompts_per_address:
            raise self.busy("too many prompts from your address at the same time")
        if len(session.waiting) >= limits.prompts_waiting_per_session:
            raise self.busy(f"{len(session.waiting)} prompts of this session wait already")
        if session.running is None:
            return  # it does not wait here
        if len(self) + self.queued() >= limits.prompts_waiting:
            raise self.busy("too many prompts wait already")
        same_job = sum(1 for other in self._since_s if other.job_id == job_id and other.session is not session)
        if job_id is not None and same_job >= limits.prompts_waiting_per_job:
            raise self.busy(f"{same_job} prompts of this job wait already in other sessions")
        same_address = sum(1 for other in self._since_s if other.peer.group == peer.group)
        if not peer.is_loopback and same_address >= limits.prompts_waiting_per_address:
            raise self.busy(f"{same_address} prompts from your address wait already")

    def enter(self, request: PromptRequest, now_s: float) -> None:
        """The request waits from now on."""
        self._since_s[request] = now_s

    def leave(self, request: PromptRequest) -> None:
        """The request waits no more; nothing happens if it did not."""
        self._since_s.pop(request, None)

    def overdue(self, now_s: float) -> list[tuple[PromptRequest, Reply]]:
        """Take out who has waited too long, each with what to tell its client."""
        limit_s = self._limits.prompts_waiting_s
        late = [
            (request, self.busy(f"its turn did not come in {limit_s:g} s", place))
            for place, (request, since_s) in enumerate(self._since_s.items(), 1)
            if now_s - since_s >= limit_s
        ]
        replies = []
        for request, refusal in late:
            self.leave(request)
            writer = ReplyWriter(request.prompt.request_id, request.reply_session_id)
            frame = writer.error(refusal.code, str(refusal), **refusal.further)
            replies.append((request, Reply(request.socket_id, frame)))
        return replies

    def busy(self, message: str, position: int | None = None) -> Refusal:
        """A refusal that names the place: the given one, else the one behind all who wait."""
        place = len(self) + self.queued() + 1 if position is None else position
        return Refusal("BUSY", f"{message} (position {place})", position=place, retry_after_s=RETRY_S)
