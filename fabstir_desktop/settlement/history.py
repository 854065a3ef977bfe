"""Transactions of the host's key that this ledger does not know, and the claims they made.

A nonce below the chain's count that no stored transaction has was used by another program with the key, by another machine,
or by this very folder before an old backup of it was restored. Claims among those transactions may be over tokens that the
ledger thinks unclaimed. They are looked for before anything new is signed: in the contract's events where it has them,
otherwise in the blocks in which the nonces were used. What cannot be read is not guessed: jobs whose tokens may be among
them are held until it can be read, or the host says twice that they shall be claimed.

Not found are claims that wait unmined in a pool; they meet this ledger's own at their nonce, see the reconciler. The search
begins a day before the oldest unclaimed token was made, by this computer's clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from fabstir_desktop.errors import RpcRefused, RpcUnreachable
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import ClaimState
from fabstir_desktop.jobs.events import JobChanged
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.attribution import Attribution
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts.base import SettlementContract
from fabstir_desktop.settlement.nonces import NonceBook
from fabstir_desktop.settlement.past import Found, PastReader, Unreadable

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 60.0
CONSENT_S = 600.0
FAILURES_ALLOWED = 5
"""So often an RPC may fail to answer before its history counts as unreadable, and jobs not concerned go on."""
ADVICE = "Use one data folder and one machine for each key."


class History:
    """Compares one sender's nonces with the chain. Belongs to one manager."""

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        contract: SettlementContract,
        attribution: Attribution,
        book: NonceBook,
        board: ProblemBoard,
        feed: Feed,
        *,
        host: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._attribution = attribution
        self._book = book
        self._board = board
        self._feed = feed
        self._host = host
        self._clock = clock
        self._past = PastReader(client, contract, host)
        self._examined = 0
        self._failures = 0
        self._look_at = 0.0
        self._unresolved: list[Found] = []
        """Landed claims that are the same as one that still owns a nonce here: they count once that nonce is free."""
        self._held: dict[int, str] = {}
        self._asked: dict[int, float] = {}

    # --- jobs that are held -----------------------------------------------------------------------------------------

    def check(self, job_id: int) -> None:
        """Raises ClaimWaits if it is unknown whether tokens of the job were claimed before."""
        if job_id in self._held:
            raise ClaimWaits(self._held[job_id], retry_s=LOOK_AGAIN_S)

    def consent(self, job_id: int) -> None:
        """The host asks for this very job: the second time within ten minutes it is released, the first time told why."""
        if job_id not in self._held:
            return
        asked_at, self._asked[job_id] = self._asked.get(job_id), self._clock()
        if asked_at is not None and self._clock() - asked_at < CONSENT_S:
            log.warning("Job %d is claimed because the host asked for it: %s", job_id, self._held.pop(job_id))
            self._board.clear("J03", subject=str(job_id))

    # --- the search -------------------------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether something waits that could be resolved now."""
        return bool(self._unresolved) or (bool(self._held) and self._clock() >= self._look_at)

    async def catch_up(self, lock_of: Callable[[int], asyncio.Lock], suspects: Sequence[int]) -> None:
        """Take in what landed without this ledger. `suspects` are jobs whose unclaimed tokens may be among it.

        Raises ChainError (try again: nothing new is signed before), LedgerError.
        """
        count = await self._client.transaction_count(self._host)
        missing = await self._ledger.unknown_nonces(self._host, count)
        missing = [range(max(one.start, self._examined), one.stop) for one in missing if one.stop > self._examined]
        if missing and suspects:
            try:
                found = await self._find(missing)
            except Unreadable as unreadable:
                self._hold_all(suspects, missing, str(unreadable))
                self._book.examined_nonces = max(self._book.examined_nonces, count)
                return
            self._unresolved += [one for one in found if one not in self._unresolved]
        await self._take_in(lock_of)
        for job_id in tuple(self._held):
            self.release(job_id)
        if suspects or not missing:  # else nothing was looked at: a claim that is freed later may be among them
            self._examined = max(self._examined, count)
        self._book.examined_nonces = max(self._book.examined_nonces, count)

    async def _find(self, missing: list[range]) -> list[Found]:
        """Claims at those nonces. Raises Unreadable, RpcUnreachable."""
        since = await self._ledger.unclaimed_since()
        try:
            found = await self._past.claims_since(0.0 if since is None else since, missing)
        except RpcRefused as error:
            raise Unreadable(f"the RPC cannot tell ({error})") from error
        except RpcUnreachable as error:
            self._failures += 1
            if self._failures < FAILURES_ALLOWED:
                raise
            raise Unreadable(f"the RPC does not answer ({error})") from error
        self._failures = 0
        return found

    async def _take_in(self, lock_of: Callable[[int], asyncio.Lock]) -> None:
        still = []
        for found in self._unresolved:
            async with lock_of(found.claim.job_id):
                if not await self._absorb(found):
                    still.append(found)
        self._unresolved = still

    async def _absorb(self, found: Found) -> bool:
        """Give a landed claim its tokens; False while the ledger has it under a nonce that is not yet decided."""
        claim = found.claim
        state = await self._ledger.proof_state(claim.job_id, claim.proof_hash)
        if state in {ClaimState.BOUND, ClaimState.REOPENED, ClaimState.INCLUDED}:
            return False
        if state not in {None, ClaimState.PLANNED, ClaimState.HELD}:
            return True
        landed = await self._attribution.judge(self._host, claim, found.tx_hash)
        if landed is None:
            return True
        await self._ledger.absorb(landed)
        log.warning("Job %d: %d tokens are on chain by %s", landed.job_id, landed.tokens, landed.note)
        which = "those" if landed.is_exact else "perhaps not those"
        message = (
            f"Job {landed.job_id}: {landed.tokens} tokens were claimed elsewhere, by transaction 0x{found.tx_hash.hex()}, which "
            f"is not in this data folder ({which} counted here). They are not claimed again."
        )
        self._board.report(problem("J03", message, subject=str(landed.job_id), advice=ADVICE))
        self._feed.publish(JobChanged(landed.job_id))
        return True

    # --- what cannot be read ----------------------------------------------------------------------------------------

    def _hold_all(self, jobs: Sequence[int], missing: list[range], why: str) -> None:
        unknown = sum(len(one) for one in missing)
        for job_id in jobs:
            text = "transactions of your key are not in this data folder, and what they claimed cannot be read"
            self.hold(job_id, f"{unknown} {text}: {why}")

    def hold(self, job_id: int, why: str) -> None:
        """Claim nothing of the job until what is in doubt could be looked at, or the host asks for it twice."""
        self._look_at = self._clock() + LOOK_AGAIN_S
        self._held[job_id] = why
        message = f"Job {job_id}: {why}. Its tokens are held back, for they may have been paid already."
        advice = "Set RPCs that keep history. If you are sure that they were not claimed, claim this job twice by hand."
        self._board.raise_(problem("J03", message, subject=str(job_id), advice=advice))

    def release(self, job_id: int) -> None:
        """What was in doubt is known."""
        if self._held.pop(job_id, None) is not None:
            self._board.clear("J03", subject=str(job_id))
