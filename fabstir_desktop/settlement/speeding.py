"""Speed up on request: a dearer attempt of the same nonce and calldata, sent at once."""

from __future__ import annotations

from fabstir_desktop.errors import UserError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import Slot, SlotState
from fabstir_desktop.jobs.events import TransactionChanged
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.outbox import Outbox


class CannotSpeedUp(UserError):
    """The transaction is not waiting, or its fee cannot be raised."""


async def speed_up(ledger: Ledger, outbox: Outbox, feed: Feed, tx_hash: str) -> str:
    """Replace a waiting claim's transaction by one that offers an eighth more; returns the new hash.

    Raises CannotSpeedUp, ChainError, LedgerError, SignerLocked.
    """
    slot = await _waiting_slot(ledger, outbox.sender, tx_hash)
    if not slot.claim_ids:
        raise CannotSpeedUp("only a claim's transaction can be sped up")
    market = await outbox.market_now()
    if market is None:
        raise CannotSpeedUp("the fee market is not known now; try again later")
    changed = await outbox.bump(slot, market)
    if len(changed.attempts) == len(slot.attempts):
        raise CannotSpeedUp("the fee is at your cap already; raise it in Settings, or wait")
    await outbox.send(changed)
    feed.publish(TransactionChanged(changed.slot_id))
    return "0x" + changed.attempts[-1].tx_hash.hex()


async def _waiting_slot(ledger: Ledger, sender: str, tx_hash: str) -> Slot:
    wanted = bytes.fromhex(tx_hash.removeprefix("0x"))
    for slot in await ledger.slots(sender, [SlotState.OPEN]):
        if any(attempt.tx_hash == wanted for attempt in slot.attempts):
            return slot
    raise CannotSpeedUp("the transaction is not waiting any more")
