"""Short words for tests of the ledger: a venue, attempts, claims, and a database without threads."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw

from fabstir_desktop.jobs.claims import Attempt, Claim, ClaimReason, MinedFact, Payment
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.claims import NewClaim
from fabstir_desktop.ledger.connection import PRAGMAS
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.ledger.migrate import migrate

VENUE = Venue(chain_id=84532, contract="0x" + "11" * 20, interface="proof_system")
HOST = "0x" + "AB" * 20


@asynccontextmanager
async def opened(path: Path, venue: Venue = VENUE, *, vfs: str | None = None) -> AsyncIterator[Ledger]:
    """An open ledger, closed at the end whatever happens."""
    ledger = await Ledger.open(path, venue, vfs=vfs)
    try:
        yield ledger
    finally:
        await ledger.close()


def bytes32(*parts: object) -> bytes:
    """A hash that is the same for the same parts."""
    return hashlib.sha256(repr(parts).encode()).digest()


def attempt(*parts: object, fee_wei: int = 10**9) -> Attempt:
    """A signed transaction, as far as the ledger can tell."""
    return Attempt(bytes32("tx", *parts), b"raw" + bytes32(*parts), fee_wei, 10**6, 60_000)


def fact(sent: Attempt, block: int, *, succeeded: bool = True, fork: object = 0) -> MinedFact:
    """The receipt of an attempt in a block of a fork."""
    return MinedFact(sent.tx_hash, block, bytes32("block", block, fork), succeeded, 50_000, 10**12)


def payment(
    job_id: int, sent: Attempt, block: int, *, host: int = 90, treasury: int = 10, log_index: int = 0
) -> Payment:
    """What the contract's event says."""
    return Payment(job_id, sent.tx_hash, log_index, block, "ETH", host, treasury)


def new_claim(job_id: int, start: int, end: int) -> NewClaim:
    """A claim over the range; the same range has the same proof."""
    proof_hash = bytes32("proof", job_id, start, end)
    return NewClaim(job_id, start, end, ClaimReason.THRESHOLD, HOST, b"record", proof_hash, b"proof", b"calldata")


async def count(ledger: Ledger, job_id: int, tokens: int, session_id: str = "session-1") -> int:
    """Add tokens to a job by a ticket of its own; returns the new total."""
    ticket = await ledger.open_ticket(job_id, session_id)
    total = await ledger.add_tokens(ticket, range(tokens))
    await ledger.close_ticket(ticket, "stop")
    return total


async def plan(ledger: Ledger, job_id: int, start: int, end: int) -> Claim:
    """Plan a claim over the range."""
    new = new_claim(job_id, start, end)
    return await ledger.plan_claim(
        job_id,
        start,
        end,
        reason=new.reason,
        host=new.host,
        record=new.record,
        proof_hash=new.proof_hash,
        proof=new.proof,
        calldata=new.calldata,
    )


def memory_database() -> apsw.Connection:
    """The newest schema in memory, for what needs no threads."""
    connection = apsw.Connection(":memory:")
    for pragma in PRAGMAS:
        connection.execute(pragma)
    migrate(connection, Path("nowhere"))
    connection.execute("INSERT INTO venue (id, chain_id, contract, interface) VALUES (1, 84532, 'c', 'proof_system')")
    return connection
