"""What a node's answer to `eth_sendRawTransaction` means: one ordered table of texts, and the codes that decide alone.

No answer ever gives a claim a new nonce. Texts are matched in lower case and in this order, because one error code carries
ten meanings and gateways wrap the texts of others ("429 Too Many Requests: {...}"); a code counts only where no text does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What the node said about the bytes."""

    SENT = "sent"
    KNOWN = "known"  # the pool has exactly these bytes: as good as sent
    NONCE_USED = "nonce_used"  # something at this nonce is mined; maybe these bytes
    NONCE_AHEAD = "nonce_ahead"  # an earlier nonce is missing in the pool
    REPLACEMENT_UNDERPRICED = "replacement_underpriced"  # the pool holds another transaction at this nonce
    FEE_LOW = "fee_low"
    FUNDS = "funds"
    BAD_GAS = "bad_gas"
    BAD_SIGNATURE = "bad_signature"  # the node is on another chain
    POOL_LIMIT = "pool_limit"
    REVERT = "revert"  # the node simulated and refused
    RETRY = "retry"  # rate limit, overload, gateway
    NO_INFORMATION = "no_information"
    NO_HISTORY = "no_history"  # the node keeps no state that old; another one may
    TOO_LARGE = "too_large"  # more was asked for than the node gives in one answer
    UNKNOWN = "unknown"


TAKEN = frozenset({Answer.SENT, Answer.KNOWN})
"""Answers after which the bytes are surely in a pool."""

AMBIGUOUS = frozenset({Answer.RETRY, Answer.UNKNOWN, Answer.NONCE_USED, Answer.NO_INFORMATION})
"""Answers after which the bytes may or may not be in a pool or in a block."""

_GATEWAY = r"\b(?:408|425|429|500|502|503|504)\b.{0,40}(?:request|error|gateway|unavailable|timeout|too many)"

_RANGE = r"block range|blocks? distance|range (?:is )?too"

TEXT_RULES: tuple[tuple[str, Answer], ...] = (
    (_GATEWAY, Answer.RETRY),
    (r"too many requests|over rate limit|rate limit|request rate exceeded", Answer.RETRY),
    (r"replacement transaction underpriced", Answer.REPLACEMENT_UNDERPRICED),
    (r"future transaction tries to replace pending", Answer.REPLACEMENT_UNDERPRICED),
    (r"transaction indexing is in progress", Answer.NO_INFORMATION),
    (r"already known|already in pool|already imported|already in mempool", Answer.KNOWN),
    (r"(?<!un)known transaction", Answer.KNOWN),
    (r"gapped-nonce", Answer.NONCE_AHEAD),
    (r"in-flight transaction limit reached", Answer.POOL_LIMIT),
    (r"nonce (?:is )?too low|nonce too small|old nonce", Answer.NONCE_USED),
    (r"nonce (?:is )?too high|tx-nonce-too-high|exceeds next nonce|nonce out of range", Answer.NONCE_AHEAD),
    (r"max priority fee per gas higher than max fee per gas", Answer.BAD_GAS),
    (r"max fee per gas less than block base fee|fee cap less than block base fee", Answer.FEE_LOW),
    (r"tx fee .* exceeds the configured cap", Answer.RETRY),
    (r"transaction underpriced|gas tip cap|underpriced", Answer.FEE_LOW),
    (r"insufficient funds|insufficient balance|not enough funds", Answer.FUNDS),
    (r"intrinsic gas too (?:low|high)|exceeds block gas limit|gas limit is too", Answer.BAD_GAS),
    (r"exceeds max transaction gas limit|exceeds maximum per-transaction gas limit", Answer.BAD_GAS),
    (r"invalid chain id|invalid sender|chain id mismatch|wrong chain", Answer.BAD_SIGNATURE),
    (r"txpool is full|account limit exceeded|address already reserved|oversized data", Answer.POOL_LIMIT),
    (r"execution reverted|\brevert(?:ed)?\b", Answer.REVERT),
    (r"evm error|invalid opcode|stack ?underflow|stack ?overflow|invalid jump|out ?of ?gas", Answer.REVERT),
    (r"query returned more than|logs matched by query|response size (?:is )?(?:exceed|too large)", Answer.TOO_LARGE),
    (r"limit the query to|query (?:exceeds|timeout)|exceeds? max(?:imum)? results", Answer.TOO_LARGE),
    (
        rf"(?:{_RANGE}).*(?:exceed|limit|large|wide|max|big|than|from)|(?:exceed|limit|max).*(?:{_RANGE})",
        Answer.TOO_LARGE,
    ),
    (r"too many (?:blocks|logs|results)|eth_getlogs .*(?:limit|range)", Answer.TOO_LARGE),
    (r"\b413\b.{0,40}(?:request|entity|content|payload|gateway|too)", Answer.TOO_LARGE),
    (r"missing trie node|(?:state|history) .*(?:pruned|not available)|historical state", Answer.NO_HISTORY),
    (
        r"header not found|block not found|unknown block|old data not available|archive (?:node|request|data)",
        Answer.NO_HISTORY,
    ),
    (r"limit exceeded|timed? ?out|temporarily|try again|overloaded|unavailable", Answer.RETRY),
)
"""Regular expressions over the lower-cased text, first hit wins."""

CODE_RULES: dict[int, Answer] = {
    3: Answer.REVERT,
    -32002: Answer.RETRY,
    -32005: Answer.RETRY,
    -32016: Answer.RETRY,
    -32603: Answer.RETRY,
}
"""What a code means where no text decides."""

_RULES = tuple((re.compile(pattern, re.DOTALL), answer) for pattern, answer in TEXT_RULES)
_MINIMUM_TIP = re.compile(r"minimum needed (\d+)")


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """One endpoint's answer to one sending; `text` is its own, `endpoint` its host name."""

    endpoint: str
    answer: Answer
    text: str = ""

    @property
    def minimum_tip_wei(self) -> int | None:
        """The tip the pool asks for, where its text says it."""
        found = _MINIMUM_TIP.search(self.text) if self.answer is Answer.FEE_LOW else None
        return int(found.group(1)) if found else None


def classify(text: str, code: int | None = None) -> Answer:
    """Read an error's text, and its code where no text decides."""
    lowered = text.lower()
    for pattern, answer in _RULES:
        if pattern.search(lowered):
            return answer
    return CODE_RULES.get(code, Answer.UNKNOWN) if code is not None else Answer.UNKNOWN


def best(answers: list[SendAnswer]) -> SendAnswer | None:
    """The answer that counts when several endpoints were asked: a success wins, then whatever says most."""
    order = (
        Answer.SENT,
        Answer.KNOWN,
        Answer.NONCE_USED,
        Answer.FUNDS,
        Answer.REPLACEMENT_UNDERPRICED,
        Answer.FEE_LOW,
        Answer.BAD_GAS,
        Answer.POOL_LIMIT,
        Answer.NONCE_AHEAD,
        Answer.BAD_SIGNATURE,
        Answer.REVERT,
    )
    rank = {answer: place for place, answer in enumerate(order)}
    return min(answers, key=lambda one: rank.get(one.answer, len(order)), default=None)
