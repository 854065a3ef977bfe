"""The real settlement over the chain in memory, driven by hand: no thread, no network, no clock but the test's.

The ledger's own statements run on one connection that outlives the process under test; a process dies at any write or any
question to a node, before or after it was done, and from then on can do nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import apsw
import rlp
from eth_utils.crypto import keccak
from ledger_support import memory_database
from model_chain import CHAIN_ID, CONTRACT
from model_endpoint import ModelEndpoint
from secrets_support import canary_key
from settlement_support import MODEL, make_settings

from fabstir_desktop.errors import FabstirError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.generation import Accepted, GenerationRequest, Message, SamplingParameters
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger import tokens
from fabstir_desktop.ledger.committer import _own
from fabstir_desktop.ledger.connection import PRAGMAS
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement import batch_judge, checkpoint_manager, claimer, completer, monitor, outbox
from fabstir_desktop.settlement.service import Settlement
from fabstir_desktop.settlement.wiring import make_manager
from fabstir_desktop.wallet.keys import parse_private_key
from fabstir_desktop.wallet.signer import SignedTransaction, Signer, UnsignedTransaction, read_payload

KEY = parse_private_key(canary_key())
TEMPLATE = memory_database()
QUICK_READ = lru_cache(4096)(read_payload)
READING_MODULES: tuple[ModuleType, ...] = (batch_judge, outbox)
TIMED_MODULES: tuple[ModuleType, ...] = (checkpoint_manager, claimer, completer, monitor)


LONGEST_DEED_S = 60.0
"""No deed waits for anything but itself; one that does is a mistake of the test's."""


class Killed(BaseException):
    """The process is gone at this very step."""


class Clock:
    """Seconds as the test says; stands in for the module `time`."""

    def __init__(self) -> None:
        self.passed_s = 1000.0
        self._began_at = time.time() - self.passed_s

    def monotonic(self) -> float:
        return self.passed_s

    def time(self) -> float:
        return self._began_at + self.passed_s


class Fate:
    """When the process dies: after so many steps, each the beginning or the end of a write or of a question to a node."""

    def __init__(self) -> None:
        self.steps_left: int | None = None
        self.is_dead = False
        self.died_at = ""

    def step(self, name: str) -> None:
        if self.is_dead:
            raise Killed
        if self.steps_left is None:
            return
        self.steps_left -= 1
        if self.steps_left <= 0:
            self.is_dead, self.died_at = True, name
            raise Killed


class InlineEngine:
    """LedgerEngine without threads: each write is a transaction of its own, done when it is asked for."""

    failure = None

    def __init__(self, db: apsw.Connection, fate: Fate, on_written: Callable[[], None]) -> None:
        self.venue_id = 1
        self._db = db
        self._fate = fate
        self._on_written = on_written

    async def read(self, question: Callable[[apsw.Connection], Any]) -> Any:
        if self._fate.is_dead:
            raise Killed
        return question(self._db)

    async def write(self, apply: Callable[[apsw.Connection], Any], *, durable: bool) -> Any:
        return self._transact(apply)

    def add_tokens(self, ticket_id: int, token_ids: Sequence[int]) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(self._transact(lambda db: tokens.count_tokens(db, ticket_id, tuple(token_ids))))
        return future

    async def close(self) -> None:
        pass

    def _transact(self, apply: Callable[[apsw.Connection], Any]) -> Any:
        self._fate.step("before a write")
        self._db.execute("BEGIN")
        try:
            result = apply(self._db)
        except (apsw.Error, Exception) as error:
            self._db.execute("ROLLBACK")
            raise _own(error) from error
        self._db.execute("COMMIT")
        self._on_written()
        self._fate.step("after a write")
        return result


class QuickSigner(Signer):
    """The signer's own checks, and signatures that nobody verifies here: real ones take longer than all the rest."""

    async def sign_transaction(self, transaction: UnsignedTransaction) -> SignedTransaction:
        self._check(transaction)
        numbers = (transaction.chain_id, transaction.nonce, transaction.max_priority_fee_per_gas_wei)
        fields = [*numbers, transaction.max_fee_per_gas_wei, transaction.gas_limit, bytes.fromhex(transaction.to[2:])]
        raw = b"\x02" + rlp.encode([*fields, transaction.value_wei, transaction.data, [], 1, 1, 1])
        return SignedTransaction(raw, keccak(raw))

    async def sign_proof(self, proof_hash: bytes, tokens: int) -> bytes:
        self._check_open()
        return keccak(proof_hash + tokens.to_bytes(32, "big")) * 2 + b"\x1b"


class InlineExecutor(ThreadPoolExecutor):
    """Does at once what is handed to it."""

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            future.set_exception(error)
        return future


class ModelHost:
    """A host on the chain in memory, over its lives."""

    def __init__(self, endpoints: Sequence[ModelEndpoint], folder: Path, *, on_written: Callable[[], None]) -> None:
        self.db = apsw.Connection(":memory:")
        with self.db.backup("main", TEMPLATE, "main") as copying:
            copying.step()
        for pragma in PRAGMAS:
            self.db.execute(pragma)
        self.db.execute("UPDATE venue SET contract = ?", (CONTRACT,))
        self.clock = Clock()
        self.endpoints = endpoints
        self.on_written = on_written
        self.settings = make_settings(folder, "http://model", CHAIN_ID, CONTRACT, settlement_poll_seconds=2.0)
        self.loop = asyncio.new_event_loop()
        self.executor: Executor = InlineExecutor(1)
        self.loop.set_default_executor(self.executor)  # type: ignore[arg-type]
        self._patches = contextlib.ExitStack()
        for module in TIMED_MODULES:
            self._patches.enter_context(patch.object(module, "time", self.clock))
        for module in READING_MODULES:
            self._patches.enter_context(patch.object(module, "read_payload", QUICK_READ))
        self.fate = Fate()
        logging.disable(logging.CRITICAL)

    def close(self) -> None:
        logging.disable(logging.NOTSET)
        self._patches.close()
        self.loop.close()
        self.db.close()

    # --- lives ------------------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Start anew over what is on disk, as the node does; it may die in it."""
        self.fate, steps = Fate(), self.fate.steps_left if not self.fate.is_dead else None
        self.fate.steps_left = steps
        for endpoint in self.endpoints:
            endpoint.before = lambda method, _params: self.fate.step(f"before {method}")
            endpoint.after = lambda method, _params: self.fate.step(f"after {method}")
        self.ledger = Ledger(
            Venue(CHAIN_ID, CONTRACT, "proof_system"), InlineEngine(self.db, self.fate, self.on_written)
        )
        self.settlement = Settlement(
            self.settings, self.ledger, Feed(), model_sha256=lambda: MODEL, endpoints=self.endpoints
        )
        signer = QuickSigner(KEY, chain_id=CHAIN_ID, contracts=frozenset({CONTRACT}))
        self.manager = make_manager(self.settlement._wiring, signer, self.settlement.tracker)
        self.settlement._manager = self.settlement.tracker.manager = self.manager
        self.settlement._gate.signer = signer
        self.settlement._key_known.set()
        self.settlement._monitor._signer = signer
        self._set_clocks()
        self.act(self._begin())

    async def _begin(self) -> None:
        await self.ledger.end_all_sessions()
        await self.settlement._monitor.refresh()

    def _set_clocks(self) -> None:
        """Every part of the room that has a clock gets the test's."""
        waiting, known = [self.settlement, self.manager], set()
        while waiting:
            part = waiting.pop()
            if id(part) in known or not type(part).__module__.startswith("fabstir_desktop.settlement"):
                continue
            known.add(id(part))
            names = [*getattr(part, "__dict__", {}), *getattr(type(part), "__slots__", ())]
            waiting += [getattr(part, name, None) for name in names]
            if hasattr(part, "_clock"):
                part._clock = self.clock.time if part._clock is time.time else self.clock.monotonic

    # --- acts -------------------------------------------------------------------------------------------------------

    def act(self, deed: Awaitable[Any]) -> Any:
        """Run a deed to its end, or to the process's; what the product may raise to its callers is an answer too."""

        async def guarded() -> Any:
            try:
                async with asyncio.timeout(LONGEST_DEED_S):
                    return await deed
            except FabstirError as error:
                return error

        try:
            return self.loop.run_until_complete(guarded())
        except Killed:
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.wait(left))
            return None

    def tick(self, passed_s: float = 2.5) -> None:
        """One turn of the manager, and a look of the monitor where it would look."""
        self.clock.passed_s += passed_s

        async def turn() -> None:
            await self.settlement._monitor.refresh()
            await self.manager._turn()

        self.act(turn())

    def force(self, job_id: int) -> None:
        """A claim by hand."""
        self.clock.passed_s += 2.5
        self.act(self.beside_a_turn(self.settlement.checkpoint(job_id)))

    async def beside_a_turn(self, deed: Coroutine[Any, Any, Any]) -> None:
        """Run a deed; if it waits for what turns do, a turn beside it. What it still waits for after that never comes."""
        task = asyncio.ensure_future(deed)
        try:
            if not await self.is_done(task):
                await self.manager._turn()
                await self.is_done(task)
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    @staticmethod
    async def is_done(task: asyncio.Task[Any]) -> bool:
        """Whether a task ends by itself: nothing here takes time, so going round the loop is enough."""
        for _ in range(300):
            if task.done():
                return True
            await asyncio.sleep(0)
        return task.done()

    def generate(self, job_id: int, count: int, session_id: str) -> int:
        """An answer as the server would count it; returns how many tokens are in the ledger for it."""

        async def answer() -> None:
            tracker = self.settlement.tracker
            ticket = await tracker.admit(job_id, session_id, "127.0.0.1", count)
            allowed = count if ticket.allowed_tokens is None else min(count, ticket.allowed_tokens)
            request = GenerationRequest("r", (Message("user", "hello"),), count, SamplingParameters(seed=7))
            await tracker.begin(ticket, request, Accepted((1, 2, 3), 2048, 7))
            for first in range(0, allowed, 40):
                await tracker.record(ticket, range(first, min(first + 40, allowed)))
            await tracker.finish(ticket, "stop")

        before = self.generated(job_id)
        self.act(self.beside_a_turn(answer()))
        return self.generated(job_id) - before

    def generated(self, job_id: int) -> int:
        """The job's tokens in the ledger."""
        row = self.db.execute("SELECT generated FROM job WHERE job_id = ?", (str(job_id),)).fetchone()
        return row[0] if row else 0
