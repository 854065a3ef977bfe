"""ChainMonitor: whether chain and contract can be used now, what stands in the way, and how much gas money is left.

One task asks at intervals: often while something is wrong, seldom while all is well and nothing is on its way. Each cause
is raised once and cleared when it is gone; whoever waits for the chain is woken then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from fabstir_desktop.errors import ChainError, ContractNotSupported, WrongChain
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.events import ChainChanged
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.jobs.status import ChainState, ChainStatus
from fabstir_desktop.settlement.alerts import tell_head_age, tell_limits
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.chain_client import GAS_PRICE_ORACLE, ChainClient
from fabstir_desktop.settlement.contracts.base import SettlementContract
from fabstir_desktop.settlement.explorers import chain_name, has_steady_blocks, is_testnet
from fabstir_desktop.settlement.fees import FeeMarket
from fabstir_desktop.settlement.gas_problems import low_gas_problem, no_gas_problem
from fabstir_desktop.settlement.outbox import TYPICAL_CLAIM_BYTES, TYPICAL_CLAIM_GAS
from fabstir_desktop.wallet.signer import Signer

log = logging.getLogger(__name__)

READY_EVERY_S = 10.0
READY_POLLS = 10
IDLE_EVERY_S = 30.0
IDLE_POLLS = 15
"""While all is well the chain is asked every so many polls, at least every so many seconds; less often while nothing is
due or on its way: public RPCs count requests."""
LONGEST_TROUBLE_PAUSE_S = 5.0
PROBE_EVERY_S = 600.0
PROBLEM_CODES = ("C01", "C02", "C06")
_OF_STATE = {ChainState.WRONG_CHAIN: "C01", ChainState.UNREACHABLE: "C02", ChainState.NOT_SUPPORTED: "C06"}


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, for the sentences of problems."""

    waiting_jobs: int = 0
    open_claims: int = 0
    claim_gas: int = TYPICAL_CLAIM_GAS


class ChainMonitor:
    """Watches one chain and one contract."""

    def __init__(
        self,
        client: ChainClient,
        contract: SettlementContract,
        board: ProblemBoard,
        feed: Feed,
        *,
        venue: Venue,
        poll_s: float,
        max_unproven_tokens: int,
        backlog: Callable[[], Backlog],
        on_ready: Callable[[], None],
        look_at_register: Callable[[str], Awaitable[None]] | None = None,
        look_at_earnings: Callable[[str | None], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._contract = contract
        self._board = board
        self._feed = feed
        self._venue = venue
        self._poll_s = poll_s
        self._max_unproven_tokens = max_unproven_tokens
        self._backlog = backlog
        self._on_ready = on_ready
        self._look_at_register = look_at_register
        self._look_at_earnings = look_at_earnings
        self._signer: Signer | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._asking = asyncio.Lock()
        self._looked = asyncio.Event()
        self._failures = 0
        self._probed_at: float | None = None
        self.has_l1_fee = False
        self._status = _before_the_first_look(client, venue)

    @property
    def status(self) -> ChainStatus:
        """A snapshot; cheap."""
        status = self._status
        head_age = status.head_age_s
        if head_age is not None and status.as_of is not None:
            head_age += max(0.0, time.time() - status.as_of)
        backlog = self._backlog()
        return replace(
            status,
            rpc=self._client.pool.active_name,
            head_age_s=head_age,
            submitting=self._signer is not None,
            open_claims=backlog.open_claims,
        )

    @property
    def is_ready(self) -> bool:
        """Whether claims can be made."""
        return self._status.state is ChainState.READY

    async def wait_first_look(self) -> None:
        """Return once it is known whether the chain can be used, or cannot; at once after the first look."""
        await self._looked.wait()

    def set_signer(self, signer: Signer | None) -> None:
        """Another key, or none: read its balance."""
        self._signer = signer
        self._probed_at = None  # the register knows hosts by their address
        if signer is None:
            self._board.clear("G01", "G02")
            self._status = replace(self._status, balance_wei=None, checkpoints_left=None)
        self._feed.publish(ChainChanged())
        self.look_now()

    def start(self) -> None:
        """Begin to watch, in a task of its own."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="chain-monitor")

    async def stop(self) -> None:
        """End. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def look_now(self) -> None:
        """Ask soon: something did not work, or changed."""
        self._wake.set()

    async def refresh(self) -> ChainStatus:
        """Ask now and return what was found."""
        async with self._asking:
            before = self._status.state
            try:
                await self._ask()
            except WrongChain as error:
                self._trouble(ChainState.WRONG_CHAIN, str(error))
            except ContractNotSupported as error:
                self._trouble(ChainState.NOT_SUPPORTED, str(error))
            except ChainError as error:
                self._trouble(ChainState.UNREACHABLE, str(error))
            else:
                self._failures = 0
            self._lock_signer()
            self._board.expire()
            self._looked.set()
            if self._status.state is ChainState.READY and before is not ChainState.READY:
                log.info(
                    "%s: chain %d and contract %s are ready",
                    self._status.rpc,
                    self._venue.chain_id,
                    self._venue.contract,
                )
                self._on_ready()
        return self.status

    # --- the task ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.refresh()
            except Exception:
                log.exception("watching the chain failed; it goes on")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
                await asyncio.sleep(min(self._poll_s, 0.5))  # many failures at once are one question

    def _pause_s(self) -> float:
        if self.is_ready and self._board.stands("G02"):
            return self._poll_s
        if self.is_ready:
            backlog = self._backlog()
            is_idle = not backlog.waiting_jobs and not backlog.open_claims
            every_s, polls = (IDLE_EVERY_S, IDLE_POLLS) if is_idle else (READY_EVERY_S, READY_POLLS)
            return max(self._poll_s, min(every_s, self._poll_s * polls))
        return min(LONGEST_TROUBLE_PAUSE_S, self._poll_s * float(1 << min(self._failures, 8)))

    async def _ask(self) -> None:
        await self._client.pool.verify()
        await self._client.pool.compare_heads()
        head = await self._client.head()
        if self._probed_at is None or time.monotonic() - self._probed_at > PROBE_EVERY_S:
            await self._contract.probe()
            self.has_l1_fee = bool(await self._client.code(GAS_PRICE_ORACLE))
            if self._look_at_register is not None and self._signer is not None:
                await self._look_at_register(self._signer.address)
            self._probed_at = time.monotonic()
        market = await self._client.fee_market(head)
        signer = self._signer
        balance = await self._client.balance_wei(signer.address) if signer is not None else None
        if self._look_at_earnings is not None:
            await self._look_at_earnings(signer.address if signer is not None else None)
        cost = await self._checkpoint_cost_wei(market)
        left = balance // cost if balance is not None and cost > 0 else None
        now = time.time()
        changed = self._status.state is not ChainState.READY or self._status.balance_wei != balance
        self._status = replace(
            self._status,
            state=ChainState.READY,
            detail=f"Connected to {self._status.chain_name} through {self._client.pool.active_name}.",
            head_block=head.number,
            head_age_s=max(0.0, now - head.timestamp),
            balance_wei=balance,
            checkpoint_cost_wei=cost,
            checkpoints_left=left,
            as_of=now,
        )
        self._board.clear(*PROBLEM_CODES)
        self._judge_balance(balance, cost, left)
        tell_limits(self._board, self._client.pool.limited_names, self._client.pool.active_name)
        if has_steady_blocks(self._venue.chain_id):
            tell_head_age(self._board, now - head.timestamp, self._client.pool.active_name)
        if changed:
            self._feed.publish(ChainChanged())

    async def _checkpoint_cost_wei(self, market: FeeMarket) -> int:
        gas = self._backlog().claim_gas
        l1_fee = await self._client.l1_fee_wei(TYPICAL_CLAIM_BYTES) if self.has_l1_fee else 0
        return gas * (market.base_fee_wei + market.tip_wei) + l1_fee

    def _judge_balance(self, balance: int | None, cost: int, left: int | None) -> None:
        if balance is None or left is None:
            return
        if left == 0:
            self._board.raise_(no_gas_problem(cost - balance))
            self._board.clear_all("G01")
            return
        low = low_gas_problem(left)
        self._board.keep("G01", () if low is None else (low.subject,))
        if low is not None:
            self._board.raise_(low)
        self._clear_no_gas()

    def _clear_no_gas(self) -> None:
        if self._board.stands("G02"):
            self._board.clear("G02")
            self._on_ready()

    def _trouble(self, state: ChainState, text: str) -> None:
        self._failures += 1
        self._probed_at = None
        if self._status.state is not state or self._status.detail != text:
            self._status = replace(self._status, state=state, detail=text)
            self._feed.publish(ChainChanged())
        for code in (*PROBLEM_CODES, "C03", "C04"):
            if code != _OF_STATE[state]:
                self._board.clear(code)
        self._board.raise_(self._problem(state, text))

    def _problem(self, state: ChainState, text: str) -> Problem:
        waiting = self._backlog().waiting_jobs
        match state:
            case ChainState.WRONG_CHAIN:
                advice = "Change the RPC, or the chain id, in Settings."
                return problem("C01", f"{text[0].upper()}{text[1:]}.", advice=advice)
            case ChainState.NOT_SUPPORTED:
                return problem("C06", f"{text}.", advice="Check the contract address in Settings.")
            case _:
                queued = f" ({waiting})" if waiting else ""
                message = (
                    f"No contact with {self._status.chain_name} ({text}). Serving goes on up to {self._max_unproven_tokens} "
                    f"unproven tokens for each known job; claims are queued{queued}."
                )
                return problem("C02", message, advice="Check the network and the RPC setting.")

    def _lock_signer(self) -> None:
        """A different chain id locks the signer; the right one opens it again."""
        if self._signer is None:
            return
        if self._status.state is ChainState.WRONG_CHAIN:
            self._signer.lock(self._status.detail)
        elif self._signer.locked_because is not None and self._status.state is ChainState.READY:
            self._signer.unlock()


def _before_the_first_look(client: ChainClient, venue: Venue) -> ChainStatus:
    return ChainStatus(
        state=ChainState.CONNECTING,
        detail=f"Connecting to {chain_name(venue.chain_id)}.",
        rpc=client.pool.active_name,
        chain_id=venue.chain_id,
        chain_name=chain_name(venue.chain_id),
        is_testnet=is_testnet(venue.chain_id),
        contract=venue.contract,
        contract_name=venue.contract_name,
    )
