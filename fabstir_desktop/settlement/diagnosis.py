"""The lines of `doctor` about chain, contract, gas money: each asked anew, each with what to do."""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.errors import CallReverted, ChainError, WrongChain
from fabstir_desktop.jobs.gas_money import format_eth
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.settlement.chain_client import GAS_PRICE_ORACLE, ChainClient
from fabstir_desktop.settlement.contracts.base import RefusalKind, SettlementContract
from fabstir_desktop.settlement.explorers import chain_name
from fabstir_desktop.settlement.outbox import TYPICAL_CLAIM_BYTES, TYPICAL_CLAIM_GAS
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
    """RPC, chain id, contract and, with a key, gas money: a line each, whatever is wrong with those before. Never raises."""
    name = chain_name(venue.chain_id)
    unknown = [("the contract", "contract")] + ([("the balance", "gas money")] if signer is not None else [])
    try:
        await client.pool.verify()
        head = await client.head()
    except WrongChain as error:
        wrong = ChainCheck("chain id", False, str(error), "change RPC_URL, or CHAIN_ID if the RPC is right")
        rpc = ChainCheck("RPC", True, f"{client.pool.active_name} answers")
        return [rpc, wrong, *(_not_known(what, line, "the chain is the wrong one") for what, line in unknown)]
    except ChainError as error:
        away = ChainCheck("RPC", False, f"no contact with {name}: {error}", "check the network and RPC_URL")
        lines = [("the RPC's chain id", "chain id"), *unknown]
        return [away, *(_not_known(what, line, "the RPC does not answer") for what, line in lines)]
    checks = [
        ChainCheck("RPC", True, f"{client.pool.active_name}, block {head.number}"),
        ChainCheck("chain id", True, f"{venue.chain_id} ({name})"),
        await _check_contract(contract, venue),
    ]
    return [*checks, await _check_gas(client, signer)] if signer is not None else checks


def _not_known(what: str, line: str, because: str) -> ChainCheck:
    return ChainCheck(line, False, f"{what} is not known: {because}", "see above")


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
        l1_fee = await client.l1_fee_wei(TYPICAL_CLAIM_BYTES) if await client.code(GAS_PRICE_ORACLE) else 0
    except ChainError as error:
        return ChainCheck("gas money", False, f"it cannot be read: {error}", "check RPC_URL")
    cost = TYPICAL_CLAIM_GAS * (market.base_fee_wei + market.tip_wei) + l1_fee
    left = balance // cost if cost else 0
    text = f"{signer.address} has {format_eth(balance)} ETH, enough for about {left} checkpoints"
    return ChainCheck("gas money", left > 0, text, "" if left else "send ETH for gas to this address")
