"""What the ledger answers beside the domain's own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TranscriptSegment:
    """Consecutive tokens of one answer inside a job: `start` is the job position of the first of `token_ids`."""

    ticket_id: int
    start: int
    token_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    parameters: str
    """Canonical JSON of sampling parameters, seed and max_tokens."""
    model_sha256: str
