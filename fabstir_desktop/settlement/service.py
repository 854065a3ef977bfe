"""Settlement: what the node starts, asks and stops. Puts the parts of this room together, for one venue.

It comes up whatever is missing (RPC, right chain, contract, key, gas money) and goes on by itself when it is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.status import ChainStatus, CheckpointOutcome
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.admission import JobGate
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.chain import RpcEndpoint
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.checkpoint_manager import CheckpointManager, ManagerParts
from fabstir_desktop.settlement.claimer import Claimer
from fabstir_desktop.settlement.completer import Completer
from fabstir_desktop.settlement.contracts import make_contract
from fabstir_desktop.settlement.diagnosis import ChainCheck, check_chain
from fabstir_desktop.settlement.explorers import explorer_url
from fabstir_desktop.settlement.fees import GWEI
from fabstir_desktop.settlement.monitor import Backlog, ChainMonitor
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.settlement.payments import PaymentReader
from fabstir_desktop.settlement.proof_store import ProofStore
from fabstir_desktop.settlement.reconciler import Reconciler
from fabstir_desktop.settlement.recovery import Recovery
from fabstir_desktop.settlement.rpc_pool import Endpoint, RpcPool
from fabstir_desktop.settlement.tracker import TokenTracker
from fabstir_desktop.wallet.signer import Signer

log = logging.getLogger(__name__)

NO_KEY = "no host key: tokens are counted, and claimed once a key is added"
DETACH_LIMIT_S = 2.0


class Settlement:
    """Counting, checkpoints, chain: one object for the node. Belongs to the loop it is started in."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        feed: Feed,
        *,
        model_sha256: Callable[[], str],
        endpoints: Sequence[Endpoint] | None = None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._feed = feed
        self._venue = Venue(settings.chain_id, settings.contract_address, settings.settlement_contract)
        self._pool = RpcPool(endpoints or [RpcEndpoint(url) for url in settings.rpc_url], settings.chain_id)
        self._client = ChainClient(self._pool)
        self._contract = make_contract(self._venue, self._client)
        self._board = ProblemBoard(feed)
        self._manager: CheckpointManager | None = None
        self._switching = asyncio.Lock()
        self._monitor = ChainMonitor(
            self._client,
            self._contract,
            self._board,
            feed,
            venue=self._venue,
            poll_s=settings.settlement_poll_seconds,
            max_unproven_tokens=settings.max_unproven_tokens,
            backlog=self._backlog,
            on_ready=self._on_ready,
        )
        self._gate = JobGate(
            ledger,
            self._contract,
            max_unproven_tokens=settings.max_unproven_tokens,
            is_ready=lambda: self._monitor.is_ready,
            first_look=self._monitor.wait_first_look,
        )
        self.tracker = TokenTracker(
            ledger,
            feed,
            self._gate,
            venue=self._venue,
            threshold_tokens=settings.checkpoint_threshold,
            model_sha256=model_sha256,
        )
        """The Accountant that the server uses."""

    @property
    def status(self) -> ChainStatus:
        """Chain, contract, gas money; cheap, no IO."""
        return self._monitor.status

    async def start(self) -> None:
        """Close what the last process left open and begin to watch the chain. Raises LedgerError."""
        await self._ledger.end_all_sessions()
        self._monitor.start()

    async def set_signer(self, signer: Signer | None) -> None:
        """Begin to submit with this key, or (None) only count. What waits is claimed as soon as the chain is there."""
        async with self._switching:
            await self._detach()
            self._gate.signer = signer
            self._gate.forget()
            if signer is not None:
                self._attach(signer)
            self._monitor.set_signer(signer)

    async def checkpoint(self, job_id: int | None = None) -> list[CheckpointOutcome]:
        """Claim now; says per job what was done or why not. Raises LedgerError."""
        manager = self._manager
        if manager is not None:
            return await manager.checkpoint(job_id)
        jobs = await self._ledger.accounts_with_unclaimed() if job_id is None else [await self._account(job_id)]
        return [CheckpointOutcome(account.job_id, False, 0, None, NO_KEY) for account in jobs if account is not None]

    async def refresh(self) -> ChainStatus:
        """Look at chain, contract and balance now."""
        status = await self._monitor.refresh()
        if self._manager is not None:
            self._manager.retry_now()
        return status

    async def diagnose(self) -> list[ChainCheck]:
        """What `doctor` says about chain, contract and gas money, asked anew."""
        return await check_chain(self._client, self._contract, self._venue, self._gate.signer)

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Sign, store and send the last claims as far as the time goes, then end. Safe to call twice."""
        async with self._switching:
            manager, self._manager, self.tracker.manager = self._manager, None, None
            if manager is not None:
                await manager.stop(timeout_s)
        await self._monitor.stop()
        await self._pool.close()

    def explorer_url(self, tx_hash: str) -> str | None:
        """Where a transaction can be looked at, if the chain has a public explorer."""
        return explorer_url(self._venue.chain_id, tx_hash)

    # --- within -----------------------------------------------------------------------------------------------------

    async def _account(self, job_id: int) -> JobAccount | None:
        return await self._ledger.account(job_id)

    def _attach(self, signer: Signer) -> None:
        settings = self._settings
        outbox = Outbox(
            self._ledger,
            self._client,
            signer,
            self._board,
            chain_id=settings.chain_id,
            fee_cap_wei=settings.max_fee_gwei * GWEI,
            has_l1_fee=lambda: self._monitor.has_l1_fee,
            poll_s=settings.settlement_poll_seconds,
        )
        proofs = ProofStore(self._ledger, self._venue, settings.proofs_dir, self.tracker.answer_start)
        common = (self._ledger, self._client, self._contract)
        claimer = Claimer(
            *common,
            signer,
            outbox,
            proofs,
            self._board,
            self._feed,
            threshold_tokens=settings.checkpoint_threshold,
        )
        parts = ManagerParts(
            ledger=self._ledger,
            feed=self._feed,
            board=self._board,
            claimer=claimer,
            outbox=outbox,
            reconciler=Reconciler(
                *common, outbox, self._board, self._feed, confirmations=settings.confirmations
            ),
            payments=PaymentReader(*common, self._feed, host=signer.address, confirmations=settings.confirmations),
            recovery=Recovery(self._ledger, self._contract, self._board, self._feed, host=signer.address),
            completer=Completer(
                *common,
                outbox,
                self._board,
                self._feed,
                has_session=self.tracker.has_session,
                poll_s=settings.settlement_poll_seconds,
            ),
            contract=self._contract,
        )
        self._manager = self.tracker.manager = CheckpointManager(
            parts,
            poll_s=settings.settlement_poll_seconds,
            is_ready=lambda: self._monitor.is_ready,
            has_session=self.tracker.has_session,
            on_account=self.tracker.note_account,
            on_trouble=self._monitor.look_now,
        )
        self._manager.start()
        log.info("Checkpoints are submitted from %s to %s at %s", signer.address, self._venue.contract_name, self._venue.contract)

    async def _detach(self) -> None:
        manager, self._manager, self.tracker.manager = self._manager, None, None
        if manager is not None:
            await manager.stop(DETACH_LIMIT_S)
            log.info("Checkpoints are no longer submitted; tokens are counted")

    def _on_ready(self) -> None:
        if self._manager is not None:
            self._manager.retry_now()

    def _backlog(self) -> Backlog:
        manager = self._manager
        return Backlog() if manager is None else Backlog(manager.waiting_jobs, manager.open_claims, manager.claim_gas)
