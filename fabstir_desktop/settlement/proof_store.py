"""Make proofs from the ledger's transcript, keep their files, and sign them; the heavy parts off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fabstir_desktop.errors import LedgerError
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.ledger import Ledger, TranscriptSegment
from fabstir_desktop.settlement.proof import ProofRecord, join_proof, make_record, store_proof, transcript_file
from fabstir_desktop.wallet.signer import Signer


@dataclass(frozen=True, slots=True)
class SignedProof:
    """A record and its 97 bytes."""

    record: ProofRecord
    proof: bytes


class ProofStore:
    """Proofs of one venue, kept in a folder."""

    def __init__(self, ledger: Ledger, venue: Venue, folder: Path, answer_start: Callable[[int], int | None]) -> None:
        self._ledger = ledger
        self._venue = venue
        self._folder = folder
        self._answer_start = answer_start

    async def make(self, job_id: int, start: int, end: int, signer: Signer) -> SignedProof:
        """The proof of a range; its files are on disk when this returns. Raises LedgerError, SignerLocked."""
        segments = await self._ledger.transcript(job_id, start, end)
        earlier = await self._earlier(job_id, start, segments)
        previous = await self._ledger.last_proof_hash(job_id, before=start)
        loop = asyncio.get_running_loop()
        record = await loop.run_in_executor(
            None,
            lambda: make_record(
                self._venue,
                host=signer.address,
                job_id=job_id,
                start=start,
                end=end,
                segments=segments,
                previous=previous,
            ),
        )
        signature = await signer.sign_proof(record.proof_hash, record.tokens)
        proof = join_proof(record.proof_hash, signature)
        try:
            await loop.run_in_executor(
                None, lambda: store_proof(self._folder, record, transcript_file(segments, proof, earlier))
            )
        except OSError as error:
            raise LedgerError(f"the proof record cannot be stored in {self._folder}: {error.strerror}") from error
        return SignedProof(record, proof)

    async def _earlier(self, job_id: int, start: int, segments: Sequence[TranscriptSegment]) -> dict[int, list[int]]:
        """Tokens that answers of this claim had before it: who runs the model again must begin at the answer's beginning.

        They are in earlier claims and not part of this record; the companion file repeats them.
        """
        answers = {segment.ticket_id for segment in segments}
        starts = [self._answer_start(ticket_id) for ticket_id in answers]
        first = min((0 if place is None else place for place in starts), default=start)
        if first >= start:
            return {}
        earlier: dict[int, list[int]] = {}
        for segment in await self._ledger.transcript(job_id, first, start):
            if segment.ticket_id in answers:
                earlier.setdefault(segment.ticket_id, []).extend(segment.token_ids)
        return earlier
