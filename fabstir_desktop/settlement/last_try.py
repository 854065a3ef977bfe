"""The last question before a session is closed: is there still something to be claimed in it?"""

from __future__ import annotations

from fabstir_desktop.errors import CallReverted
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.claims import WAITING_STATES
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.contracts.base import JobFacts, RefusalKind, SettlementContract
from fabstir_desktop.settlement.proof_store import ProofStore
from fabstir_desktop.wallet.signer import Signer


class LastTry:
    """Asks the contract whether what is unproven in a job can still be claimed, before its session is closed."""

    def __init__(self, ledger: Ledger, contract: SettlementContract, proofs: ProofStore, signer: Signer) -> None:
        self._ledger = ledger
        self._contract = contract
        self._proofs = proofs
        self._signer = signer

    async def may_be_claimed(self, account: JobAccount, facts: JobFacts) -> bool:
        """Whether the contract would take a claim, or refuses it for a cause that may pass.

        Raises ChainError, LedgerError, SignerLocked.
        """
        for claim in await self._ledger.claims(job_id=account.job_id, states=WAITING_STATES):
            return await self._is_taken(claim.calldata)
        tokens = min(account.claimable, facts.remaining_tokens)
        if tokens < max(1, self._contract.rules.minimum_tokens, facts.first_claim_minimum):
            return False
        start = account.next_start
        made = await self._proofs.make(account.job_id, start, start + tokens, self._signer)
        return await self._is_taken(self._contract.encode_claim(account.job_id, tokens, made.proof))

    async def _is_taken(self, calldata: bytes) -> bool:
        try:
            await self._contract.simulate(self._signer.address, calldata)
        except CallReverted as error:
            return self._contract.explain(error.reason).kind is not RefusalKind.CLOSED
        return True
