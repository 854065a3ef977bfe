"""Whether clients are let in, sessions opened and prompts taken: paused, finishing its jobs, or stopping. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fabstir_desktop.server.actions import Refusal
from fabstir_desktop.server.session import Session, SessionKey

RETRY_AFTER_S = 30
PAUSED = "the host has paused serving"
FINISHING = "the host finishes its jobs and takes no new ones"
STOPPING = "the host is stopping"


class Openness:
    """What the host has chosen; stopping is for ever."""

    def __init__(self, sessions: Mapping[SessionKey, Session]) -> None:
        """`sessions` are those that are not over, kept up to date by their owner."""
        self._sessions = sessions
        self._refusal: str | None = None
        self._is_finishing = False

    def pause(self) -> None:
        """Take no prompt; those that run go on."""
        self._refusal = self._refusal or PAUSED

    def finish_jobs(self) -> None:
        """Open no session; those that are open go on until they are over."""
        self._is_finishing = True

    def resume(self) -> None:
        """Take everything again, unless the host stops."""
        self._is_finishing = False
        if self._refusal == PAUSED:
            self._refusal = None

    def stop(self) -> None:
        """Take nothing any more."""
        self._refusal = STOPPING

    @property
    def closed_door(self) -> str | None:
        """Why no connection is let in now. None: they are, also while the client of an open session may come back."""
        if self._refusal is not None or not self._is_finishing:
            return self._refusal
        is_awaited = any(session.deserted_at_s is not None for session in self._sessions.values())
        return None if is_awaited else FINISHING

    def check_prompt(self) -> None:
        """Raises Refusal where no prompt is taken."""
        if self._refusal is not None:
            raise Refusal("SHUTTING_DOWN", self._refusal, retry_after_s=RETRY_AFTER_S)

    def check_new_session(self) -> None:
        """Raises Refusal where no session is opened."""
        if self._is_finishing:
            raise Refusal("BUSY", FINISHING, retry_after_s=RETRY_AFTER_S)
