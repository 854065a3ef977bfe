"""What a CheckpointManager works with."""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.feed import Feed
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.announce import ConfirmedAnnouncer
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.claimer import Claimer
from fabstir_desktop.settlement.completer import Completer
from fabstir_desktop.settlement.contracts.base import SettlementContract
from fabstir_desktop.settlement.delegation_keeper import DelegationKeeper
from fabstir_desktop.settlement.history import History
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.settlement.payments import PaymentReader
from fabstir_desktop.settlement.reconciler import Reconciler
from fabstir_desktop.settlement.recovery import Recovery


@dataclass(frozen=True, slots=True)
class ManagerParts:
    """What a manager works with; all of one signer."""

    ledger: Ledger
    feed: Feed
    board: ProblemBoard
    claimer: Claimer
    outbox: Outbox
    reconciler: Reconciler
    payments: PaymentReader
    history: History
    recovery: Recovery
    completer: Completer
    announcer: ConfirmedAnnouncer
    delegation: DelegationKeeper
    contract: SettlementContract
