"""The words in which the server has a job checked and its tokens counted; settlement implements them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fabstir_desktop.jobs.generation import Accepted, FinishReason, GenerationRequest


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to generate for a job. `allowed_tokens` caps the answer (deposit, backlog); None: no cap but the request's."""

    ticket_id: int
    job_id: int
    session_id: str
    allowed_tokens: int | None


class Accountant(Protocol):
    """Admits prompts to jobs and counts every token before it is sent."""

    async def admit(self, job_id: int, session_id: str, client: str, max_tokens: int) -> Ticket:
        """Check the job on chain (simulated claim) and reserve tokens. Raises AdmissionRefused or LedgerError."""
        ...

    async def begin(self, ticket: Ticket, request: GenerationRequest, accepted: Accepted) -> None:
        """Store what the answer is generated from, before its first token."""
        ...

    async def record(self, ticket: Ticket, token_ids: Sequence[int]) -> int:
        """Store the tokens; returns the job's new total once they are in the ledger. Only then may their frame leave.

        Raises LedgerError, or AdmissionRefused where the job has ended meanwhile: then nothing was stored, the frame must
        not leave and the request ends with an error.
        """
        ...

    async def finish(self, ticket: Ticket, finish_reason: FinishReason) -> None:
        """Close the ticket and release what it reserved. Safe to call twice; never raises for a closed ticket."""
        ...

    async def end_session(self, session_id: str) -> None:
        """The session is over: whatever its jobs have unclaimed is claimed."""
        ...
