"""Several claims in one transaction: what goes in, how much gas, and what became of each. Pure, without IO.

The transaction of a batch succeeds whatever becomes of its claims, so its status says nothing about any of them. Each is
judged by the result that the batch reports for its call, and by the contract's own event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fabstir_desktop.errors import Bug
from fabstir_desktop.jobs.claims import Claim
from fabstir_desktop.settlement.abi import ContractEvent
from fabstir_desktop.settlement.chain_client import EventLog
from fabstir_desktop.wallet.batch_calls import BatchCall, decode_batch

BATCH_SIZE = 50
"""Claims in one transaction at most. Pools take one transaction of a borrowing account at a time, so the size of a batch alone
decides how many claims a block takes; fifty need about 6 million gas as a limit, and some 25 kB."""
MOST_GAS = 10_000_000
"""Gas of one transaction at most: chains refuse more than 16.7 million (EIP-7825)."""
CALL_RESULT = ContractEvent("CallResult", ("uint256", "address"), ("bool", "bytes"))

_TRANSACTION_GAS = 21_000
_CALL_GAS = 15_000
"""For each call: its cold access, copying its calldata, and the event with up to 256 bytes of a reason."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a batch reports of one call: `reason` is what a failed one answered, at most 256 bytes."""

    succeeded: bool
    reason: bytes = b""


class Verdict(StrEnum):
    """What is to be believed of one claim of a mined batch."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ASK = "ask"  # the two witnesses do not agree: the contract must be asked whether it knows the proof


def batch_gas_limit(calls: Sequence[BatchCall], calldata: bytes) -> int:
    """Gas with which every call gets what it may use, whatever the others need: no estimate can settle too low.

    All but one 64th of what is left can be passed on, at each call. Calldata counts by EIP-7623's floor, which is the dearer
    of its two prices.
    """
    limit = 0
    for call in reversed(calls):
        limit = max(limit + call.gas_limit, call.gas_limit * 64 // 63 + 1) + _CALL_GAS
    zeros = calldata.count(0)
    return _TRANSACTION_GAS + limit + 10 * zeros + 40 * (len(calldata) - zeros)


def fitting(gas_limits: Sequence[int]) -> int:
    """How many of these claims, from the first on, one transaction takes; at least one."""
    total = 0
    for count, gas_limit in enumerate(gas_limits):
        total += gas_limit + _CALL_GAS
        if count and (count >= BATCH_SIZE or total > MOST_GAS):
            return count
    return len(gas_limits)


def first_batch(reverts: Sequence[int], gas_limits: Sequence[int]) -> list[int]:
    """Which of the prepared claims go into the next transaction, by their place in the list.

    A claim that failed before goes alone, so that it spoils no batch twice; it comes first when it is first in line.
    """
    if reverts and reverts[0]:
        return [0]
    fresh = [place for place, count in enumerate(reverts) if count == 0]
    return fresh[: fitting([gas_limits[place] for place in fresh])]


def calls_inside(sender: str, to: str, calldata: bytes) -> tuple[tuple[str, bytes], ...]:
    """The calls that a transaction makes, receiver and calldata: itself, or those of a batch. Raises ValueError."""
    if to.lower() != sender.lower() or not calldata:
        return ((to, calldata),)
    return tuple((call.target, call.data) for call in decode_batch(calldata))


def check_payload(sender: str, to: str, calldata: bytes, claims: Sequence[Claim]) -> None:
    """See that a transaction carries exactly the claims it is signed for, each once, in their order. Raises Bug.

    A transaction without claims (a completion, a delegation) is none of this check's business.
    """
    if not claims:
        return
    try:
        carried = [data for _to, data in calls_inside(sender, to, calldata)]
    except ValueError as error:
        raise Bug(f"a transaction with claims cannot be read: {error}") from error
    if carried != [claim.calldata for claim in claims]:
        ids = ", ".join(str(claim.claim_id) for claim in claims)
        raise Bug(f"a transaction would be signed that carries something else than the claims {ids}")


def read_results(logs: Iterable[EventLog], host: str) -> dict[int, CallResult]:
    """What a batch of the host reports, by the index of the call; the events of other addresses are no witnesses."""
    results = {}
    for entry in logs:
        if entry.address.lower() != host.lower() or entry.topics[:1] != (CALL_RESULT.topic,):
            continue
        index, _target, succeeded, reason = CALL_RESULT.decode(entry.topics, entry.data)
        results[int(index)] = CallResult(bool(succeeded), bytes(reason))
    return results


def verdict(result: CallResult | None, *, has_event: bool, event_expected: bool) -> Verdict:
    """Judge one claim of a mined batch.

    The contract's own event proves that the claim landed. A call that is reported as failed, or not reported at all (the
    account borrowed no code, or another), has not been made. A success without the event that the contract writes elsewhere
    is decided by asking the contract.
    """
    if has_event:
        return Verdict.SUCCEEDED
    if result is None or not result.succeeded:
        return Verdict.FAILED
    return Verdict.ASK if event_expected else Verdict.SUCCEEDED


def order_of(calldata: bytes, claims: Sequence[Claim]) -> Mapping[int, int]:
    """The index of each claim's call in a batch, by claim id. Raises Bug where one is missing: the ledger holds otherwise."""
    index_of = {call.data: index for index, call in enumerate(decode_batch(calldata))}
    try:
        return {claim.claim_id: index_of[claim.calldata] for claim in claims}
    except KeyError:
        raise Bug("a stored batch does not carry the claims that are bound to it") from None
