"""Whose a job is while sessions use it. Pure."""

from __future__ import annotations

from fabstir_desktop.server.session import Peer, Session


class JobPins:
    """A job is pinned to the client that first used it, for as long as a session of that client uses it.

    What outlasts the sessions stands in the ledger, and is judged at admission.
    """

    def __init__(self) -> None:
        self._pins: dict[int, tuple[str, set[Session]]] = {}

    def __len__(self) -> int:
        return len(self._pins)

    def is_anothers(self, job_id: int | None, peer: Peer) -> bool:
        """Whether another client than this one has the job."""
        pin = self._pins.get(job_id) if job_id is not None else None
        return pin is not None and pin[0] != peer.identity

    def take(self, job_id: int, peer: Peer, session: Session) -> bool:
        """Pin the job to the peer while the session lives; False if another has it."""
        if self.is_anothers(job_id, peer):
            return False
        _, sessions = self._pins.setdefault(job_id, (peer.identity, set()))
        sessions.add(session)
        session.jobs.add(job_id)
        return True

    def release(self, session: Session) -> None:
        """The session is over: its jobs are free unless another session of the client uses them."""
        for job_id in session.jobs:
            _, sessions = self._pins[job_id]
            sessions.discard(session)
            if not sessions:
                del self._pins[job_id]
