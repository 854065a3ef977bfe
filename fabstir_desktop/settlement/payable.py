"""How much a contract would pay, found by simulation alone: for contracts that cannot be asked what a deposit covers."""

from __future__ import annotations

from fabstir_desktop.errors import CallReverted
from fabstir_desktop.settlement.contracts.base import RefusalKind, SettlementContract
from fabstir_desktop.settlement.proof import join_proof, simulation_hash
from fabstir_desktop.wallet.signer import Signer


async def try_claim(contract: SettlementContract, signer: Signer, job_id: int, tokens: int) -> None:
    """Let the contract judge a claim that is never sent. Raises CallReverted, ChainError, SignerLocked."""
    proof_hash = simulation_hash(signer.address, job_id)
    proof = join_proof(proof_hash, await signer.sign_proof(proof_hash, tokens))
    await contract.simulate(signer.address, contract.encode_claim(job_id, tokens, proof))


async def most_payable(
    contract: SettlementContract, signer: Signer, job_id: int, wanted: int, *, before: int = 0, tolerance: int = 1
) -> int:
    """The most tokens, up to `wanted` and beyond `before`, whose claim the deposit covers; 0 if none. Errs low by less
    than `tolerance`. Raises ChainError, SignerLocked."""
    if await _covers(contract, signer, job_id, before + wanted):
        return wanted
    low, high = 0, wanted
    while high - low > tolerance:
        middle = (low + high) // 2
        if await _covers(contract, signer, job_id, before + middle):
            low = middle
        else:
            high = middle
    return low


async def _covers(contract: SettlementContract, signer: Signer, job_id: int, tokens: int) -> bool:
    try:
        await try_claim(contract, signer, job_id, max(1, tokens))
    except CallReverted as error:
        return contract.explain(error.reason).kind is not RefusalKind.DEPOSIT
    return True
