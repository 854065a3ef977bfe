"""Every named step at which settlement can die, every mishap that may happen while it is dead, and which of them meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chain_support import World
from rpc_faults import SEND, FaultProxy
from settlement_child import KillPoint

POINTS = (
    KillPoint("K1 made, not counted", "ledger", "add_tokens", after=False, call=2, beside=True),
    KillPoint("K2 counted, nothing planned", "ledger", "transcript", after=False, beside=True),
    KillPoint("K3 planned", "ledger", "plan_claim", beside=True),
    KillPoint("K4 signed in memory", "outbox", "_sign", beside=True),
    KillPoint("K5 bound, nothing sent", "ledger", "bind", beside=True),
    KillPoint("K6 sent, no reply read", "client", "send_raw"),
    KillPoint("K7 reply read, not noted", "ledger", "note_send", after=False),
    KillPoint("K8 bump signed in memory", "outbox", "_sign", call=2, bump=True),
    KillPoint("K9 bump stored", "ledger", "add_attempt", bump=True),
    KillPoint("K10 bump sent", "client", "send_raw", call=2, bump=True),
    KillPoint("K11 receipt seen, not stored", "ledger", "mark_included", after=False, blocks=1),
    KillPoint("K12 included stored, nobody told", "ledger", "mark_included", blocks=1),
    KillPoint("K12 confirmed stored, nobody told", "ledger", "mark_confirmed", blocks=1),
    KillPoint("K12 payment stored, nobody told", "ledger", "record_payments", blocks=1),
    KillPoint("K13 final stored", "ledger", "mark_final", blocks=4),
)
"""Nothing is ever pruned from the ledger: the last step on a claim's way is that it is final."""
POINT_OF = {point.name.split(" ", 1)[0]: point for point in reversed(POINTS)}
MINED = frozenset({"K11", "K12", "K13"})


class Losing(FaultProxy):
    """A node that takes transactions and whose replies to them are lost, while `is_losing`."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream, 0, rate=1.0)
        self.is_losing = False

    def _draw(self, method: str) -> str | None:
        return "lose_reply" if self.is_losing and method == SEND else None


@dataclass(frozen=True)
class Mishap:
    """What befalls the process: replies that are lost while it lives, or what happens on the chain while it is dead."""

    name: str
    befall: Callable[[World], Awaitable[None]]
    loses_replies: bool = False


async def nothing(world: World) -> None:
    """Only the kill."""


async def forgotten(world: World) -> None:
    """The node loses its pool."""
    assert await pool_size(world) > 0, "nothing was there to be forgotten"
    await world.client.request("anvil_dropAllTransactions")
    assert await pool_size(world) == 0


async def mined(world: World) -> None:
    """What waits in the pool gets into a block."""
    count = await host_count(world)
    await world.mine()
    assert await host_count(world) > count, "nothing of the host's was there to be mined"


async def reorganised(world: World) -> None:
    """The block with the host's newest transaction is replaced by an empty one, and the node forgets the transaction."""
    if await pool_size(world):
        await mined(world)
    await reorganise_away(world)


async def foreign_nonce(world: World) -> None:
    """Another program with the same key uses the nonce of the host's newest transaction."""
    await world.client.request("anvil_dropAllTransactions")
    if await host_count(world) > 0:
        await reorganise_away(world)
    await spend_next_nonce(world)


async def foreign_next_nonce(world: World) -> None:
    """The same where the host's own nonce cannot be taken away any more: the one after it is used."""
    await spend_next_nonce(world)


async def reorganise_away(world: World) -> None:
    count = await host_count(world)
    newest = int((await world.logs())[-1]["blockNumber"], 16)
    await world.reorg(await world.block_number() - newest + 1)
    assert await host_count(world) < count, "no block of the host's was reorganised away"


async def spend_next_nonce(world: World) -> None:
    count = await host_count(world)
    await world.host.send(world.host_address, gas=21_000)
    await world.mine()
    assert await host_count(world) == count + 1


async def pool_size(world: World) -> int:
    status = await world.client.request("txpool_status")
    return int(status["pending"], 16) + int(status["queued"], 16)


async def host_count(world: World) -> int:
    return await world.client.number("eth_getTransactionCount", world.host_address, "latest")


NOTHING = Mishap("nothing", nothing)
REPLY_LOST = Mishap("reply_lost", nothing, loses_replies=True)
FORGOTTEN = Mishap("forgotten", forgotten)
MINED_WHILE_DEAD = Mishap("mined", mined)
REORGANISED = Mishap("reorganised", reorganised)
FOREIGN_NONCE = Mishap("foreign_nonce", foreign_nonce)
FOREIGN_NEXT_NONCE = Mishap("foreign_nonce", foreign_next_nonce)
MISHAPS = (NOTHING, REPLY_LOST, FORGOTTEN, MINED_WHILE_DEAD, REORGANISED, FOREIGN_NONCE)

LEFT_OUT = {
    ("K11", "forgotten"): "it is in a block: the pool has nothing to forget",
    ("K12", "forgotten"): "it is in a block: the pool has nothing to forget",
    ("K13", "forgotten"): "it is in a block: the pool has nothing to forget",
    ("K11", "mined"): "it is mined before the kill already",
    ("K12", "mined"): "it is mined before the kill already",
    ("K13", "mined"): "it is mined before the kill already",
    ("K13", "reorganised"): "a final block is one that cannot be reorganised away",
}
"""Combinations that make no sense, and why."""

AT_BOOT: dict[str, tuple[tuple[KillPoint, KillPoint], ...]] = {
    "nothing": ((POINT_OF["K6"], KillPoint("K14 sent again", "ledger", "note_send", at_boot=True)),),
    "reply_lost": ((POINT_OF["K6"], KillPoint("K14 sent again", "client", "send_raw", at_boot=True)),),
    "forgotten": ((POINT_OF["K6"], KillPoint("K14 sent again", "client", "send_raw", at_boot=True)),),
    "mined": tuple(
        (POINT_OF["K6"], KillPoint(f"K14 {method}", "ledger", method, at_boot=True))
        for method in ("mark_included", "mark_confirmed", "record_payments")
    ),
    "reorganised": (
        (POINT_OF["K12"], KillPoint("K14 reopened", "ledger", "mark_reorged", at_boot=True)),
        (POINT_OF["K6"], KillPoint("K14 sent again", "ledger", "note_send", at_boot=True)),
    ),
    "foreign_nonce": (
        (POINT_OF["K6"], KillPoint("K14 nonce given up", "ledger", "free_slot", blocks=4, at_boot=True)),
        (POINT_OF["K12"], KillPoint("K14 nonce given up", "ledger", "free_slot", blocks=4, at_boot=True)),
    ),
}
"""K14 is a second kill, while the start looks at what became of the first: at the step that each mishap leads to."""


@dataclass(frozen=True)
class Combination:
    """One way to die and come back."""

    point: KillPoint
    mishap: Mishap
    at_boot: KillPoint | None = None

    @property
    def name(self) -> str:
        second = f", then {self.at_boot.name}" if self.at_boot else ""
        return f"{self.point.name}, {self.mishap.name}{second}"


def combinations(mishap: Mishap) -> list[Combination]:
    """Every kill that may meet the mishap."""
    found = []
    for point in POINTS:
        step = point.name.split(" ", 1)[0]
        if (step, mishap.name) not in LEFT_OUT:
            is_final = step == "K13" and mishap is FOREIGN_NONCE
            found.append(Combination(point, FOREIGN_NEXT_NONCE if is_final else mishap))
    return found + [Combination(first, mishap, second) for first, second in AT_BOOT[mishap.name]]
