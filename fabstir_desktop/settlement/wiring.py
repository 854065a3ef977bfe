"""Puts a CheckpointManager together for one signer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.announce import ConfirmedAnnouncer
from fabstir_desktop.settlement.attribution import Attribution
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.checkpoint_manager import CheckpointManager
from fabstir_desktop.settlement.claimer import Claimer
from fabstir_desktop.settlement.completer import Completer
from fabstir_desktop.settlement.contracts.base import SettlementContract
from fabstir_desktop.settlement.delegation_keeper import BatchingSwitch, DelegationKeeper
from fabstir_desktop.settlement.fees import GWEI
from fabstir_desktop.settlement.follower import Follower
from fabstir_desktop.settlement.history import History
from fabstir_desktop.settlement.last_try import LastTry
from fabstir_desktop.settlement.manager_parts import ManagerParts
from fabstir_desktop.settlement.monitor import ChainMonitor
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.settlement.payments import PaymentReader
from fabstir_desktop.settlement.proof_store import ProofStore
from fabstir_desktop.settlement.reconciler import Reconciler
from fabstir_desktop.settlement.recovery import Recovery
from fabstir_desktop.settlement.tracker import TokenTracker
from fabstir_desktop.wallet.signer import Signer


@dataclass(frozen=True, slots=True)
class Wiring:
    """What every part of the room shares."""

    settings: Settings
    venue: Venue
    ledger: Ledger
    feed: Feed
    client: ChainClient
    contract: SettlementContract
    board: ProblemBoard
    monitor: ChainMonitor
    batching: BatchingSwitch
    opening: Mapping[int, int]
    """Tokens that each job had when the ledger was opened."""

    @property
    def attribution(self) -> Attribution:
        """Judges claims found on chain."""
        return Attribution(self.ledger, self.contract, self.venue, self.opening)


def make_manager(wiring: Wiring, signer: Signer, tracker: TokenTracker) -> CheckpointManager:
    """A manager that claims with this signer what the tracker counts; not started yet."""
    monitor = wiring.monitor
    return CheckpointManager(
        _make_parts(wiring, signer, tracker),
        poll_s=wiring.settings.settlement_poll_seconds,
        is_ready=lambda: monitor.is_ready,
        has_session=tracker.has_session,
        on_account=tracker.note_account,
        on_trouble=monitor.look_now,
    )


def _make_parts(wiring: Wiring, signer: Signer, tracker: TokenTracker) -> ManagerParts:
    ledger, feed, board, contract = wiring.ledger, wiring.feed, wiring.board, wiring.contract
    common = (ledger, wiring.client, contract)
    confirmations = wiring.settings.confirmations
    outbox = _make_outbox(wiring, signer)
    proofs = ProofStore(ledger, wiring.venue, wiring.settings.proofs_dir, tracker.answer_start)
    attribution = wiring.attribution
    claimer = Claimer(
        *common,
        signer,
        outbox,
        proofs,
        board,
        feed,
        threshold_tokens=wiring.settings.checkpoint_threshold,
        holds_uneconomic=wiring.settings.uneconomic_claims == "hold",
        exposure_tokens=wiring.settings.max_unproven_tokens,
    )
    history = History(*common, attribution, outbox.nonces, board, feed, host=signer.address)
    return ManagerParts(
        ledger=ledger,
        feed=feed,
        board=board,
        contract=contract,
        outbox=outbox,
        claimer=claimer,
        reconciler=Reconciler(*common, outbox, board, feed, attribution, confirmations=confirmations),
        payments=_make_payment_reader(wiring, signer.address),
        announcer=ConfirmedAnnouncer(ledger, contract, board, feed),
        delegation=DelegationKeeper(ledger, wiring.client, outbox, board, feed, switch=wiring.batching),
        history=history,
        recovery=Recovery(ledger, contract, attribution, history, board, feed, host=signer.address),
        completer=_make_completer(wiring, outbox, claimer, LastTry(ledger, contract, proofs, signer), tracker),
    )


def _make_completer(
    wiring: Wiring, outbox: Outbox, claimer: Claimer, last_try: LastTry, tracker: TokenTracker
) -> Completer:
    return Completer(
        wiring.ledger,
        wiring.client,
        wiring.contract,
        outbox,
        wiring.board,
        wiring.feed,
        has_session=tracker.has_session,
        forfeit=claimer.forfeit,
        last_try=last_try,
        poll_s=wiring.settings.settlement_poll_seconds,
    )


def make_follower(wiring: Wiring, tracker: TokenTracker, managed_sender: Callable[[], str | None]) -> Follower:
    """Who looks after what other keys than the manager's have signed; not started yet."""
    ledger, feed, board, contract = wiring.ledger, wiring.feed, wiring.board, wiring.contract
    common = (ledger, wiring.client, contract)
    confirmations, monitor = wiring.settings.confirmations, wiring.monitor

    def reconciler_of(sender: str) -> Reconciler:
        outbox = _make_outbox(wiring, sender)
        return Reconciler(*common, outbox, board, feed, wiring.attribution, confirmations=confirmations)

    return Follower(
        ledger,
        feed,
        _make_payment_reader(wiring, None),
        ConfirmedAnnouncer(ledger, contract, board, feed),
        reconciler_of=reconciler_of,
        managed_sender=managed_sender,
        is_ready=lambda: monitor.is_ready,
        on_account=tracker.note_account,
        poll_s=wiring.settings.settlement_poll_seconds,
    )


def _make_payment_reader(wiring: Wiring, host: str | None) -> PaymentReader:
    return PaymentReader(
        wiring.ledger,
        wiring.client,
        wiring.contract,
        wiring.feed,
        host=host,
        confirmations=wiring.settings.confirmations,
        earnings_from=wiring.settings.earnings_from,
    )


def _make_outbox(wiring: Wiring, signer: Signer | str) -> Outbox:
    monitor = wiring.monitor
    return Outbox(
        wiring.ledger,
        wiring.client,
        signer,
        wiring.board,
        chain_id=wiring.settings.chain_id,
        fee_cap_wei=wiring.settings.max_fee_gwei * GWEI,
        has_l1_fee=lambda: monitor.has_l1_fee,
        poll_s=wiring.settings.settlement_poll_seconds,
    )
