"""Keeps the host's account as the setting wants it: borrows the code for batches, or gives it back.

It goes the way of every transaction: signed bytes are stored before they are sent, sent again, replaced by dearer ones, and
believed only when they are in a block. What it does follows from the setting and the chain alone, so a kill changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from fabstir_desktop.errors import CallReverted, RpcRefused
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import DELEGATION, DEPLOYMENT, TYPE_4, Slot, SlotState
from fabstir_desktop.jobs.events import TransactionChanged
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.jobs.status import BatchingStatus
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.batch_contract import (
    BATCH_CONTRACT,
    DELEGATION_PREFIX,
    FACTORY,
    OWN_DELEGATION,
    deployment,
)
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.delegation import (
    DELEGATION_GAS,
    PRAGUE_ANSWER,
    PRAGUE_PRECOMPILE,
    PRAGUE_QUESTION,
    Mode,
    Step,
    borrowed_from,
    is_credible,
    is_type_refused,
    mode_of,
    next_step,
    sentence_of,
)
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.wallet.signer import ZERO_ADDRESS

log = logging.getLogger(__name__)

PROBLEM = "X04"
LOOK_EVERY_S = 300.0
"""How often the account's code is read while nothing is wanted of it, and the chain asked again that could not do it."""
SETTLED = frozenset({Step.NOTHING, Step.WAIT})
OLD_NODE = "the RPC's node takes no transactions with borrowed code (EIP-7702)."


@dataclass(slots=True)
class BatchingSwitch:
    """What the host wants, now; shared by all that ask."""

    wanted: bool


class DelegationKeeper:
    """One host's account on one chain. Belongs to the manager's task."""

    def __init__(
        self,
        ledger: Ledger,
        client: ChainClient,
        outbox: Outbox,
        board: ProblemBoard,
        feed: Feed,
        *,
        switch: BatchingSwitch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._outbox = outbox
        self._board = board
        self._feed = feed
        self._switch = switch
        self._clock = clock
        self._code = b""
        self._looked_at = -1e9
        self._asked_at = -1e9
        self._supported: bool | None = None
        self._deployed: bool | None = None
        self._why_not = ""
        self._retry_at = 0.0
        self._tx_hash: str | None = None
        self._step = Step.ASK
        self._seen: bool | None = None
        """What was wanted when the account was last looked at."""
        self._looked = asyncio.Event()

    @property
    def status(self) -> BatchingStatus:
        """As last looked at; no IO."""
        wanted = self._switch.wanted
        sentence = "The chain was not asked yet."
        if self._seen == wanted:
            sentence = sentence_of(self._step, wanted=wanted, code=self._code, why_not=self._why_not)
        is_on = wanted and self._code == OWN_DELEGATION
        return BatchingStatus(wanted, is_on, sentence, BATCH_CONTRACT, borrowed_from(self._code), self._tx_hash)

    async def settled(self, limit_s: float) -> None:
        """Return when what is wanted now is so, on its way, or known to be impossible; or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._seen != self._switch.wanted or self._step not in SETTLED:
                    self._looked.clear()
                    await self._looked.wait()

    async def step(self) -> Mode:
        """Do what is next, and tell how claims are made meanwhile. Raises ChainError, LedgerError, SignerLocked."""
        wanted = self._switch.wanted
        now = self._clock()
        if self._seen == wanted and not wanted and self._step is Step.NOTHING and now - self._looked_at < LOOK_EVERY_S:
            return Mode.SINGLE
        if wanted != self._seen or (self._supported is False and now - self._asked_at > LOOK_EVERY_S):
            self._supported = self._deployed = None
        slots = await self._ledger.slots(self._outbox.sender, [SlotState.OPEN, SlotState.INCLUDED, SlotState.CONFIRMED])
        changes = [slot for slot in slots if slot.kind == DELEGATION]
        code = await self._client.code(self._outbox.sender)
        if not is_credible(code, changes[-1] if changes else None):
            self._outbox.is_delegated = True  # a node that lags: nothing is changed on its word
            return Mode.SINGLE
        self._code, self._looked_at = code, now
        self._outbox.is_delegated = code.startswith(DELEGATION_PREFIX)
        open_slots = [slot for slot in slots if slot.state is SlotState.OPEN]
        step = await self._decide(wanted, open_slots)
        self._seen, self._step = wanted, await self._do(step, open_slots)
        self._tell(wanted)
        self._looked.set()
        return mode_of(self._step, wanted=wanted, code=code)

    async def _decide(self, wanted: bool, open_slots: list[Slot]) -> Step:
        kinds = [slot.kind for slot in open_slots]
        for _ in range(2):
            step = next_step(
                wanted=wanted, code=self._code, open_kinds=kinds, supported=self._supported, deployed=self._deployed
            )
            if step is not Step.ASK:
                break
            await self._ask()
        return step

    async def _ask(self) -> None:
        """Find out whether the chain knows borrowed code, and has ours."""
        self._asked_at = self._clock()
        try:
            answer = await self._client.call(PRAGUE_PRECOMPILE, PRAGUE_QUESTION)
        except (CallReverted, RpcRefused):
            answer = b""
        self._deployed = bool(await self._client.code(BATCH_CONTRACT))
        self._why_not = ""
        if answer != PRAGUE_ANSWER:
            self._why_not = "this chain does not know borrowed code yet (EIP-7702, since the Prague upgrade)."
        elif not self._deployed and not deployment():
            self._why_not = "the code for it is not on this chain, and missing from this installation."
        elif not self._deployed and not await self._client.code(FACTORY):
            self._why_not = (
                f"the code for it is not on this chain, nor the factory at {FACTORY} that would put it there."
            )
        self._supported = not self._why_not

    async def _do(self, step: Step, open_slots: list[Slot]) -> Step:
        """Take the step; returns where things stand then."""
        if step is Step.WAIT:
            await self._rescue(open_slots)
        if step not in (Step.DEPLOY, Step.DELEGATE, Step.UNDELEGATE) or self._clock() < self._retry_at:
            return step
        try:
            slot = await self._send(step)
        except ClaimWaits as wait:  # no money or too dear: claims do not wait for it, they meet the same
            self._retry_at = self._clock() + wait.retry_s
            if wait.problem is not None:
                self._board.raise_(wait.problem)
            return step
        except CallReverted as error:
            self._supported, self._why_not = False, f"putting the code for it on chain fails: {error.reason}."
            return Step.NOTHING
        self._deployed = None  # what is on its way is looked at anew
        self._tx_hash = "0x" + slot.attempts[-1].tx_hash.hex()
        log.info("Batching: %s - tx_hash: %s", step.value, self._tx_hash)
        await self._outbox.send(slot)
        self._feed.publish(TransactionChanged(slot.slot_id))
        return Step.WAIT

    async def _send(self, step: Step) -> Slot:
        """Sign and store what the step needs; it is not sent yet."""
        if step is Step.DEPLOY:
            quote = await self._outbox.quote(FACTORY, deployment())
            return await self._outbox.bind(FACTORY, [], quote, kind=DEPLOYMENT)
        quote = await self._outbox.price(b"", DELEGATION_GAS)
        borrow = BATCH_CONTRACT if step is Step.DELEGATE else ZERO_ADDRESS
        return await self._outbox.bind(self._outbox.sender, [], quote, kind=DELEGATION, borrow=borrow)

    async def _rescue(self, open_slots: list[Slot]) -> None:
        """A change that nodes do not take for its type would hold up every claim: spend its nonce on nothing instead."""
        for slot in open_slots:
            answer = self._outbox.last_answer(slot)
            if slot.attempts[-1].raw[:1] != TYPE_4 or self._outbox.is_accepted(slot) or answer is None:
                continue
            market = await self._outbox.market_now()
            if is_type_refused(answer.text) and market is not None:
                self._supported, self._why_not, self._asked_at = False, OLD_NODE, self._clock()
                await self._outbox.send(await self._outbox.bump(slot, market, borrows=False))

    def _tell(self, wanted: bool) -> None:
        """Say it where batching is wanted and cannot be."""
        if not wanted or self._step is not Step.NOTHING or self._code == OWN_DELEGATION:
            self._board.clear(PROBLEM)
            return
        sentence = sentence_of(self._step, wanted=wanted, code=self._code, why_not=self._why_not)
        self._board.raise_(problem(PROBLEM, f"Claims are not batched. {sentence}"))
