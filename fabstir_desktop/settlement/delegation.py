"""Whose code the host's account borrows (EIP-7702): the setting is the intent, the chain is the truth.

Pure, without IO: what is to be done, from what the host wants, what code the account has, and what is on its way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from fabstir_desktop.jobs.claims import DELEGATION, DEPLOYMENT, TYPE_4, Slot, SlotState
from fabstir_desktop.settlement.batch_contract import BATCH_CONTRACT, DELEGATION_PREFIX, OWN_DELEGATION
from fabstir_desktop.wallet.signer import ZERO_ADDRESS, read_authorizations, to_checksum_address

PRAGUE_PRECOMPILE = "0x000000000000000000000000000000000000000b"
"""Adds two points of a curve since Prague (EIP-2537), the fork that brought borrowed code; before it is an empty address."""
PRAGUE_QUESTION = bytes(256)
PRAGUE_ANSWER = bytes(128)
"""Nothing and nothing is nothing."""
DELEGATION_GAS = 80_000
"""46,000 are charged before anything runs, and the code that was borrowed runs as the account receives."""
_TYPE_REFUSED = re.compile(
    r"type.{0,20}not supported|unsupported.{0,20}type|unknown transaction type|eip-?7702.{0,40}not", re.IGNORECASE
)


class Step(StrEnum):
    """What is to be done next."""

    NOTHING = "nothing"  # the account is as it is wanted, or cannot be
    ASK = "ask"  # it is not known yet whether the chain can do it
    WAIT = "wait"  # a change is on its way: nothing else is signed
    DRAIN = "drain"  # a change is next, as soon as what is on its way is in blocks: nothing new is signed
    DEPLOY = "deploy"
    DELEGATE = "delegate"
    UNDELEGATE = "undelegate"


class Mode(StrEnum):
    """How claims are made now."""

    SINGLE = "single"
    BATCH = "batch"
    NONE = "none"


def next_step(
    *, wanted: bool, code: bytes, open_kinds: Sequence[str], supported: bool | None, deployed: bool | None
) -> Step:
    """Decide. `code` is the account's, `open_kinds` what is signed and in no block; None is not known.

    An account that borrows the code of somebody else is left alone: another program wanted that.
    """
    if any(kind in (DELEGATION, DEPLOYMENT) for kind in open_kinds):
        return Step.WAIT
    if code != (b"" if wanted else OWN_DELEGATION) or (wanted and supported is False):
        return Step.NOTHING
    if wanted and None in (supported, deployed):
        return Step.ASK
    if open_kinds:
        return Step.DRAIN
    return Step.UNDELEGATE if not wanted else Step.DELEGATE if deployed else Step.DEPLOY


def mode_of(step: Step, *, wanted: bool, code: bytes) -> Mode:
    """How claims are made while this is the next step."""
    if step in (Step.WAIT, Step.DRAIN):
        return Mode.NONE
    return Mode.BATCH if wanted and code == OWN_DELEGATION else Mode.SINGLE


def is_credible(code: bytes, last_change: Slot | None) -> bool:
    """Whether the code that a node tells may be acted on.

    A node that lags tells the code from before our own change; until that is final, only what it has made is believed.
    """
    if last_change is None or last_change.state not in (SlotState.INCLUDED, SlotState.CONFIRMED):
        return True
    made = code_after(last_change)
    return made is None or made == code


def code_after(change: Slot) -> bytes | None:
    """The code that the account has after a mined change; None if what was mined changes nothing."""
    mined = next((one for one in change.attempts if one.tx_hash == change.mined_hash), None)
    if mined is None or mined.raw[:1] != TYPE_4 or not change.succeeded:
        return None
    contract = read_authorizations(mined.raw)[0].contract
    return b"" if contract == ZERO_ADDRESS else DELEGATION_PREFIX + bytes.fromhex(contract[2:])


def borrowed_from(code: bytes) -> str | None:
    """Whose code the account borrows."""
    if code[:3] != DELEGATION_PREFIX or len(code) != 23:
        return None
    return to_checksum_address("0x" + code[3:].hex())


def is_type_refused(text: str) -> bool:
    """Whether a node says that it takes no transactions of this type."""
    return _TYPE_REFUSED.search(text) is not None


def sentence_of(step: Step, *, wanted: bool, code: bytes, why_not: str) -> str:
    """For the host: how it stands and what comes next. `why_not` says why the chain cannot do it, if it cannot."""
    change = "on" if wanted else "off"
    by_step = {
        Step.WAIT: f"Being turned {change}: the transaction that does it is on its way, and claims wait for it.",
        Step.DRAIN: f"Being turned {change} as soon as the claims that are on their way are in blocks.",
        Step.ASK: "It is being looked at whether this chain can do it.",
        Step.DEPLOY: "Being turned on: the code for it is put on chain first.",
        Step.DELEGATE: "Being turned on.",
        Step.UNDELEGATE: "Being turned off.",
    }
    if step in by_step:
        return by_step[step]
    lender = borrowed_from(code)
    if not wanted:
        return "Off: each claim is a transaction of its own."
    if code == OWN_DELEGATION:
        return "On: up to fifty claims travel in one transaction."
    if why_not:
        return f"Not possible here: {why_not} Each claim is a transaction of its own."
    if lender is not None:
        return (
            f"Not used: your account already borrows the code at {lender}, which another program has set. Undo it there "
            f"and batching begins; it needs the code at {BATCH_CONTRACT}."
        )
    return "Not used: there is a contract at your account's address, not a plain account."
