"""A process, made to be killed, that counts tokens and makes claims, and tells what the ledger has acknowledged."""

from __future__ import annotations

import asyncio
import os
import random
from multiprocessing.connection import Connection
from pathlib import Path

from ledger_support import HOST, VENUE, attempt, fact, payment, plan

from fabstir_desktop.jobs.policy import ClaimNow, ClaimPolicy, decide_claim
from fabstir_desktop.ledger.ledger import Ledger

JOBS = (1, 2, 2**255)


def run(path: str, seed: int, told: Connection) -> None:
    """The process's whole life."""
    asyncio.run(_work(Path(path), random.Random(seed), told))


async def _work(path: Path, chance: random.Random, told: Connection) -> None:
    told.send(("started",))
    ledger = await Ledger.open(path, VENUE)
    told.send(("opened",))
    await ledger.end_all_sessions()
    await asyncio.gather(*(_serve(ledger, job, chance, told) for job in JOBS), _claim(ledger, chance, told))


async def _serve(ledger: Ledger, job: int, chance: random.Random, told: Connection) -> None:
    while True:
        ticket = await ledger.open_ticket(job, "session")
        for _ in range(chance.randint(1, 30)):
            count = chance.randint(1, 4)
            told.send(("tried", job, count))
            total = await ledger.add_tokens(ticket, range(count))
            told.send(("counted", job, total))
        await ledger.close_ticket(ticket, "stop")


async def _claim(ledger: Ledger, chance: random.Random, told: Connection) -> None:
    block = 1
    while True:
        block += 1
        for account in await ledger.accounts_with_unclaimed():
            decision = decide_claim(account, ClaimPolicy(threshold_tokens=20))
            if isinstance(decision, ClaimNow):
                await plan(ledger, account.job_id, decision.start, decision.end)
        for claim in await ledger.claims():
            slot = await ledger.slot_of_claim(claim.claim_id)
            if claim.state == "planned":
                nonce = await ledger.next_nonce(HOST) or 0
                sent = attempt(claim.job_id, claim.start, claim.end, nonce, os.getpid())
                await ledger.bind([claim.claim_id], sender=HOST, nonce=nonce, attempt=sent)
                told.send(("bound", nonce, sent.tx_hash))
            elif slot is not None and slot.state == "open":
                await ledger.mark_included(slot.slot_id, fact(slot.attempts[0], block, succeeded=chance.random() < 0.8))
            elif slot is not None and slot.state == "included" and slot.succeeded:
                await ledger.mark_confirmed(slot.slot_id)
                paid = [payment(claim.job_id, slot.attempts[0], block)]
                await ledger.record_payments(paid, cursor_block=block, cursor_hash=slot.block_hash or b"")
            elif slot is not None and slot.state == "included":
                await ledger.void_reverted(slot.slot_id, note="reverted")
