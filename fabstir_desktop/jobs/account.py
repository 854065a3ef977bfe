"""The account of one job: what was generated, and how far up the ladder it came."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobAccount:
    """Token counts of one job, all since its first token.

    `claimed` counts tokens in claims that own a signed transaction, `proven` those mined deep enough, `settled` those the
    contract has credited, `written_off` those that can never be paid, `reserved` those in a claim not yet signed.
    """

    job_id: int
    session_id: str
    generated: int
    claimed: int
    proven: int
    settled: int
    written_off: int
    reserved: int
    open_claims: int
    """Claims on their way (planned, bound, held, reopened, included)."""
    next_start: int
    """The lowest token position that no live claim covers."""
    session_open: bool
    updated_at: float
    next_end: int | None = None
    """Where the next live claim behind `next_start` begins; None: nothing lies behind. A void claim leaves such a gap."""

    @property
    def unclaimed(self) -> int:
        """Tokens in no sent claim and not written off."""
        return self.generated - self.claimed - self.written_off

    @property
    def uncovered(self) -> int:
        """Tokens in no claim at all."""
        return self.generated - self.claimed - self.written_off - self.reserved

    @property
    def claimable(self) -> int:
        """Tokens that the next claim could take: the uncovered ones, or where a void claim left a gap, those of the gap."""
        return self.uncovered if self.next_end is None else min(self.uncovered, self.next_end - self.next_start)
