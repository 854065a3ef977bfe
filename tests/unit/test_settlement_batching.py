"""Batches as pure arithmetic: gas, order, verdicts; and whose code the account borrows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from eth_abi.abi import encode
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st
from secrets_support import canary_key

from fabstir_desktop.errors import Bug
from fabstir_desktop.jobs.claims import (
    DELEGATION,
    DEPLOYMENT,
    Attempt,
    Claim,
    ClaimReason,
    ClaimState,
    Slot,
    SlotState,
)
from fabstir_desktop.settlement.batch_contract import BATCH_CONTRACT, DELEGATION_PREFIX, OWN_DELEGATION
from fabstir_desktop.settlement.batch_rounds import BatchRounds
from fabstir_desktop.settlement.batching import (
    BATCH_SIZE,
    CALL_RESULT,
    MOST_GAS,
    CallResult,
    Verdict,
    batch_gas_limit,
    calls_inside,
    check_payload,
    first_batch,
    fitting,
    order_of,
    read_results,
    verdict,
)
from fabstir_desktop.settlement.board import ShortOfGasMoney
from fabstir_desktop.settlement.chain_client import EventLog
from fabstir_desktop.settlement.delegation import (
    Mode,
    Step,
    code_after,
    is_credible,
    is_type_refused,
    mode_of,
    next_step,
    sentence_of,
)
from fabstir_desktop.wallet.batch_calls import BatchCall, encode_batch
from fabstir_desktop.wallet.signer import ZERO_ADDRESS

HOST = "0x" + "ab" * 20
CONTRACT = "0x" + "cd" * 20
FOREIGN_CODE = DELEGATION_PREFIX + bytes.fromhex("0b" * 20)
GAS = st.lists(st.integers(30_000, 1_250_000), min_size=1, max_size=60)


def claim(claim_id: int) -> Claim:
    calldata = b"claim" + bytes([claim_id])
    hashed = bytes([claim_id]) * 32
    state = ClaimState.PLANNED
    return Claim(claim_id, claim_id, 1, 0, 100, HOST, ClaimReason.THRESHOLD, state, hashed, b"", calldata, "", 0.0)


def calls_of(claims: list[Claim], gas: int = 100_000) -> list[BatchCall]:
    return [BatchCall(CONTRACT, gas, one.calldata) for one in claims]


# --- gas --------------------------------------------------------------------------------------------------------------


@given(GAS, st.data())
def test_every_call_gets_its_gas_whatever_the_calls_before_it_have_used(limits: list[int], data: st.DataObject) -> None:
    """The contract's own rule, at each call: all but one 64th of what is left must exceed what the call may use."""
    calls = [BatchCall(CONTRACT, limit, b"x" * 100) for limit in limits]
    calldata = encode_batch(calls)
    left = batch_gas_limit(calls, calldata)
    assert left >= 21_000 + 40 * (len(calldata) - calldata.count(0)) + 10 * calldata.count(0)
    left -= 21_000 + 16 * (len(calldata) - calldata.count(0)) + 4 * calldata.count(0)
    for limit in limits:
        left -= data.draw(st.integers(0, 7_000))  # copying, cold access
        assert left - left // 64 > limit
        left -= data.draw(st.integers(0, limit)) + data.draw(st.integers(0, 5_000))  # the call, and its event
    assert left >= 0


@given(GAS)
def test_a_transaction_takes_fifty_claims_at_most_and_stays_below_the_gas_that_chains_refuse(limits: list[int]) -> None:
    count = fitting(limits)
    assert 1 <= count <= min(BATCH_SIZE, len(limits))
    assert count == 1 or sum(limits[:count]) <= MOST_GAS
    if count < min(BATCH_SIZE, len(limits)):
        assert sum(limits[: count + 1]) + 15_000 * (count + 1) > MOST_GAS, "one more would have fitted"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(50_000, 1_000_000)), min_size=1, max_size=15))
def test_a_claim_that_failed_before_travels_alone_and_is_never_passed_over_for_ever(
    rows: list[tuple[int, int]],
) -> None:
    waiting = list(rows)
    rounds = 0
    while waiting:
        reverts, gas = [row[0] for row in waiting], [row[1] for row in waiting]
        places = first_batch(reverts, gas)
        assert places == sorted(set(places))
        assert places
        assert len(places) == 1 or not any(reverts[place] for place in places)
        waiting = [row for place, row in enumerate(waiting) if place not in places]
        rounds += 1
    assert rounds <= len(rows)


class Payer:
    """A claimer whose gas money lasts for so many claims in one transaction."""

    def __init__(self, affordable: int) -> None:
        self.affordable = affordable
        self.sent: list[int] = []

    async def send_together(self, batch: list[int]) -> None:
        if len(batch) > self.affordable:
            raise ShortOfGasMoney("short", retry_s=1.0)
        self.sent += batch

    async def send(self, one: int) -> None:
        await self.send_together([one])


@given(st.integers(1, BATCH_SIZE), st.integers(0, BATCH_SIZE))
async def test_where_gas_money_lasts_for_a_part_of_a_batch_its_oldest_claims_go(count: int, affordable: int) -> None:
    payer = Payer(affordable)
    rounds = BatchRounds(*[cast("Any", payer)] * 5, poll_s=1.0)
    batch = cast("list[Any]", list(range(count)))
    if affordable == 0:
        with pytest.raises(ShortOfGasMoney):
            await rounds._send(batch)
        assert payer.sent == []
        return
    assert await rounds._send(batch) == payer.sent == batch[: len(payer.sent)]
    assert len(payer.sent) == count if count <= affordable else len(payer.sent) <= affordable <= 2 * len(payer.sent)


# --- what is inside ---------------------------------------------------------------------------------------------------


def test_what_is_signed_carries_exactly_its_claims_in_their_order() -> None:
    claims = [claim(1), claim(2), claim(3)]
    check_payload(HOST, HOST, encode_batch(calls_of(claims)), claims)
    check_payload(HOST, CONTRACT, claims[0].calldata, claims[:1])
    check_payload(HOST, HOST, b"", [])
    for to, calldata, carried in (
        (HOST, encode_batch(calls_of(claims[:2])), claims),  # one is missing
        (HOST, encode_batch(calls_of([*claims, claims[0]])), claims),  # one twice
        (HOST, encode_batch(calls_of(claims[::-1])), claims),  # another order
        (HOST, encode_batch(calls_of([*claims[:2], claim(9)])), claims),  # another one
        (CONTRACT, claims[0].calldata, claims[1:2]),
        (CONTRACT, claims[0].calldata, claims[:2]),
        (HOST, b"", claims[:1]),
        (HOST, claims[0].calldata, claims[:1]),  # a self-call that is no batch
    ):
        with pytest.raises(Bug):
            check_payload(HOST, to, calldata, carried)


def test_the_calls_of_a_transaction_are_itself_or_those_of_the_batch() -> None:
    assert calls_inside(HOST, CONTRACT, b"x") == ((CONTRACT, b"x"),)
    assert calls_inside(HOST, HOST.upper().replace("X", "x"), b"") == ((HOST.upper().replace("X", "x"), b""),)
    assert calls_inside(HOST, HOST, encode_batch(calls_of([claim(1)]))) == ((CONTRACT, claim(1).calldata),)


def test_a_claim_is_found_in_its_batch_by_its_calldata() -> None:
    batch = encode_batch(calls_of([claim(3), claim(1)]))
    assert order_of(batch, [claim(1), claim(3)]) == {1: 1, 3: 0}
    with pytest.raises(Bug):
        order_of(batch, [claim(2)])


# --- verdicts ---------------------------------------------------------------------------------------------------------


def result_log(index: int, succeeded: bool, reason: bytes = b"", address: str = HOST) -> EventLog:
    topics = (CALL_RESULT.topic, index.to_bytes(32, "big"), bytes(12) + bytes.fromhex(CONTRACT[2:]))
    return EventLog(address, topics, encode(["bool", "bytes"], [succeeded, reason]), bytes(32), index, 1, bytes(32))


@given(st.lists(st.booleans(), max_size=10), st.lists(st.integers(0, 9), max_size=5))
def test_the_results_of_a_batch_are_read_by_index_and_from_the_host_alone(
    pattern: list[bool], strangers: list[int]
) -> None:
    logs = [result_log(index, good, b"" if good else b"why") for index, good in enumerate(pattern)]
    lies = [result_log(index, succeeded=True, address=CONTRACT) for index in strangers]
    found = read_results([*lies, *logs, *lies], HOST)
    assert found == {index: CallResult(good, b"" if good else b"why") for index, good in enumerate(pattern)}


@pytest.mark.parametrize(
    ("result", "has_event", "event_expected", "expected"),
    [
        (CallResult(succeeded=True), True, True, Verdict.SUCCEEDED),
        (CallResult(succeeded=True), False, True, Verdict.ASK),
        (CallResult(succeeded=True), False, False, Verdict.SUCCEEDED),
        (CallResult(succeeded=False), False, True, Verdict.FAILED),
        (CallResult(succeeded=False), False, False, Verdict.FAILED),
        (None, False, True, Verdict.FAILED),
        (None, False, False, Verdict.FAILED),
        (None, True, True, Verdict.SUCCEEDED),
    ],
)
def test_a_claim_is_judged_by_its_own_result_and_event(
    result: CallResult | None, has_event: bool, event_expected: bool, expected: Verdict
) -> None:
    assert verdict(result, has_event=has_event, event_expected=event_expected) is expected


# --- whose code the account borrows -----------------------------------------------------------------------------------

KINDS = st.lists(st.sampled_from(["claim", "batch", "complete", "cancel", DELEGATION, DEPLOYMENT]), max_size=3)
CODES = st.sampled_from([b"", OWN_DELEGATION, FOREIGN_CODE, b"a contract"])
KNOWN = st.sampled_from([None, True, False])


@given(st.booleans(), CODES, KINDS, KNOWN, KNOWN)
def test_the_account_is_changed_only_towards_what_is_wanted_and_when_nothing_is_on_its_way(
    wanted: bool, code: bytes, kinds: list[str], supported: bool | None, deployed: bool | None
) -> None:
    step = next_step(wanted=wanted, code=code, open_kinds=kinds, supported=supported, deployed=deployed)
    changes = step in (Step.DEPLOY, Step.DELEGATE, Step.UNDELEGATE)
    is_changing = DELEGATION in kinds or DEPLOYMENT in kinds
    assert (step is Step.WAIT) == is_changing
    assert not (changes and kinds)
    if code not in (b"", OWN_DELEGATION):
        assert not changes, "what another program wants is left alone"
    if step in (Step.DEPLOY, Step.DELEGATE):
        assert (wanted, code, supported) == (True, b"", True)
        assert deployed is (step is Step.DELEGATE)
    if step is Step.UNDELEGATE:
        assert (wanted, code) == (False, OWN_DELEGATION)
    if step is Step.NOTHING and supported and code in (b"", OWN_DELEGATION):
        assert (code == OWN_DELEGATION) == wanted
    mode = mode_of(step, wanted=wanted, code=code)
    assert (mode is Mode.NONE) == (step in (Step.WAIT, Step.DRAIN))
    assert mode is not Mode.BATCH or (wanted and code == OWN_DELEGATION)
    assert sentence_of(step, wanted=wanted, code=code, why_not="" if supported is not False else "it cannot.")


def delegation_slot(contract: str | None, state: SlotState, *, succeeded: bool = True) -> Slot:
    account = Account.from_key(canary_key())
    fields = {"chainId": 1, "nonce": 4, "to": account.address, "value": 0, "data": "0x", "gas": 80_000}
    fields |= {"maxFeePerGas": 10, "maxPriorityFeePerGas": 1, "type": 2}
    if contract is not None:
        signed = account.sign_authorization({"chainId": 1, "address": contract, "nonce": 5})
        fields |= {"type": 4, "authorizationList": [signed]}
    sent = account.sign_transaction(fields)
    attempt = Attempt(bytes(sent.hash), bytes(sent.raw_transaction), 10, 1, 80_000)
    return Slot(1, HOST, 4, DELEGATION, state, (), (attempt,), 0.0, None, attempt.tx_hash, 1, bytes(32), succeeded)


def test_a_node_that_lags_behind_our_own_change_is_not_believed() -> None:
    delegated = delegation_slot(BATCH_CONTRACT, SlotState.INCLUDED)
    assert code_after(delegated) == OWN_DELEGATION
    assert is_credible(OWN_DELEGATION, delegated)
    assert not is_credible(b"", delegated)
    assert is_credible(b"", replace(delegated, state=SlotState.FINAL)), "another program changed it since"
    given_back = delegation_slot(ZERO_ADDRESS, SlotState.CONFIRMED)
    assert code_after(given_back) == b""
    assert not is_credible(OWN_DELEGATION, given_back)
    assert is_credible(OWN_DELEGATION, None)
    assert is_credible(b"", delegation_slot(None, SlotState.INCLUDED)), "what was mined changes nothing"
    assert is_credible(b"", replace(delegated, state=SlotState.OPEN, mined_hash=None))


def test_a_nonce_more_is_used_by_what_carries_an_authorization() -> None:
    assert delegation_slot(BATCH_CONTRACT, SlotState.INCLUDED).nonces == (4, 5)
    assert delegation_slot(None, SlotState.INCLUDED).nonces == (4,)
    burned = replace(delegation_slot(BATCH_CONTRACT, SlotState.INCLUDED), state=SlotState.FOREIGN, mined_hash=None)
    assert burned.nonces == (4,)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("transaction type not supported", True),
        ("transaction type 4 is not supported", True),
        ("unsupported transaction type: 0x04", True),
        ("EIP-7702 transactions are not enabled", True),
        ("nonce too low", False),
        ("the method eth_sendRawTransaction does not exist", False),
        ("", False),
    ],
)
def test_a_node_that_knows_no_such_transactions_is_understood(text: str, refused: bool) -> None:
    assert is_type_refused(text) == refused
