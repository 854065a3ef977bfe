"""Claims that landed on chain without this ledger knowing of them, and which of its tokens they may have taken.

It happens when the data folder was restored from an old backup, or the key earns on a second machine. The claims of one
ledger take its tokens in order and without gaps. So a claim of a lost history took tokens from the first one on that this
ledger thinks unclaimed, or (from another machine) none of them: never those that were made here since the folder was opened.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.jobs.account import JobAccount


@dataclass(frozen=True, slots=True)
class LandedClaim:
    """A claim that is paid for, made by a transaction that is not in the ledger.

    `own_from`: see `own_tokens_begin`. `is_exact`: its proof is that of this ledger's own tokens.
    """

    job_id: int
    tokens: int
    proof_hash: bytes
    tx_hash: bytes
    note: str = ""
    own_from: int | None = None
    is_exact: bool = False


def own_tokens_begin(
    account: JobAccount, tokens: int, *, at_opening: int, is_exact: bool, minimum_tokens: int = 1
) -> int:
    """The position from which on no token of the job can be in a claim of `tokens` tokens made elsewhere.

    `at_opening` is what the job had when the folder was opened; `is_exact` tells that the claim's proof is that of this
    ledger's own next tokens: then exactly those are taken. Tokens made since are lost only where they are fewer than a
    contract takes in one claim: as a gap that can never be claimed they would hold back all that comes later.
    """
    if is_exact:
        return account.next_start + tokens
    begin = max(account.next_start, min(at_opening, account.generated))
    return begin if account.generated - begin >= minimum_tokens else account.generated


def missing_nonces(known: list[int], below: int) -> list[range]:
    """The nonces below `below` that are not among the known ones (ascending, each once)."""
    missing, expected = [], 0
    for nonce in [*(one for one in known if one < below), below]:
        if nonce > expected:
            missing.append(range(expected, nonce))
        expected = nonce + 1
    return missing
