"""Which tokens of this ledger a claim took that landed on chain without it: exactly its own, or possibly some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from fabstir_desktop.jobs.claims import WAITING_STATES, Claim
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.landed import LandedClaim, own_tokens_begin
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.contracts.base import DecodedClaim, SettlementContract
from fabstir_desktop.settlement.proof import make_record


class Attribution:
    """Judges claims found on chain against the ledger of one venue. `opening` has the tokens that each job had when the
    folder was opened: what came later is in no claim of a lost history."""

    def __init__(self, ledger: Ledger, contract: SettlementContract, venue: Venue, opening: Mapping[int, int]) -> None:
        self._ledger = ledger
        self._contract = contract
        self._venue = venue
        self._opening = opening

    def at_opening(self, job_id: int) -> int:
        """The job's tokens when the folder was opened."""
        return self._opening.get(job_id, 0)

    async def judge(
        self, host: str, seen: DecodedClaim, tx_hash: bytes, *, freed: Collection[Claim] = ()
    ) -> LandedClaim | None:
        """What the claim took; None if that is surely no token of this ledger. Raises LedgerError.

        `freed` are claims whose nonce that transaction spent. A proof is a pure function of range and transcript, so an
        equal hash tells that the claim is over exactly the tokens that this ledger would claim next.
        """
        account = await self._ledger.account(seen.job_id)
        if account is None:
            return None
        waiting = [one for one in freed if one.job_id == seen.job_id]
        waiting += await self._ledger.claims(job_id=seen.job_id, states=WAITING_STATES)
        start = min([account.next_start, *(one.start for one in waiting)])
        is_exact = any(one.proof_hash == seen.proof_hash and one.start == start for one in waiting)
        is_exact = is_exact or await self._is_next(host, seen, start)
        if not is_exact and start >= self.at_opening(seen.job_id):
            return None  # every token that is unclaimed was made since: another machine was paid for its own
        own_from = own_tokens_begin(
            replace(account, next_start=start),
            seen.tokens,
            at_opening=self.at_opening(seen.job_id),
            is_exact=is_exact,
            minimum_tokens=self._contract.rules.minimum_tokens,
        )
        whose = "this folder's own claim" if is_exact else "a claim that this folder does not know"
        note = f"{whose}, in transaction 0x{tx_hash.hex()}"
        return LandedClaim(seen.job_id, seen.tokens, seen.proof_hash, tx_hash, note, own_from, is_exact)

    async def _is_next(self, host: str, seen: DecodedClaim, start: int) -> bool:
        end = start + seen.tokens
        segments = await self._ledger.transcript(seen.job_id, start, end)
        previous = await self._ledger.last_proof_hash(seen.job_id, before=start)
        venue = self._venue

        def is_equal() -> bool:
            try:
                record = make_record(
                    venue, host=host, job_id=seen.job_id, start=start, end=end, segments=segments, previous=previous
                )
            except ValueError:  # the ledger has fewer tokens
                return False
            return record.proof_hash == seen.proof_hash

        return await asyncio.get_running_loop().run_in_executor(None, is_equal)
