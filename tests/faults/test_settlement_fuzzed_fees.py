"""Nodes that answer anything to questions about fees: whatever is signed stays within the host's cap.

Replies go the whole way (client, quote, signature, bumps, what a pool asks for), and each signed transaction is decoded.
`--long` signs 50,000; `--seed` plays a hunt again.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from typing import Any

import pytest
from hunting import hunt_seed
from ledger_support import memory_database
from model_chain import CHAIN_ID, CONTRACT, ModelChain, read_raw, refused
from model_endpoint import ModelEndpoint
from model_host import KEY, Fate, InlineEngine, QuickSigner

from fabstir_desktop.errors import ChainError
from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.claims import Slot
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.fees import FeeMarket
from fabstir_desktop.settlement.outbox import Outbox
from fabstir_desktop.settlement.rpc_pool import RpcPool
from fabstir_desktop.wallet.signer import SignedTransaction, UnsignedTransaction

SHORT, LONG = 5_000, 50_000
MUST_MEET = ("signed first", "signed again", "at the cap", "too dear", "not to be read", "mended", "sane")
BROKEN: tuple[Any, ...] = (None, "", "0x", "0xzz", "-0x1", 7, 1.5, [], {}, ["0x1"], True, "latest")


class FuzzedEndpoint(ModelEndpoint):
    """Answers about fees, gas and balance are drawn; `wildness` is the share that is no answer at all."""

    def __init__(self, chain: ModelChain, chance: random.Random, cap_wei: int) -> None:
        super().__init__(chain)
        self.chance = chance
        self.cap_wei = cap_wei
        self.wildness = 0.02

    def number(self) -> Any:
        """A quantity: small, near the cap, enormous; or something that is none."""
        if self.chance.random() < self.wildness:
            return self.chance.choice(BROKEN)
        near = self.cap_wei // self.chance.choice((1, 2, 3)) + self.chance.randint(-2, 2)
        sane = self.chance.randint(1, max(1, self.cap_wei // 3))
        return hex(max(0, self.chance.choice((0, 1, sane, sane, sane, near, self.cap_wei * 2, 2**64, 2**256 - 1))))

    def _eth_feeHistory(self, *_: Any) -> Any:  # noqa: N802
        if self.chance.random() < self.wildness:
            return self.chance.choice((*BROKEN, {"baseFeePerGas": []}, {"reward": None}))
        rewards = [[self.number() for _ in range(self.chance.choice((0, 1, 1, 2)))] for _ in range(20)]
        if self.chance.random() < 0.7:
            rewards = [[hex(self.chance.randint(0, 10**7))]] * self.chance.randint(0, 20)
        return {"baseFeePerGas": [self.number() for _ in range(self.chance.randint(0, 3))], "reward": rewards}

    def _eth_getBlockByNumber(self, which: str, full: bool) -> Any:  # noqa: N802
        return {**super()._eth_getBlockByNumber(which, full), "baseFeePerGas": self.number()}

    def _eth_estimateGas(self, _call: Any, _block: str) -> Any:  # noqa: N802
        gas = (21_000, 80_000, 30_000_000, 2**63)
        return (
            self.number()
            if self.chance.random() < self.wildness
            else hex(self.chance.choice(gas[: self.chance.choice((2, 2, 4))]))
        )

    def _eth_getBalance(self, *_: Any) -> Any:  # noqa: N802
        return self.number() if self.chance.random() < self.wildness else hex(10**30)

    def _eth_call(self, *_: Any) -> Any:
        return "0x" + self.chance.randrange(10**15).to_bytes(32, "big").hex()

    def _eth_sendRawTransaction(self, raw: str) -> Any:  # noqa: N802
        wanted = self.chance.choice((1, self.cap_wei // 3, self.cap_wei, self.cap_wei + 1, 10**30))
        texts = (
            f"transaction underpriced: gas tip cap 1, minimum needed {wanted}",
            "intrinsic gas too low",
            "already known",
        )
        raise refused(self.chance.choice(texts))


class CountingSigner(QuickSigner):
    """Keeps what it signed."""

    def __init__(self) -> None:
        super().__init__(KEY, chain_id=CHAIN_ID, contracts=frozenset({CONTRACT}))
        self.signed: list[bytes] = []

    async def sign_transaction(self, transaction: UnsignedTransaction) -> SignedTransaction:
        done = await super().sign_transaction(transaction)
        self.signed.append(done.raw)
        return done


class Case:
    """One outbox with its own cap, ledger and node."""

    def __init__(self, chance: random.Random, met: Counter[str], ledger: Ledger) -> None:
        self.cap_wei = chance.choice((1, 5, 10**6, 10**9, 50 * 10**9, 10**14)) * chance.randint(1, 9)
        self.chance, self.met, self.now = chance, met, 1000.0
        self.endpoint = FuzzedEndpoint(ModelChain(KEY.address, {1: 10}), chance, self.cap_wei)
        self.signer = CountingSigner()
        pool = RpcPool([self.endpoint], CHAIN_ID, clock=lambda: self.now)
        self.outbox = Outbox(
            ledger, ChainClient(pool), self.signer, ProblemBoard(Feed()),
            chain_id=CHAIN_ID, fee_cap_wei=self.cap_wei, has_l1_fee=lambda: chance.random() < 0.5, poll_s=2.0,
            clock=lambda: self.now,
        )  # fmt: skip

    async def play(self) -> None:
        """Quote, bind, send, mend, bump: as far as the replies let it come."""
        slot = None
        for step in range(20):
            self.now += 2000.0
            before = len(self.signer.signed)
            try:
                slot = await (self.first() if slot is None else self.again(slot))
            except ClaimWaits as wait:
                self.met["too dear" if "cap" in str(wait) else "no money"] += 1
            except ChainError:
                self.met["not to be read"] += 1
            else:
                self.met["signed first" if step == 0 else "signed again"] += len(self.signer.signed) - before

    async def first(self) -> Slot:
        return await self.outbox.bind(CONTRACT, [], await self.outbox.quote(CONTRACT, b"calldata"))

    async def again(self, slot: Slot) -> Slot:
        count = len(slot.attempts)
        slot = await self.outbox.mend(slot, await self.outbox.send(slot))
        self.met["mended"] += len(slot.attempts) > count
        slot = await self.outbox.bump_if_it_helps(slot)
        market = FeeMarket(self.chance.choice((0, 0, 0, 0, self.cap_wei // 2, self.cap_wei, 2**70)), (2**70,) * 3)
        return await self.outbox.bump(slot, market, minimum_tip_wei=self.chance.choice((0, 0, 0, self.cap_wei)))

    def above_the_cap(self) -> list[str]:
        """Signed transactions that could cost more per gas than the host allows."""
        found = []
        for raw in self.signer.signed:
            one = read_raw(raw, KEY.address)
            self.met["at the cap"] += one.max_fee_wei == self.cap_wei
            self.met["sane"] += 0 < one.max_fee_wei < self.cap_wei
            if one.max_fee_wei > self.cap_wei or one.tip_wei > one.max_fee_wei:
                found.append(f"fee {one.max_fee_wei}, tip {one.tip_wei}, cap {self.cap_wei}")
        return found


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def hunt(signatures: int, seed: int) -> None:
    chance, met, signed = random.Random(seed), Counter[str](), 0
    for number in itertools.count():
        if signed >= signatures:
            break
        if number % 20 == 0:
            engine = InlineEngine(memory_database(), Fate(), lambda: None)
        case = Case(chance, met, Ledger(Venue(CHAIN_ID, CONTRACT, "proof_system"), engine))
        await case.play()
        signed += len(case.signer.signed)
        assert case.above_the_cap() == [], f"--seed {seed}"
    assert [name for name in MUST_MEET if not met[name]] == [], met


async def test_nothing_is_signed_above_the_cap(request: pytest.FixtureRequest) -> None:
    await hunt(SHORT, hunt_seed(request))


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_nothing_of_very_much_is_signed_above_the_cap(request: pytest.FixtureRequest) -> None:
    await hunt(LONG, hunt_seed(request))
