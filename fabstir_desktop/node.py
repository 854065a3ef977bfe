"""HostNode: owns the parts, starts and stops them in order, offers the commands and the feed.

Order of start: ledger (lock, integrity), key, settlement (reconcile), model, server. Model, key and chain come up by
themselves and in their own time; serving and counting never wait for them. Stopping runs the other way: no new work, last
claims signed and stored, then the parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fabstir_desktop import __version__
from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.factory import engine_for
from fabstir_desktop.inspection import check_reach, collect_bundle, find_models, read_chain_job, try_model, try_prompt
from fabstir_desktop.jobs.checks import Check
from fabstir_desktop.jobs.clocks import ClockWatch, Gap
from fabstir_desktop.jobs.diagnosis import derive_problems, describe_gap
from fabstir_desktop.jobs.events import GapNoticed, ServingChanged, WalletChanged
from fabstir_desktop.jobs.generation import Engine
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.inspections import BundleText, ChainJob, ChainTransaction, ModelOnDisk
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import (
    BatchingStatus,
    CheckpointOutcome,
    NodeStatus,
    PauseKind,
    ServingState,
    WalletState,
    WalletStatus,
)
from fabstir_desktop.jobs.views import EarningsView
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.ledger_reads import LedgerReads, running
from fabstir_desktop.server.api_server import ApiServer
from fabstir_desktop.server.exposure import exposure_after
from fabstir_desktop.serving import Serving
from fabstir_desktop.settings import BATCHING, Settings, save_setting
from fabstir_desktop.settlement.batch_contract import claim_signer
from fabstir_desktop.settlement.service import Settlement
from fabstir_desktop.settlement.signing import read_signed
from fabstir_desktop.standing import StandingProblems
from fabstir_desktop.tasks import Deadline, OwnTasks, every, finish_within
from fabstir_desktop.wallet.creation import address_of, create_key
from fabstir_desktop.wallet.wallet import ENVIRONMENT, Wallet

log = logging.getLogger(__name__)

_HOUSEKEEPING_S = 0.5
DEMO_KEY_PLACE = "memory, made for this demo and thrown away with it"
_RUN_MARK_S = 60.0
_PORT_RETRY_S = 5.0
_KEY_RETRY_S = 30.0
_DRAIN_SHARE = 0.5
"""Share of the time to stop that sessions and last claims may use, before the parts are ended."""


class HostNode(LedgerReads):
    """The application without its face. All methods belong to the loop it was started in."""

    def __init__(
        self,
        settings: Settings,
        *,
        overrides: Mapping[str, Any] | None = None,
        demo: bool = False,
        engine: Engine | None = None,
    ) -> None:
        """`overrides` is the command line, kept to tell where a setting came from; `engine` replaces the configured one."""
        self.settings = settings
        self.overrides = dict(overrides or {})
        self.feed = Feed()
        self.demo = demo
        self.started_at = time.time()
        self.on_raise_window: Callable[[], None] | None = None
        self.on_quit: Callable[[], None] | None = None
        self._engine = engine or engine_for(settings, self.feed)
        self._wallet = Wallet(
            settings.data_dir,
            environment_key=settings.host_private_key,
            environment_place=DEMO_KEY_PLACE if demo else ENVIRONMENT,
        )
        self._problems = StandingProblems(self.feed)
        self._serving = Serving(lambda: self.feed.publish(ServingChanged()))
        self._clocks = ClockWatch(_HOUSEKEEPING_S)
        self._loop_lag_ms = 0.0
        self._tasks = OwnTasks()
        self._settlement: Settlement | None = None
        self._server: ApiServer | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every part. Returns when the ledger is open and the server listens; model and chain follow by themselves.

        A taken port is a problem that is tried again, not an error. Raises LedgerError, SettingError.
        """
        self._serving.enter(ServingState.STARTING)
        settings = self.settings
        venue = Venue(settings.chain_id, settings.contract_address, settings.settlement_contract)
        self._ledger = await Ledger.open(settings.ledger_path, venue, reads=read_signed)
        self._settlement = Settlement(settings, self._ledger, self.feed, model_sha256=self._model_sha256)
        self._server = ApiServer(settings, self._engine, self._settlement.tracker, self, self.feed)
        self._serving.attach(self._server)
        await self._settlement.start(awaits_key=True)
        await self._engine.start()
        self._serving.enter(ServingState.SERVING)
        await self._listen()
        self._tasks.start(self._load_key(), "key")
        self._tasks.start(self._keep_house(), "housekeeping")
        marking = every(_RUN_MARK_S, self._ledger.note_running, "the ledger did not take the time mark")
        self._tasks.start(marking, "run marks")

    async def stop(self, timeout_s: float = 5.0) -> None:
        """No new work, end sessions, sign and store last claims, stop every part. Safe to call twice."""
        if self.serving_state is ServingState.STOPPED:
            return
        self._serving.enter(ServingState.DRAINING)
        deadline = Deadline(timeout_s)
        await self._tasks.finish(0)
        share_s = timeout_s * _DRAIN_SHARE / 2
        if self._server is not None:
            await finish_within("server", self._server.stop(share_s), min(share_s + 0.5, deadline.left_s(2.0)))
        if self._settlement is not None:
            await finish_within("settlement", self._settlement.stop(share_s), min(share_s + 0.5, deadline.left_s(1.5)))
        await finish_within("engine", self._engine.stop(timeout_s / 5), min(timeout_s / 5 + 0.5, deadline.left_s(0.5)))
        self._wallet.close()
        if self._ledger is not None:
            await finish_within("ledger", self._ledger.close(), deadline.left_s(at_least_s=0.5))
        self._serving.enter(ServingState.STOPPED)

    async def pause(
        self, duration_s: float | None = None, *, reason: str = "", kind: PauseKind = PauseKind.NOW
    ) -> None:
        """Take no new prompts; running ones end. With a duration it resumes by itself. `reason`: nobody asked by hand."""
        self._serving.pause(duration_s, reason=reason, kind=kind)

    async def resume(self) -> None:
        """Take prompts again."""
        self._serving.resume()

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> NodeStatus:
        """A fresh snapshot; cheap, no IO. Raises EnvironmentFault before the first start."""
        settlement, server = running(self._settlement), running(self._server)
        engine = self._engine.status
        chain = settlement.status
        return NodeStatus(
            version=__version__,
            state=self.serving_state,
            sentence=self._serving.describe(engine, self.problems, submitting=chain.submitting),
            engine=engine,
            wallet=self._wallet.status,
            chain=chain,
            server=server.status,
            started_at=self.started_at,
            resume_at=self._serving.resume_at,
            loop_lag_ms=self._loop_lag_ms,
            data_dir=str(self.settings.data_dir),
            demo=self.demo,
        )

    async def earnings(self) -> EarningsView:
        """The ladder, with what was taken out of a contract that keeps a balance."""
        return running(self._settlement).with_withdrawals(await super().earnings())

    @property
    def serving_state(self) -> ServingState:
        """Whether prompts are taken."""
        return self._serving.state

    @property
    def pause_reason(self) -> str:
        """Why it pauses by itself; empty if it does not."""
        return self._serving.reason

    @property
    def problems(self) -> Sequence[Problem]:
        """What stands now, worst first."""
        return tuple(self._problems)

    # --- commands ---------------------------------------------------------------------------------------------------

    def dismiss(self, problems: Collection[Problem]) -> None:
        """Put problems away that the host has read; those that must be mended stay."""
        self._problems.dismiss(problems)

    async def load_again(self) -> None:
        """Try the model again after the engine gave up."""
        await self._engine.start()

    async def checkpoint(self, job_id: int | None = None) -> list[CheckpointOutcome]:
        """Claim now what the job (or every job) has unclaimed; says per job what was done or why not."""
        return await running(self._settlement).checkpoint(job_id)

    async def set_key(self, text: str, *, replace: bool = False, password: str | None = None) -> WalletStatus:
        """Store the key in the keyring (with a password: in the encrypted keystore file) and begin to submit.

        Raises KeyInvalid, KeyExists (another key is stored and `replace` is false), KeyringUnavailable, KeyringLocked.
        """
        status = await self._wallet.set_key(text, replace=replace, password=password)
        await self._use_key()
        return status

    async def keep_environment_key(self) -> WalletStatus:
        """Copy the key of the environment into the keyring. Raises KeyMissing and what `set_key` raises."""
        return await self._wallet.keep_environment_key()

    async def create_key(self, copy_path: Path, password: str, *, in_file: bool) -> WalletStatus:
        """Make a key, keep an encrypted copy of it, then store it and begin to submit. Raises what wallet.creation says."""
        status = await create_key(self._wallet, copy_path, password, in_file=in_file)
        await self._use_key()
        return status

    async def address_of_key(self, text: str) -> str:
        """Whose key this is; nothing is stored. Raises KeyInvalid."""
        return await address_of(text)

    async def unlock_keystore(self, password: str) -> WalletStatus:
        """Open the encrypted keystore file. Raises KeyMissing, KeyringLocked (wrong password), KeyInvalid."""
        status = await self._wallet.unlock_file(password)
        await self._use_key()
        return status

    async def remove_key(self) -> None:
        """Remove the stored key; the node goes on counting."""
        await self._wallet.remove_key()
        await self._use_key()

    async def reload_key(self) -> None:
        """Look for the key again: another process stored or removed it, or the keyring was unlocked."""
        await self._wallet.load()
        await self._use_key()

    async def accept_found_key(self) -> WalletStatus:
        """Work from now on with the other key that was found in the place of this host's. Raises KeyMissing."""
        status = await self._wallet.accept_found()
        await self._use_key()
        return status

    def abandon_key_wait(self) -> None:
        """Wait no more for a keyring that does not answer; its key counts as locked until it is asked again."""
        self._wallet.give_up_waiting()

    async def load_model(self, path: Path) -> None:
        """Serve another model once running requests have ended; also stored as the setting. Raises ModelFileError."""
        await self._engine.load(str(path))
        await self.save_setting("model_path", path)

    async def save_setting(self, name: str, value: Any) -> None:
        """Write a setting into settings.toml (None: back to the default). Raises SettingError."""
        await asyncio.to_thread(save_setting, self.settings.data_dir, name, value)
        if name == BATCHING:
            self.settings = self.settings.model_copy(update={name: bool(value)})
            await running(self._settlement).set_batching(bool(value))

    @property
    def batching(self) -> BatchingStatus:
        """Whether claims travel together, as last looked at; no IO."""
        return running(self._settlement).batching

    def exposure(self, changes: Mapping[str, Any]) -> Sequence[str]:
        """What would be reachable from beyond this machine with these settings changed; none if nothing would.

        Raises SettingError.
        """
        return exposure_after(self.settings, changes).sentences

    async def refresh_chain(self) -> None:
        """Look at chain, contract and balance now instead of at the next poll."""
        await running(self._settlement).refresh()

    async def self_test(self, on_text: Callable[[str], None]) -> list[Check]:
        """Stream one free prompt through the real socket and count it, then ask the chain anew; no transaction is sent.

        `on_text` is given the answer as it comes. What fails is a check that did not pass, not an error.
        """
        checks = [await try_prompt(running(self._server).status.url, on_text)]
        found = await running(self._settlement).diagnose()
        return checks + [Check(check.name, check.passed, check.detail, check.action) for check in found]

    async def check_reach(self) -> Check:
        """Try the public address as a customer would; without one the check fails and says what to set."""
        return await check_reach(self.settings.public_url, running(self._server))

    async def list_models(self, folders: Sequence[Path]) -> list[ModelOnDisk]:
        """The model files in these folders, each with an estimate whether it fits."""
        return await find_models(folders, self.settings)

    async def try_model(self, path: Path) -> str:
        """Load a file beside the one that is served, and let it go again. Raises ModelFileError."""
        return await try_model(path, self.settings)

    async def chain_job(self, job_id: int) -> ChainJob:
        """What the contract says of the job; says why where it says nothing."""
        return await read_chain_job(running(self._settlement), job_id)

    async def look_up(self, tx_hash: str) -> ChainTransaction:
        """What every endpoint says of a transaction. Raises UserError, ChainError."""
        return await running(self._settlement).look_up(tx_hash)

    async def speed_up(self, tx_hash: str) -> str:
        """Raise the fee of a waiting claim; returns the new hash. Raises UserError, ChainError, LedgerError."""
        return await running(self._settlement).speed_up(tx_hash)

    async def back_up_key(self, path: Path, password: str) -> None:
        """Write the key, encrypted, to a file. Raises KeyMissing, KeyExists, KeyInvalid, EnvironmentFault."""
        await self._wallet.back_up(path, password)

    async def diagnostics(self, log_lines: Sequence[str]) -> list[BundleText]:
        """The texts of a diagnostic bundle, redacted."""
        settlement = running(self._settlement)
        return await collect_bundle(self.status, self.problems, self.settings, settlement, log_lines)

    # --- own --------------------------------------------------------------------------------------------------------

    def _model_sha256(self) -> str:
        model = self._engine.status.model
        return model.sha256 if model else ""

    async def _listen(self) -> None:
        try:
            url = await running(self._server).start()
        except EnvironmentFault as error:
            log.error("%s", error)
            self._tasks.start(self._listen_later(), "listen later")
        else:
            log.info("Listening on %s", url)

    async def _listen_later(self) -> None:
        server = running(self._server)
        while server.status.url is None:
            await asyncio.sleep(_PORT_RETRY_S)
            with contextlib.suppress(EnvironmentFault):
                log.info("Listening on %s", await server.start())

    async def _load_key(self) -> None:
        """Find the key; while the keyring is locked or away, look again from time to time, without asking again."""
        await self.reload_key()
        while self._wallet.status.state in {WalletState.LOCKED, WalletState.UNAVAILABLE}:
            await asyncio.sleep(_KEY_RETRY_S)
            if (await self._wallet.load(ask=False)).state is WalletState.READY:
                await self._use_key()

    async def _use_key(self) -> None:
        await running(self._settlement).set_signer(claim_signer(self._wallet, self.settings))
        self.feed.publish(WalletChanged())

    async def _keep_house(self) -> None:
        """Twice a second: measure the loop's lag, derive problems, end a timed pause."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _HOUSEKEEPING_S
            await asyncio.sleep(_HOUSEKEEPING_S)
            self._loop_lag_ms = max(0.0, (loop.time() - due) * 1000)
            self._derive_problems()
            self._serving.look()
            if (gap := self._clocks.look()) is not None:
                self._tasks.start(self._go_on_after(gap), "after a gap")

    async def _go_on_after(self, gap: Gap) -> None:
        """What was known of the network may not hold any more: ask everybody anew, and send what waits."""
        log.info("%s", describe_gap(gap, time.time()))
        self.feed.publish(GapNoticed(gap))
        await self.refresh_chain()

    def _derive_problems(self) -> None:
        ledger, server = running(self._ledger), running(self._server)
        states = (self._wallet.status, self._engine.status, server.status, ledger.failure)
        doing = self._serving.describe(self._engine.status, (), submitting=True)
        self._problems.derive(derive_problems(*states, self.serving_state, doing))
