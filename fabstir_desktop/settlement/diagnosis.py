"""The lines of `doctor` about chain, contract, gas money: each asked anew, each with what to do."""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.errors import CallReverted, ChainError, WrongChain
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts.base import RefusalKind, SettlementContract
from fabstir_desktop.settlement.explorers import chain_name
from fabstir_desktop.settlement.gas_problems import format_eth
from fabstir_desktop.settlement.outbox import TYPICAL_CLAIM_GAS
from fabstir_desktop.settlement.payable import try_claim
from fabstir_desktop.wallet.signer import Signer


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """One line: what was checked, whether it would let a payment through, a sentence, and what to do if not."""

    name: str
    passed: bool
    detail: str
    action: str = ""


async def check_chain(
    client: ChainClient, contract: SettlementContract, venue: Venue, signer: Signer | None
) -> list[ChainCheck]:
    """RPC, chain id, contract, gas money, in this order; ends at the first that the others depend on. Never raises."""
    name = chain_name(venue.chain_id)
    try:
        await client.pool.verify()
        head = await client.head()
    except WrongChain as error:
        return [ChainCheck("chain", False, str(error), "change RPC_URL, or CHAIN_ID if the RPC is right")]
    except ChainError as error:
        return [ChainCheck("RPC", False, f"no contact with {name}: {error}", "check the network and RPC_URL")]
    checks = [ChainCheck("RPC", True, f"{client.pool.active_name}, {name} ({venue.chain_id}), block {head.number}")]
    checks.append(await _check_contract(contract, venue))
    if signer is not None:
        checks.append(await _check_gas(client, signer))
    return checks


async def check_claim(contract: SettlementContract, signer: Signer, job_id: int) -> ChainCheck:
    """Let the contract judge a claim of the job that is never sent. Never raises ChainError."""
    tokens = max(1, contract.rules.minimum_tokens)
    try:
        await try_claim(contract, signer, job_id, tokens)
    except CallReverted as error:
        refusal = contract.explain(error.reason)
        later = refusal.kind in {RefusalKind.TOO_FAST, RefusalKind.TOO_FEW}
        return ChainCheck("claim", later, f"job {job_id}: {refusal.plain}", "open the job" if not later else "")
    except ChainError as error:
        return ChainCheck("claim", False, f"it could not be tried: {error}", "check RPC_URL")
    return ChainCheck(
        "claim", True, f"the contract would accept a claim of {tokens} tokens of job {job_id}; none was sent"
    )


def claim_not_tried(why: str, action: str = "") -> ChainCheck:
    """The line for a claim that could not be tried. It is no failure unless there is something to do about it."""
    return ChainCheck("claim", not action, f"not tried: {why}", action)


async def _check_contract(contract: SettlementContract, venue: Venue) -> ChainCheck:
    try:
        await contract.probe()
    except ChainError as error:
        return ChainCheck("contract", False, str(error), "check the contract's address and SETTLEMENT_CONTRACT")
    extras = [word for word, there in (("jobs", contract.has_jobs), ("payment events", contract.has_events)) if there]
    told = f" with {' and '.join(extras)}" if extras else "; it reports neither jobs nor payments"
    return ChainCheck("contract", True, f"{venue.contract_name} at {venue.contract}{told}")


async def _check_gas(client: ChainClient, signer: Signer) -> ChainCheck:
    try:
        balance = await client.balance_wei(signer.address)
        market = await client.fee_market(await client.head())
    except ChainError as error:
        return ChainCheck("gas money", False, f"it cannot be read: {error}", "check RPC_URL")
    cost = TYPICAL_CLAIM_GAS * (market.base_fee_wei + market.tip_wei)
    left = balance // cost if cost else 0
    text = f"{signer.address} has {format_eth(balance)} ETH, enough for about {left} checkpoints"
    return ChainCheck("gas money", left > 0, text, "" if left else "send ETH for gas to this address")
