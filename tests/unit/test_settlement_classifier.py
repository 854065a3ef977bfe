"""Every text of the dictionary, as geth, op-geth, reth, anvil and gateways say it."""

from __future__ import annotations

import pytest

from fabstir_desktop.settlement.classifier import AMBIGUOUS, TAKEN, Answer, SendAnswer, best, classify

TEXTS: tuple[tuple[str, int | None, Answer], ...] = (
    ("replacement transaction underpriced", -32000, Answer.REPLACEMENT_UNDERPRICED),
    ("replacement transaction underpriced", -32003, Answer.REPLACEMENT_UNDERPRICED),
    ("future transaction tries to replace pending", -32000, Answer.REPLACEMENT_UNDERPRICED),
    ("already known", -32000, Answer.KNOWN),
    ("known transaction: a1313bd99a81fb4d8ad1d2e90b67c6b3fa77545c990d6251444b83b70b6f8980", -32000, Answer.KNOWN),
    ("transaction already in pool", -32000, Answer.KNOWN),
    ("transaction already imported", -32003, Answer.KNOWN),
    ("unknown transaction", -32000, Answer.UNKNOWN),
    ("nonce too low: next nonce 8, tx nonce 7", -32000, Answer.NONCE_USED),
    ("nonce too low", -32003, Answer.NONCE_USED),
    ("nonce is too low", None, Answer.NONCE_USED),
    ("nonce too high", -32000, Answer.NONCE_AHEAD),
    ("nonce is too high", -32000, Answer.NONCE_AHEAD),
    ("nonce exceeds next nonce", -32000, Answer.NONCE_AHEAD),
    ("nonce out of range", -32000, Answer.NONCE_AHEAD),
    ("tx-nonce-too-high", -32000, Answer.NONCE_AHEAD),
    ("gapped-nonce tx from delegated accounts", -32000, Answer.NONCE_AHEAD),
    ("transaction underpriced: gas tip cap 1, minimum needed 1000000", -32000, Answer.FEE_LOW),
    ("transaction underpriced", -32000, Answer.FEE_LOW),
    ("max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1, baseFee: 7", -32000, Answer.FEE_LOW),
    ("max fee per gas less than block base fee", -32003, Answer.FEE_LOW),
    ("insufficient funds for gas * price + value: balance 1, tx cost 2, overshot 1", -32000, Answer.FUNDS),
    (
        "insufficient funds for gas * price + value: balance 1, queued cost 5, tx cost 2, overshot 1",
        -32000,
        Answer.FUNDS,
    ),
    ("insufficient funds for gas * price + value: have 1 want 2", -32000, Answer.FUNDS),
    ("Insufficient funds for gas * price + value", -32003, Answer.FUNDS),
    ("intrinsic gas too low: gas 20000, minimum needed 21000", -32000, Answer.BAD_GAS),
    ("intrinsic gas too low", -32000, Answer.BAD_GAS),
    ("exceeds block gas limit", -32000, Answer.BAD_GAS),
    ("max priority fee per gas higher than max fee per gas", -32000, Answer.BAD_GAS),
    ("exceeds max transaction gas limit", -32000, Answer.BAD_GAS),
    ("exceeds maximum per-transaction gas limit", -32000, Answer.BAD_GAS),
    ("intrinsic gas too high -- tx.gas_limit > env.block.gas_limit", -32000, Answer.BAD_GAS),
    ("invalid sender", -32000, Answer.BAD_SIGNATURE),
    ("invalid chain ID", -32000, Answer.BAD_SIGNATURE),
    ("invalid chain id for signer: have 1 want 84532", -32003, Answer.BAD_SIGNATURE),
    ("txpool is full", -32000, Answer.POOL_LIMIT),
    ("txpool is full", -32003, Answer.POOL_LIMIT),
    ("account limit exceeded: pooled 16 txs", -32000, Answer.POOL_LIMIT),
    ("address already reserved", -32000, Answer.POOL_LIMIT),
    ("oversized data: transaction size 131090, limit 131072", -32000, Answer.POOL_LIMIT),
    ("in-flight transaction limit reached for delegated accounts", -32000, Answer.POOL_LIMIT),
    ("execution reverted: Not the job's host", 3, Answer.REVERT),
    ("execution reverted", 3, Answer.REVERT),
    ("VM Exception while processing transaction: revert", -32003, Answer.REVERT),
    ("EVM error StackUnderflow", -32603, Answer.REVERT),
    ("over rate limit", -32016, Answer.RETRY),
    ("limit exceeded", -32005, Answer.RETRY),
    ('429 Too Many Requests: {"code":-32016,"message":"over rate limit"}', -32000, Answer.RETRY),
    ("503 Service Unavailable: gateway error", -32603, Answer.RETRY),
    ("tx fee (1.10 ether) exceeds the configured cap (1.00 ether)", -32000, Answer.RETRY),
    ("internal error", -32603, Answer.RETRY),
    ("resource unavailable", -32002, Answer.RETRY),
    ("transaction indexing is in progress", -32000, Answer.NO_INFORMATION),
    ("query returned more than 10000 results", -32005, Answer.TOO_LARGE),
    ("query returned more than 10000 results. Try with this block range [0x1, 0x9].", -32602, Answer.TOO_LARGE),
    ("block range limit exceeded", -32005, Answer.TOO_LARGE),
    ("exceed maximum block range: 50000", -32000, Answer.TOO_LARGE),
    ("block range is too wide", -32614, Answer.TOO_LARGE),
    ("eth_getLogs is limited to a 10,000 range", -32614, Answer.TOO_LARGE),
    ("Please limit the query to at most 1000 blocks", -32602, Answer.TOO_LARGE),
    ("Log response size exceeded", -32602, Answer.TOO_LARGE),
    ("query exceeds max results 20000, retry with the range 1-9", -32602, Answer.TOO_LARGE),
    ("query exceeds max block range 100000", -32602, Answer.TOO_LARGE),
    ("413 Request Entity Too Large: gateway error", -32603, Answer.TOO_LARGE),
    ("nonce too low: next nonce 413, tx nonce 412", -32000, Answer.NONCE_USED),
    ("missing trie node 5f21 (path ) state 0x5f21 is not available", -32000, Answer.NO_HISTORY),
    ("header not found", -32000, Answer.NO_HISTORY),
    ("state already pruned", -32000, Answer.NO_HISTORY),
    ("historical state 0x12 is not available", -32000, Answer.NO_HISTORY),
    ("the moon is in the wrong house", -32000, Answer.UNKNOWN),
    ("", None, Answer.UNKNOWN),
)


@pytest.mark.parametrize(("text", "code", "expected"), TEXTS)
def test_each_text_means_what_the_dictionary_says(text: str, code: int | None, expected: Answer) -> None:
    assert classify(text, code) is expected


@pytest.mark.parametrize("wrapping", ["rpc error: {}", "upstream said: {} (code -32000)", "[sequencer] {}"])
@pytest.mark.parametrize(
    ("text", "code", "expected"), [row for row in TEXTS if row[0] and row[2] not in {Answer.UNKNOWN, Answer.RETRY}]
)
def test_a_gateways_wrapping_changes_nothing(text: str, code: int | None, expected: Answer, wrapping: str) -> None:
    assert classify(wrapping.format(text), -32000) is expected


def test_a_code_counts_only_where_no_text_does() -> None:
    assert classify("nonce too low", -32005) is Answer.NONCE_USED
    assert classify("something else", -32005) is Answer.RETRY


def test_the_tip_that_is_asked_for_is_read_from_the_text() -> None:
    text = "transaction underpriced: gas tip cap 1, minimum needed 1000000"
    assert SendAnswer("rpc", Answer.FEE_LOW, text).minimum_tip_wei == 1_000_000
    assert SendAnswer("rpc", Answer.FEE_LOW, "transaction underpriced").minimum_tip_wei is None


def test_one_endpoints_success_outweighs_every_other_answer() -> None:
    for answer in Answer:
        answers = [SendAnswer("a", answer), SendAnswer("b", Answer.SENT), SendAnswer("c", answer)]
        found = best(answers)
        assert found is not None
        assert found.answer is Answer.SENT
    assert best([]) is None


def test_no_ambiguous_answer_counts_as_taken() -> None:
    assert not AMBIGUOUS & TAKEN
