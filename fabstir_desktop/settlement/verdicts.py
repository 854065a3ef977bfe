"""What a reverted or lost claim means: why, and whether its tokens may go into another transaction."""

from __future__ import annotations

from collections.abc import Sequence

from fabstir_desktop.errors import CallReverted, ChainError, RpcUnreachable
from fabstir_desktop.jobs.claims import Claim, ClaimState, Slot
from fabstir_desktop.jobs.landed import LandedClaim
from fabstir_desktop.settlement.agreement import agreeing
from fabstir_desktop.settlement.chain_client import BlockRef, ChainClient
from fabstir_desktop.settlement.contracts.base import Refusal, RefusalKind, SettlementContract

OUTCOMES: dict[RefusalKind, ClaimState] = {
    RefusalKind.CLOSED: ClaimState.WRITTEN_OFF,
    RefusalKind.REPLAYED: ClaimState.VOID,
    RefusalKind.DEPOSIT: ClaimState.VOID,
}
"""What becomes of a claim that was mined and reverted. Other kinds are held: tried again with the same range and the same
proof, so that a contract which knows the proof refuses the second copy whatever a reorganisation brings back."""


async def is_closed_for_good(client: ChainClient, contract: SettlementContract, job_id: int) -> bool:
    """Whether the job was closed in a block that will not be reorganised, by more than one endpoint's word."""
    try:
        settled = await client.settled_number("safe", await client.head())
        with agreeing():
            facts = await contract.read_job(job_id, settled)
    except ChainError:  # no such state at that depth, no answer, or no agreement: not for sure
        return False
    return facts is not None and facts.exists and not facts.is_open


class Verdicts:
    """Judges claims of one contract. Every method raises ChainError."""

    def __init__(self, client: ChainClient, contract: SettlementContract) -> None:
        self._client = client
        self._contract = contract

    async def revert_reason(self, claim: Claim, slot: Slot) -> Refusal:
        """Why it was reverted. Asks the block before the one it was mined in: nearly the state it met."""
        before = max(0, (slot.block_number or 1) - 1)
        try:
            await self._client.call(self._contract.address, claim.calldata, sender=claim.host, which=before)
        except CallReverted as error:
            return self._contract.explain(error.reason)
        except ChainError:
            pass
        try:
            await self._contract.simulate(claim.host, claim.calldata)
        except CallReverted as error:
            return self._contract.explain(error.reason)
        return Refusal(RefusalKind.TOO_FAST, "it ran out of gas or met another state of the job; it is claimed anew")

    async def follow(self, refusal: Refusal, claims: Sequence[Claim]) -> tuple[Refusal, ClaimState]:
        """What becomes of the claims, and the refusal that may be believed: giving tokens up, or taking them for paid, needs
        agreement."""
        if refusal.kind is RefusalKind.REPLAYED and not await self._are_on_chain(claims):
            refusal = Refusal(RefusalKind.UNKNOWN, refusal.plain)  # the contract says so, and does not know the proof
        outcome = OUTCOMES.get(refusal.kind, ClaimState.HELD)
        if outcome is ClaimState.WRITTEN_OFF and not await self._is_given_up(claims):
            outcome = ClaimState.HELD
        return refusal, outcome

    async def may_move_on(
        self, slot: Slot, claims: Sequence[Claim], outcome: ClaimState, kind: RefusalKind, head: BlockRef
    ) -> bool:
        """Whether the tokens may go into another transaction: a reorganisation could run the reverted one again, and well.

        At once where nothing new follows (written off, landed elsewhere) or the contract refuses the same proof twice;
        else only when the revert cannot be undone.
        """
        if outcome is ClaimState.WRITTEN_OFF or kind is RefusalKind.REPLAYED:
            return True
        guarded = await self.replay_is_refused(claims)
        if outcome is ClaimState.HELD and guarded:
            return True
        settled = await self._client.settled_number("safe" if guarded else "finalized", head)
        return slot.block_number is not None and slot.block_number <= settled

    async def _is_given_up(self, claims: Sequence[Claim]) -> bool:
        """Whether a refusal that speaks of ended jobs may be believed: every job of the claims is ended, by agreement.

        A session past its window is refused too, and is open until somebody closes it. True where it cannot be asked.
        """
        with agreeing():
            jobs = [await self._contract.read_job(claim.job_id) for claim in claims]
        return all(facts is None or not facts.is_open for facts in jobs)

    async def _are_on_chain(self, claims: Sequence[Claim]) -> bool:
        """Whether the contract has all of these proofs; one that cannot be asked says nothing."""
        with agreeing():
            used = [await self._contract.is_proof_used(claim.host, claim.proof_hash) for claim in claims]
        return all(one is True for one in used)

    async def landed_of(self, claims: Sequence[Claim], note: str) -> list[LandedClaim]:
        """Those of the claims whose proof the contract has, in a block that will not be reorganised and by agreement.

        Raises RpcUnreachable also where the contract cannot be asked at that depth.
        """
        landed = []
        with agreeing():
            for claim in claims:
                used = await self._contract.is_proof_used(claim.host, claim.proof_hash, "safe")
                if used is None:
                    raise RpcUnreachable("the contract cannot be asked about an earlier block")
                if used:
                    job_id, proof = claim.job_id, claim.proof_hash
                    landed.append(LandedClaim(job_id, claim.tokens, proof, proof, note, claim.end, is_exact=True))
        return landed

    async def replay_is_refused(self, claims: Sequence[Claim]) -> bool:
        """Whether the contract itself would refuse a second copy of the claims."""
        for claim in claims:
            if await self._contract.is_proof_used(claim.host, claim.proof_hash) is None:
                return False
        return True
