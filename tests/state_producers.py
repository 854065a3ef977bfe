"""Each state of the table, brought about in the product: the room that knows it makes the problem, from played surroundings.

`produce(code, folder)` returns the problem as the node would list it. `NOT_PRODUCED` says why a state of the table has no
maker in this version.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from eth_abi.abi import encode
from ledger_support import attempt, count
from played_chain import CHAIN_ID, CONTRACT, PlayedEndpoint
from wallet_support import CANARY, KEY, OTHER, PlayedKeyring, make_wallet

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.account import JobAccount
from fabstir_desktop.jobs.diagnosis import derive_problems, describe_state
from fabstir_desktop.jobs.events import ProblemRaised
from fabstir_desktop.jobs.generation import EngineFailure, EngineState, EngineStatus
from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import ServerStatus, ServingState, WalletState, WalletStatus
from fabstir_desktop.ledger.ledger import Ledger
from fabstir_desktop.server import exposure
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.alerts import claim_worth, tell_deadlines, tell_headroom, tell_late, tell_margin
from fabstir_desktop.settlement.board import ClaimWaits, ProblemBoard, silent_endpoint_problem
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts.base import ClaimRules, JobFacts, Refusal, RefusalKind
from fabstir_desktop.settlement.contracts.node_register import (
    FULL_INFO,
    MINIMUM_STAKE,
    MODEL_HASH,
    MODEL_REGISTRY,
    NODE_REGISTRY,
    NodeRegister,
)
from fabstir_desktop.settlement.fees import GWEI, FeeOffer, Quote
from fabstir_desktop.settlement.recovery import Recovery
from fabstir_desktop.settlement.rpc_pool import RpcPool
from fabstir_desktop.settlement.service import Settlement
from fabstir_desktop.wallet.backends import Backend
from fabstir_desktop.wallet.signer import Signer

NOT_PRODUCED = {"U01": "this version looks for no updates"}
READY_WALLET = WalletStatus(WalletState.READY, KEY.address)
LISTENING = ServerStatus("ws://127.0.0.1:8080/v1/ws", 0, 0, 0, 0)
PROOF_SYSTEM_CODE = "0x636cafe1b4"
JOB = 4711


async def produce(code: str, folder: Path) -> Problem:
    """Bring the state about and return its problem."""
    folder.mkdir(parents=True, exist_ok=True)
    found = await PRODUCERS[code](folder)
    made = [one for one in found if one.code == code]
    assert made, f"{code} was not produced, but {[one.code for one in found]}"
    return made[0]


# --- the key ----------------------------------------------------------------------------------------------------------


async def _wallet(folder: Path, change: Callable[[PlayedKeyring], None], *, stored: bool = False) -> list[Problem]:
    played = PlayedKeyring()
    if stored:
        await make_wallet(folder, played).set_key(CANARY)
    change(played)
    status = await make_wallet(folder, played).load()
    return derive_problems(status, _engine(), LISTENING, None)


def _hold(text: str) -> Callable[[PlayedKeyring], None]:
    def change(played: PlayedKeyring) -> None:
        played.held = {("fabstir-desktop", "default"): text}

    return change


def _lock(played: PlayedKeyring) -> None:
    import keyring.errors

    played.error = keyring.errors.KeyringLocked("locked")


async def _no_keyring(folder: Path) -> list[Problem]:
    return derive_problems(await make_wallet(folder, None).load(), _engine(), LISTENING, None)


async def _other_keyring(folder: Path) -> list[Problem]:
    names = iter(["KWallet"] * 3 + ["GNOME Keyring"] * 9)

    def place(_: Backend) -> str:
        return next(names)

    with patch("fabstir_desktop.wallet.keystore.place_name", place):
        await make_wallet(folder, PlayedKeyring()).set_key(CANARY)
        while next(names) != "GNOME Keyring":
            pass
        status = await make_wallet(folder, PlayedKeyring()).load()
    return derive_problems(status, _engine(), LISTENING, None)


# --- chain, gas, claims: the real room over a played chain -------------------------------------------------------------


@contextlib.asynccontextmanager
async def _settlement(
    folder: Path, *endpoints: PlayedEndpoint, **more: Any
) -> AsyncIterator[tuple[Any, list[Problem]]]:
    settings = Settings(data_dir=folder, chain_id=CHAIN_ID, contract_proof_system=CONTRACT, **more)
    feed, raised = Feed(), list[Problem]()
    feed.subscribe(ProblemRaised, lambda event: raised.append(event.problem))
    ledger = await Ledger.open(settings.ledger_path, Venue(CHAIN_ID, CONTRACT, "proof_system"))
    settlement = Settlement(settings, ledger, feed, model_sha256=lambda: "", endpoints=endpoints)
    signer = Signer(KEY, chain_id=CHAIN_ID, contracts=frozenset({CONTRACT}))
    await settlement.set_signer(signer)
    try:
        yield settlement, raised
    finally:
        await settlement.stop(0.1)
        await ledger.close()


def _chain(change: Callable[[PlayedEndpoint], None]) -> Callable[[Path], Awaitable[list[Problem]]]:
    async def make(folder: Path) -> list[Problem]:
        endpoint = PlayedEndpoint()
        endpoint.code = PROOF_SYSTEM_CODE
        change(endpoint)
        async with _settlement(folder, endpoint) as (settlement, raised):
            await settlement.refresh()
            return raised

    return make


async def _limited(folder: Path) -> list[Problem]:
    first, second = PlayedEndpoint("first.example"), PlayedEndpoint("second.example")
    first.code = second.code = PROOF_SYSTEM_CODE
    first.is_limited = True
    async with _settlement(folder, first, second) as (settlement, raised):
        await settlement.refresh()
        return raised


def _refused(kind: RefusalKind, plain: str) -> Callable[[Path], Awaitable[list[Problem]]]:
    async def make(folder: Path) -> list[Problem]:
        async with _settlement(folder, PlayedEndpoint()) as (settlement, _):
            claimer = settlement._manager._parts.claimer
            refused: ClaimWaits = await claimer._refused(JOB, Refusal(kind, plain))
            return [refused.problem] if refused.problem else []

    return make


async def _too_dear(folder: Path) -> list[Problem]:
    endpoint = PlayedEndpoint()
    endpoint.base_fee_wei = 900 * GWEI
    async with _settlement(folder, endpoint, max_fee_gwei=1) as (settlement, _):
        try:
            await settlement._manager._parts.outbox.quote(CONTRACT, b"\x00")
        except ClaimWaits as wait:
            return [wait.problem] if wait.problem else []
    return []


async def _foreign_nonce(folder: Path) -> list[Problem]:
    async with _settlement(folder, PlayedEndpoint()) as (settlement, raised):
        settlement._manager._parts.outbox.foreign_use(41)
        return raised


async def _not_batched(folder: Path) -> list[Problem]:
    endpoint = PlayedEndpoint(eth_call="0x")  # before Prague the precompile is an empty address
    async with _settlement(folder, endpoint, batch_claims=True) as (settlement, raised):
        await settlement._manager._parts.delegation.step()
        return raised


async def _late(folder: Path) -> list[Problem]:
    async with _settlement(folder, PlayedEndpoint()) as (settlement, raised):
        ledger: Ledger = settlement._ledger
        slot = await ledger.bind([], sender=KEY.address, nonce=7, attempt=attempt(7), kind="cancel")
        await tell_late(settlement._board, ledger, [slot], time.time() + 16 * 60)
        return raised


def _told(tell: Callable[[ProblemBoard], None]) -> Callable[[Path], Awaitable[list[Problem]]]:
    async def make(_: Path) -> list[Problem]:
        board = ProblemBoard(Feed())
        tell(board)
        return board.standing

    return make


def _facts(price_wei: int = 1) -> JobFacts:
    return JobFacts(JOB, KEY.address, price_wei, covered_tokens=5000, paid_tokens=5000, is_open=False)


def _account(tokens: int) -> JobAccount:
    return JobAccount(JOB, "s", tokens, 0, 0, 0, 0, 0, 0, 0, True, time.time())


class _Contract:
    """A contract that holds one job."""

    has_jobs = True
    rules = ClaimRules()

    async def read_job(self, *_: Any) -> JobFacts:
        return _facts()


async def _disagree(folder: Path) -> list[Problem]:
    async with _settlement(folder, PlayedEndpoint()) as (settlement, raised):
        await count(settlement._ledger, JOB, 100)
        recovery: Recovery = settlement._manager._parts.recovery
        recovery._contract = _Contract()  # type: ignore[assignment]
        await recovery._compare_locked(JOB, lambda _: asyncio.Lock())
        return raised


async def _tail(folder: Path) -> list[Problem]:
    async with _settlement(folder, PlayedEndpoint()) as (settlement, raised):
        await count(settlement._ledger, JOB, 20)
        account = await settlement._ledger.account(JOB)
        await settlement._manager._parts.completer._settled(account)
        return raised


# --- engine, server, host ----------------------------------------------------------------------------------------------


def _engine(state: EngineState = EngineState.READY, detail: str = "", **more: Any) -> EngineStatus:
    return EngineStatus(state, detail, None, 0, 0, 8, 0.0, 0.45, 0, None, **more)


def _derived(
    engine: EngineStatus | None = None,
    server: ServerStatus = LISTENING,
    failure: str | None = None,
    serving: ServingState = ServingState.SERVING,
    reason: str = "",
) -> Callable[[Path], Awaitable[list[Problem]]]:
    async def make(_: Path) -> list[Problem]:
        state = engine or _engine()
        doing = describe_state(
            serving, engine=state, submitting=True, active_requests=2, problems=(), pause_reason=reason
        )
        return derive_problems(READY_WALLET, state, server, failure, serving, doing)

    return make


async def _unreachable(_: Path) -> list[Problem]:
    found = await exposure.try_public_url("ws://127.0.0.1:1", "this host")
    return [found] if found else []


async def _plaintext(folder: Path) -> list[Problem]:
    found = exposure.plaintext_problem(Settings(data_dir=folder, api_host="0.0.0.0"))
    return [found] if found else []


async def _contested(_: Path) -> list[Problem]:
    return [exposure.contested_problem(JOB)]


async def _unknown_proxy(_: Path) -> list[Problem]:
    return [exposure.unknown_proxy_problem("127.0.0.1")]


class _Register(PlayedEndpoint):
    """A marketplace with a register of hosts, as the test fills it."""

    def __init__(self, **entry: Any) -> None:
        super().__init__()
        fields = {"operator": KEY.address, "stake": 1000 * 10**18, "active": True, "url": "ws://new:8083"} | entry
        self._by_selector = {
            NODE_REGISTRY.selector: (("address",), (CONTRACT,)),
            MODEL_REGISTRY.selector: (("address",), (CONTRACT,)),
            MODEL_HASH.selector: (("bytes32",), (b"\x22" * 32,)),
            MINIMUM_STAKE.selector: (("uint256",), (1000 * 10**18,)),
            FULL_INFO.selector: (
                FULL_INFO.outputs,
                (fields["operator"], fields["stake"], fields["active"], "{}", fields["url"], [b"\x11" * 32], 1, 1),
            ),
        }

    def _eth_call(self, fields: dict[str, str], *_: Any) -> str:
        kinds, values = self._by_selector[bytes.fromhex(fields["data"][2:10])]
        return "0x" + encode(kinds, values).hex()


def _registered(model_sha256: str = "22" * 32, **entry: Any) -> Callable[[Path], Awaitable[list[Problem]]]:
    async def make(_: Path) -> list[Problem]:
        board = ProblemBoard(Feed())
        client = ChainClient(RpcPool([_Register(**entry)], CHAIN_ID))
        register = NodeRegister(
            client, CONTRACT, board, public_url="ws://new:8083/v1/ws", model_sha256=lambda: model_sha256
        )
        await register.look(KEY.address)
        return board.standing

    return make


QUOTE = Quote(b"", 120_000, FeeOffer(2 * GWEI, 100), 0)
PRODUCERS: dict[str, Callable[[Path], Awaitable[list[Problem]]]] = {
    "K01": lambda folder: _wallet(folder, lambda _: None),
    "K02": lambda folder: _wallet(folder, _lock),
    "K03": _no_keyring,
    "K04": lambda folder: _wallet(folder, _hold(OTHER.reveal_hex()), stored=True),
    "K05": lambda folder: _wallet(folder, _hold("0x" + "1" * 63)),
    "K06": _other_keyring,
    "C01": _chain(lambda endpoint: setattr(endpoint, "chain_id", 1)),
    "C02": _chain(lambda endpoint: setattr(endpoint, "is_down", True)),
    "C03": _limited,
    "C04": _chain(lambda endpoint: setattr(endpoint, "block_age_s", 240.0)),
    "C05": _refused(RefusalKind.PAUSED, "the contract is paused by its operators"),
    "C06": _chain(lambda endpoint: setattr(endpoint, "code", "0x")),
    "C07": _told(lambda board: board.raise_(silent_endpoint_problem(41, ["rpc.example"]))),
    "G01": _chain(lambda endpoint: setattr(endpoint, "balance_wei", 10**12)),
    "G02": _chain(lambda endpoint: setattr(endpoint, "balance_wei", 1)),
    "G03": _too_dear,
    "G04": _told(lambda board: tell_margin(board, JOB, claim_worth(_facts(), QUOTE), 100)),
    "T01": _late,
    "T02": _refused(RefusalKind.NOT_OURS, "the job belongs to another host"),
    "T03": _foreign_nonce,
    "X04": _not_batched,
    "H01": _registered(operator="0x" + "00" * 20),
    "H02": _registered(stake=900 * 10**18, active=False),
    "H03": _registered(url="http://old:8080"),
    "H04": _unreachable,
    "M01": _derived(_engine(EngineState.NO_MODEL)),
    "M02": _derived(_engine(EngineState.FAILED, "models/x.gguf is gone", failure=EngineFailure.FILE_MISSING)),
    "M03": _derived(_engine(EngineState.FAILED, "x.gguf ends early", failure=EngineFailure.FILE_UNUSABLE)),
    "M04": _registered(model_sha256="33" * 32),
    "M05": _derived(_engine(warning="21 of 33 layers run on the CPU")),
    "M06": _derived(_engine(EngineState.LOADING)),
    "S01": _derived(server=ServerStatus(None, 0, 0, 0, 0, "Port 8080 is used by node.exe (4312).")),
    "S02": _derived(_engine(EngineState.RESTARTING, "the model process ended: signal 9")),
    "S03": _derived(_engine(EngineState.FAILED, "the model process crashed 3 times")),
    "S04": _derived(_engine(EngineState.RESTARTING, "no token for 60 s", is_hung=True)),
    "S05": _derived(replace(_engine(), queued_requests=32, queue_limit=32)),
    "S06": _derived(serving=ServingState.PAUSED, reason="on battery"),
    "S07": _derived(serving=ServingState.DRAINING),
    "J01": _told(lambda board: tell_headroom(board, JOB, 20)),
    "J02": _told(lambda board: tell_deadlines(board, [(_account(140), time.time() + 600)], time.time())),
    "J03": _disagree,
    "J04": _tail,
    "D01": _derived(failure="disk full"),
    "X01": _plaintext,
    "X02": _contested,
    "X03": _unknown_proxy,
}


def produce_now(code: str, folder: Path) -> Problem:
    """Produce on a loop of its own, from wherever it is called. Run it in a thread of its own."""
    return asyncio.run(produce(code, folder))
