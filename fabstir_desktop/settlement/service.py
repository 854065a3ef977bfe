"""Settlement: what the node starts, asks and stops. Puts the parts of this room together, for one venue.

It comes up whatever is missing (RPC, right chain, contract, key, gas money) and goes on by itself when it is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.inspections import ChainTransaction
from fabstir_desktop.jobs.policy import due_threshold
from fabstir_desktop.jobs.status import BatchingStatus, ChainStatus, CheckpointOutcome
from fabstir_desktop.jobs.views import EarningsView, with_kept
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.admission import WAIT_FOR_CHAIN_S, JobGate
from fabstir_desktop.settlement.alerts import tell_headroom
from fabstir_desktop.settlement.batch_contract import BATCH_CONTRACT
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.chain import RpcEndpoint
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.checkpoint_manager import CheckpointManager
from fabstir_desktop.settlement.contracts import make_contract
from fabstir_desktop.settlement.contracts.base import JobFacts
from fabstir_desktop.settlement.contracts.node_register import NodeRegister
from fabstir_desktop.settlement.delegation_keeper import BatchingSwitch
from fabstir_desktop.settlement.diagnosis import ChainCheck, check_chain, check_claim, claim_not_tried
from fabstir_desktop.settlement.explorers import explorer_url
from fabstir_desktop.settlement.kept_earnings import KeptEarnings
from fabstir_desktop.settlement.looking_up import look_up
from fabstir_desktop.settlement.monitor import Backlog, ChainMonitor
from fabstir_desktop.settlement.rpc_pool import Endpoint, RpcPool
from fabstir_desktop.settlement.speeding import CannotSpeedUp
from fabstir_desktop.settlement.tracker import TokenTracker
from fabstir_desktop.settlement.wiring import Wiring, make_follower, make_manager
from fabstir_desktop.wallet.signer import Signer

log = logging.getLogger(__name__)

NO_KEY = "no host key: tokens are counted, and claimed once a key is added"
DETACH_LIMIT_S = 2.0
KEY_LIMIT_S = 10.0
"""So long known jobs wait at start for a key that may be in a locked keyring."""
BATCHING_LIMIT_S = 15.0
"""How long a change of batching is waited for before its state is told as it is."""


class Settlement:
    """Counting, checkpoints, chain: one object for the node. Belongs to the loop it is started in."""

    # long: the parts of one room, put together once
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
        self._opening: dict[int, int] = {}
        self._key_known = asyncio.Event()
        self._kept = KeptEarnings(ledger, self._contract, feed)
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
            look_at_register=self._make_register(model_sha256),
            look_at_earnings=self._kept.refresh,
        )
        self._gate = self._make_gate()
        self.tracker = TokenTracker(
            ledger,
            feed,
            self._gate,
            venue=self._venue,
            threshold_tokens=due_threshold(settings.checkpoint_threshold, settings.max_unproven_tokens),
            model_sha256=model_sha256,
        )
        """The Accountant that the server uses."""
        self._batching = BatchingSwitch(settings.batch_claims)
        room = (self._client, self._contract, self._board, self._monitor)
        self._wiring = Wiring(settings, self._venue, ledger, feed, *room, self._batching, self._opening)
        self._follower = make_follower(self._wiring, self.tracker, self._managed_sender)

    @property
    def status(self) -> ChainStatus:
        """Chain, contract, gas money; cheap, no IO."""
        return replace(self._monitor.status, withdrawable=self._kept.amounts)

    def with_withdrawals(self, view: EarningsView) -> EarningsView:
        """The ladder with what the contract keeps, as last read; no IO."""
        return with_kept(view, self._kept.amounts, self._kept.as_of)

    async def start(self, *, awaits_key: bool = False) -> None:
        """Close what the last process left open and begin to watch the chain. Raises LedgerError.

        `awaits_key`: `set_signer` will be called soon, with a key or without. Jobs that the ledger knows wait for it, and
        for what comes of it, before they are served (bounded): the chain may know more of them than an old backup.
        """
        self._opening.update(await self._ledger.generated_by_job())
        if awaits_key:
            asyncio.get_running_loop().call_later(KEY_LIMIT_S, self._key_known.set)
        else:
            self._key_known.set()
        await self._ledger.end_all_sessions()
        self._monitor.start()
        self._follower.start()

    async def set_signer(self, signer: Signer | None) -> None:
        """Begin to submit with this key, or (None) only count. What waits is claimed as soon as the chain is there."""
        async with self._switching:
            await self._detach()
            self._gate.signer = signer
            self._gate.forget()
            if signer is not None:
                self._attach(signer)
            self._key_known.set()
            self._monitor.set_signer(signer)

    async def checkpoint(self, job_id: int | None = None) -> list[CheckpointOutcome]:
        """Claim now; says per job what was done or why not. Raises LedgerError."""
        manager = self._manager
        if manager is not None:
            return await manager.checkpoint(job_id)
        jobs = await self._ledger.accounts_with_unclaimed() if job_id is None else [await self._account(job_id)]
        return [CheckpointOutcome(account.job_id, False, 0, None, NO_KEY) for account in jobs if account is not None]

    async def refresh(self) -> ChainStatus:
        """Look at chain, contract and balance now; asked for by hand, after a sleep, or in another network."""
        self._pool.end_rests()
        status = await self._monitor.refresh()
        if self._manager is not None:
            self._manager.retry_now()
        return status

    async def diagnose(self) -> list[ChainCheck]:
        """What `doctor` says about chain, contract and gas money, asked anew; with key and job a claim is tried, not sent."""
        signer = self._gate.signer
        checks = await check_chain(self._client, self._contract, self._venue, signer)
        if not all(check.passed for check in checks):
            return checks  # what failed comes first; a claim cannot be judged without it
        return [*checks, await self._try_claim(signer)]

    async def _try_claim(self, signer: Signer | None) -> ChainCheck:
        """Let the contract judge a claim of a job at hand; without key or job say so, instead of staying silent."""
        if signer is None:
            return claim_not_tried("there is no host key to sign one with", "add your host key")
        views = await self._ledger.job_views()
        job_id = next((view.job_id for view in views if view.state != "settled"), None)
        if job_id is None:
            return claim_not_tried(
                "this host has no open job yet; the first prompt of a job tries one before it is served"
            )
        return await check_claim(self._contract, signer, job_id)

    async def read_job(self, job_id: int) -> JobFacts | None:
        """The job as the contract holds it now; None where it cannot be asked. Raises ChainError."""
        return await self._contract.read_job(job_id)

    async def look_up(self, tx_hash: str) -> ChainTransaction:
        """Ask every endpoint for the transaction, and look again at what is on its way. Raises ChainError, UserError."""
        found = await look_up(self._client, tx_hash)
        if self._manager is not None:
            self._manager.retry_now()
        return found

    async def speed_up(self, tx_hash: str) -> str:
        """Raise the fee of a waiting claim; returns the new hash. Raises CannotSpeedUp, ChainError, LedgerError."""
        if self._manager is None:
            raise CannotSpeedUp("there is no key to sign a dearer transaction with")
        return await self._manager.speed_up(tx_hash)

    @property
    def batching(self) -> BatchingStatus:
        """Whether claims travel together, as last looked at; no IO."""
        if self._manager is None:
            return BatchingStatus(self._batching.wanted, False, f"{NO_KEY[0].upper()}{NO_KEY[1:]}.", BATCH_CONTRACT)
        return self._manager.batching

    async def set_batching(self, wanted: bool, *, limit_s: float = BATCHING_LIMIT_S) -> BatchingStatus:
        """Let claims travel together from now on, or alone; returns when that is so, on its way, or impossible."""
        self._batching.wanted = wanted
        if self._manager is not None:
            await self._manager.batching_changed(limit_s)
        return self.batching

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Sign, store and send the last claims as far as the time goes, then end. Safe to call twice."""
        async with self._switching:
            manager, self._manager, self.tracker.manager = self._manager, None, None
            if manager is not None:
                await manager.stop(timeout_s)
        await self._follower.stop()
        await self._gate.stop()
        await self._monitor.stop()
        await self._pool.close()

    def explorer_url(self, tx_hash: str) -> str | None:
        """Where a transaction can be looked at, if the chain has a public explorer."""
        return explorer_url(self._venue.chain_id, tx_hash)

    # --- within -----------------------------------------------------------------------------------------------------

    def _make_register(self, model_sha256: Callable[[], str]) -> Callable[[str], Awaitable[None]] | None:
        """Only the marketplace has a register of hosts."""
        if self._settings.settlement_contract != "job_marketplace":
            return None
        url, board = self._settings.public_url, self._board
        place = self._venue.contract
        return NodeRegister(self._client, place, board, public_url=url, model_sha256=model_sha256).look

    def _make_gate(self) -> JobGate:
        return JobGate(
            self._ledger,
            self._contract,
            max_unproven_tokens=self._settings.max_unproven_tokens,
            is_ready=lambda: self._monitor.is_ready,
            first_look=self._monitor.wait_first_look,
            recovered=self._wait_recovered,
            on_headroom=partial(tell_headroom, self._board),
            wait_for_chain_s=WAIT_FOR_CHAIN_S if self._settings.unknown_jobs == "wait" else 0.0,
        )

    async def _wait_recovered(self) -> None:
        await self._key_known.wait()
        if self._manager is not None:
            await self._manager.wait_recovered()

    async def _account(self, job_id: int) -> JobAccount | None:
        return await self._ledger.account(job_id)

    def _attach(self, signer: Signer) -> None:
        self._manager = self.tracker.manager = make_manager(self._wiring, signer, self.tracker)
        self._manager.start()
        log.info(
            "Checkpoints are submitted from %s to %s at %s",
            signer.address,
            self._venue.contract_name,
            self._venue.contract,
        )

    async def _detach(self) -> None:
        manager, self._manager, self.tracker.manager = self._manager, None, None
        if manager is not None:
            await manager.stop(DETACH_LIMIT_S)
            log.info("Checkpoints are no longer submitted; tokens are counted")

    def _on_ready(self) -> None:
        if self._manager is not None:
            self._manager.retry_now()

    def _backlog(self) -> Backlog:
        manager, others = self._manager, self._follower.open_claims
        if manager is None:
            return Backlog(open_claims=others)
        return Backlog(manager.waiting_jobs, manager.open_claims + others, manager.claim_gas)

    def _managed_sender(self) -> str | None:
        return self._manager.sender if self._manager is not None else None
