"""A node for windows' tests: the same interface as HostNode, its state set by the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.checks import Check
from fabstir_desktop.jobs.events import (
    EarningsChanged,
    JobChanged,
    ServingChanged,
    TokensCounted,
    TransactionChanged,
    WalletChanged,
)
from fabstir_desktop.jobs.generation import EngineState, EngineStatus, ModelInfo
from fabstir_desktop.jobs.inspections import BundleText, ChainJob, ChainTransaction, ModelOnDisk
from fabstir_desktop.jobs.problems import Problem, ProblemList
from fabstir_desktop.jobs.status import (
    ChainState,
    ChainStatus,
    CheckpointOutcome,
    KeySource,
    NodeStatus,
    PauseKind,
    ServerStatus,
    ServingState,
    WalletState,
    WalletStatus,
)
from fabstir_desktop.jobs.views import (
    ClaimedRange,
    ClaimView,
    EarningsPoint,
    EarningsView,
    JobView,
    TokenAmount,
    TransactionView,
)
from fabstir_desktop.server.exposure import exposure_after
from fabstir_desktop.settings import Settings, save_setting
from fabstir_desktop.wallet.creation import address_of

ADDRESS = "0x12ab34Cd56eF7890aB12cD34Ef56789012349fE0"
CONTRACT = "0x2ACcc60893872A499700908889B38C5420CBcFD1"
HUGE_JOB = 2**255 + 12345
MODEL = ModelInfo(
    name="tiny-vicuna-1b.Q4_K_M",
    path="/models/tiny-vicuna-1b.Q4_K_M.gguf",
    sha256="9c1f" * 16,
    size_bytes=668_000_000,
    architecture="llama",
    parameter_count=1_100_000_000,
    quantisation="Q4_K_M",
    context_window=2048,
    gpu_layers=22,
    layer_count=22,
)
ENGINE = EngineStatus(
    state=EngineState.READY,
    detail="",
    model=MODEL,
    active_streams=2,
    queued_requests=0,
    parallel_streams=8,
    tokens_per_second=41.3,
    load_progress=1.0,
    restarts=0,
    worker_pid=4312,
)
CHAIN = ChainStatus(
    state=ChainState.READY,
    detail="The contract answers as it must.",
    rpc="sepolia.base.org",
    chain_id=84532,
    chain_name="Base Sepolia",
    is_testnet=True,
    contract=CONTRACT,
    contract_name="ProofSystem",
    head_block=21_334_455,
    head_age_s=2.0,
    balance_wei=3_100_000_000_000_000,
    checkpoint_cost_wei=440_000_000_000,
    checkpoints_left=7045,
    submitting=True,
    open_claims=1,
    as_of=None,
)
WALLET = WalletStatus(WalletState.READY, ADDRESS, KeySource.KEYRING, "GNOME Keyring")
SERVER = ServerStatus("ws://127.0.0.1:8080", connections=3, sessions=2, active_requests=2, queued_requests=0)
GWEI = 10**9
FREE_BYTES = 12_100_000_000


def make_status(**changes: Any) -> NodeStatus:
    """A healthy, serving node, with these fields changed."""
    status = NodeStatus(
        version="0.1.0",
        state=ServingState.SERVING,
        sentence="Serving, 2 requests running",
        engine=ENGINE,
        wallet=WALLET,
        chain=replace(CHAIN, as_of=time.time()),
        server=SERVER,
        started_at=time.time() - 18_720,
        resume_at=None,
        loop_lag_ms=0.4,
        data_dir="/data",
        demo=False,
    )
    return replace(status, **changes)


def make_job(job_id: int, state: str = "running", **counts: Any) -> JobView:
    """A job's row; counts not given follow from those given."""
    generated = counts.pop("generated", 0)
    claimed = counts.pop("claimed", 0)
    now = time.time()
    values: dict[str, Any] = {
        "session_id": f"session-{job_id % 1000:03d}",
        "proven": claimed,
        "settled": claimed,
        "unclaimed": generated - claimed,
        "earned": (TokenAmount("ETH", claimed * 900 * GWEI),) if claimed else (),
        "pending": (),
        "note": "",
        "created_at": now - 3600,
        "updated_at": now,
        **counts,
    }
    return JobView(job_id=job_id, state=state, generated=generated, claimed=claimed, **values)


def make_transaction(number: int, state: str = "confirmed", **changes: Any) -> TransactionView:
    """A claim's transaction."""
    values: dict[str, Any] = {
        "tx_hash": f"0x{number * 0x9E3779B97F4A7C15 % 2**256:064x}"[::-1]
        .replace("x0", "", 1)
        .rjust(64, "a")
        .join(("0x", ""))[:66],
        "kind": "claim",
        "nonce": number,
        "claims": (ClaimedRange(4711, number * 100, number * 100 + 100),),
        "block": 21_334_000 + number if state in {"confirmed", "final", "included", "reverted"} else None,
        "gas_used": 93_000 + number * 7 if state in {"confirmed", "final", "included", "reverted"} else None,
        "fee_wei": (93_000 + number * 7) * 4_700_003 if state in {"confirmed", "final", "reverted"} else None,
        "replaces": None,
        "error": None,
        "created_at": time.time() - 40 * (40 - number),
        **changes,
    }
    return TransactionView(state=state, **values)


class FakeNode:
    """Does what HostNode promises, from memory. `calls` is what was asked for; `fail_with` makes the next command fail."""

    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir)
        self.overrides: dict[str, Any] = {"data_dir": data_dir}
        self.feed = Feed()
        self.demo = False
        self.pause_reason = ""
        self.on_raise_window: Callable[[], None] | None = None
        self.on_quit: Callable[[], None] | None = None
        self.status = make_status(data_dir=str(data_dir))
        self.problem_list = ProblemList()
        self.job_by_id: dict[int, JobView] = {}
        self.transaction_rows: list[TransactionView] = []
        self.earnings_view: EarningsView | None = None
        self.points: list[EarningsPoint] = []
        self.claim_rows: dict[int, list[ClaimView]] = {}
        self.chain_transaction = ChainTransaction(21_334_001, 3, True, 2)
        self.journal_lines: list[tuple[float, str]] = []
        self.chain_jobs: dict[int, ChainJob] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.fail_with: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.reads = 0

    # --- what tests do ------------------------------------------------------------------------------------------------

    def set_status(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        self.feed.publish(ServingChanged())

    def set_jobs(self, *jobs: JobView) -> None:
        for job in jobs:
            self.job_by_id[job.job_id] = job
            self.feed.publish(JobChanged(job.job_id))
        self.feed.publish(EarningsChanged())

    def count_tokens(self, job_id: int, count: int) -> None:
        job = self.job_by_id[job_id]
        total = job.generated + count
        self.job_by_id[job_id] = replace(job, generated=total, unclaimed=job.unclaimed + count)
        self.feed.publish(TokensCounted(job_id, job.session_id, count, total))

    def set_transactions(self, *rows: TransactionView) -> None:
        self.transaction_rows = list(rows)
        self.feed.publish(TransactionChanged(0))

    def set_problems(self, *problems: Problem) -> None:
        self.problem_list = ProblemList()
        for problem in problems:
            self.problem_list.raise_(problem)
        self.feed.publish(ServingChanged())

    # --- HostNode's interface -----------------------------------------------------------------------------------------

    @property
    def problems(self) -> Sequence[Problem]:
        return tuple(self.problem_list)

    async def start(self) -> None:
        self.calls.append(("start",))

    async def stop(self, timeout_s: float = 5.0) -> None:
        self.calls.append(("stop", timeout_s))

    async def _command(self, *call: Any) -> None:
        self.calls.append(call)
        if self.hold is not None:
            await self.hold.wait()
        if self.fail_with is not None:
            error, self.fail_with = self.fail_with, None
            raise error

    async def pause(
        self, duration_s: float | None = None, *, reason: str = "", kind: PauseKind = PauseKind.NOW
    ) -> None:
        await self._command("pause", duration_s, *([kind] if kind is PauseKind.AFTER_JOBS else []))
        if kind is PauseKind.NOW:
            self.set_status(state=ServingState.PAUSED, sentence=reason or "Paused until you resume")
        else:
            told = "pausing" if kind is PauseKind.AFTER_JOBS else "stopping"
            self.set_status(state=ServingState.DRAINING, sentence=f"Finishing 2 jobs, then {told}")

    async def resume(self) -> None:
        await self._command("resume")
        self.set_status(state=ServingState.SERVING, sentence="Serving, waiting for jobs")

    async def checkpoint(self, job_id: int | None = None) -> list[CheckpointOutcome]:
        await self._command("checkpoint", job_id)
        jobs = [job for job in self.job_by_id.values() if job.unclaimed and job_id in {None, job.job_id}]
        for job in jobs:
            self.set_jobs(replace(job, claimed=job.generated, unclaimed=0, state="claiming"))
        return [CheckpointOutcome(job.job_id, True, job.unclaimed, "0x" + "ab" * 32, "") for job in jobs]

    async def jobs(self, job_ids: Collection[int] | None = None) -> list[JobView]:
        self.reads += 1
        chosen = [job for job in self.job_by_id.values() if job_ids is None or job.job_id in job_ids]
        return sorted(chosen, key=lambda job: -job.updated_at)

    async def job(self, job_id: int) -> JobView | None:
        return self.job_by_id.get(job_id)

    async def transactions(self, limit: int | None = None) -> list[TransactionView]:
        return list(self.transaction_rows[:limit])

    async def transaction_count(self) -> int:
        return len(self.transaction_rows)

    async def earnings(self) -> EarningsView:
        if self.earnings_view is not None:
            return self.earnings_view
        jobs = list(self.job_by_id.values())
        amount = sum(amount.amount for job in jobs for amount in job.earned)
        return EarningsView(
            generated=sum(job.generated for job in jobs),
            claimed=sum(job.claimed for job in jobs),
            proven=sum(job.proven for job in jobs),
            settled=sum(job.settled for job in jobs),
            written_off=0,
            earned=(TokenAmount("ETH", amount),) if amount else (),
            pending=_added(amount for job in jobs for amount in job.pending),
            treasury=(TokenAmount("ETH", amount // 9),) if amount else (),
            gas_wei=sum(row.fee_wei or 0 for row in self.transaction_rows),
        )

    async def earnings_series(self, *, since: float, bucket_seconds: int) -> list[EarningsPoint]:
        self.calls.append(("earnings_series", since, bucket_seconds))
        return list(self.points)

    async def journal(self, job_id: int | None = None) -> list[tuple[float, str]]:
        return list(self.journal_lines)

    def dismiss(self, problems: Collection[Problem]) -> None:
        self.calls.append(("dismiss", [problem.code for problem in problems]))
        for problem in problems:
            self.problem_list.clear(problem.code, problem.subject)
        self.feed.publish(ServingChanged())

    async def accept_found_key(self) -> WalletStatus:
        await self._command("accept_found_key")
        self.status = _with_wallet(self.status, WALLET)
        self.feed.publish(WalletChanged())
        return WALLET

    def abandon_key_wait(self) -> None:
        self.calls.append(("abandon_key_wait",))

    async def load_again(self) -> None:
        await self._command("load_again")

    async def set_key(self, text: str, *, replace: bool = False, password: str | None = None) -> WalletStatus:
        await self._command("set_key", len(text), replace, *([len(password)] if password else []))
        self.status = _with_wallet(self.status, WALLET)
        self.feed.publish(WalletChanged())
        return WALLET

    async def keep_environment_key(self) -> WalletStatus:
        await self._command("keep_environment_key")
        return WALLET

    async def create_key(self, copy_path: Path, password: str, *, in_file: bool) -> WalletStatus:
        await self._command("create_key", copy_path, len(password), in_file)
        self.status = _with_wallet(self.status, WALLET)
        self.feed.publish(WalletChanged())
        return WALLET

    async def address_of_key(self, text: str) -> str:
        return await address_of(text)

    async def unlock_keystore(self, password: str) -> WalletStatus:
        await self._command("unlock_keystore", len(password))
        return WALLET

    async def remove_key(self) -> None:
        await self._command("remove_key")
        self.status = _with_wallet(self.status, WalletStatus(WalletState.NONE))
        self.feed.publish(WalletChanged())

    async def reload_key(self) -> None:
        await self._command("reload_key")

    async def load_model(self, path: Path) -> None:
        await self._command("load_model", path)

    async def try_model(self, path: Path) -> str:
        await self._command("try_model", path)
        return f"{path.stem} loads in 1.0 s and answers; it is not served"

    async def list_models(self, folders: Sequence[Path]) -> list[ModelOnDisk]:
        paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.gguf"))]
        return [
            ModelOnDisk(path.name, "llama Q4_1", path, path.stat().st_size, path.stat().st_size + 10**8, FREE_BYTES)
            for path in paths
        ]

    async def check_reach(self) -> Check:
        await self._command("check_reach")
        return Check("public address", False, "no public address is set: customers have no way in", "set PUBLIC_URL")

    async def chain_job(self, job_id: int) -> ChainJob:
        self.calls.append(("chain_job", job_id))
        return self.chain_jobs.get(job_id) or ChainJob(job_id, self.job_by_id[job_id].proven, "", time.time())

    async def claims(self, job_id: int) -> list[ClaimView]:
        return list(self.claim_rows.get(job_id, ()))

    async def look_up(self, tx_hash: str) -> ChainTransaction:
        await self._command("look_up", tx_hash)
        return self.chain_transaction

    async def speed_up(self, tx_hash: str) -> str:
        await self._command("speed_up", tx_hash)
        return "0x" + "cd" * 32

    async def back_up_key(self, path: Path, password: str) -> None:
        await self._command("back_up_key", path, len(password))

    async def diagnostics(self, log_lines: Sequence[str]) -> list[BundleText]:
        await self._command("diagnostics", len(log_lines))
        return [BundleText("version.txt", "fabstir-desktop 0.1.0\n"), BundleText("log.txt", "\n".join(log_lines), 3)]

    async def save_setting(self, name: str, value: Any) -> None:
        await self._command("save_setting", name, value)
        await asyncio.to_thread(save_setting, self.settings.data_dir, name, value)

    def exposure(self, changes: Mapping[str, Any]) -> Sequence[str]:
        return exposure_after(self.settings, changes).sentences

    async def refresh_chain(self) -> None:
        await self._command("refresh_chain")

    async def self_test(self, on_text: Callable[[str], None]) -> list[Check]:
        await self._command("self_test")
        for piece in ("A lighthouse ", "warns ", "ships."):
            on_text(piece)
        return [
            Check("answer", True, "57 tokens streamed, 57 counted by the client"),
            Check("gas money", False, "no ETH at the address", "send some"),
        ]


def _added(amounts: Iterable[TokenAmount]) -> tuple[TokenAmount, ...]:
    total: dict[str, int] = {}
    for amount in amounts:
        total[amount.token] = total.get(amount.token, 0) + amount.amount
    return tuple(TokenAmount(token, value) for token, value in sorted(total.items()))


def _with_wallet(status: NodeStatus, wallet: WalletStatus) -> NodeStatus:
    return replace(status, wallet=wallet)


def fill_with_life(node: FakeNode) -> None:
    """A host in the middle of its day: jobs in every state, transactions in every state, a day of history with a gap."""
    now = time.time()
    node.job_by_id = {
        job.job_id: job
        for job in (
            make_job(4711, "running", generated=1140, claimed=1000, proven=900, settled=900),
            make_job(4712, "running", generated=57),
            make_job(4709, "claiming", generated=600, claimed=600, proven=500, settled=500, updated_at=now - 30),
            make_job(4702, "closing", generated=220, claimed=200, updated_at=now - 120),
            make_job(
                4698,
                "claim_failed",
                generated=310,
                claimed=200,
                note="the customer's deposit covers 10 tokens",
                updated_at=now - 900,
            ),
            make_job(4690, "settled", generated=5000, claimed=5000, updated_at=now - 8000),
            make_job(4688, "idle", generated=84, updated_at=now - 4000),
            make_job(HUGE_JOB, "settled", generated=250, claimed=250, updated_at=now - 90_000),
        )
    }
    node.transaction_rows = [
        make_transaction(39, "sent", created_at=now - 6, claims=(ClaimedRange(4709, 500, 600),)),
        make_transaction(38, "included", claims=(ClaimedRange(4711, 900, 1000),)),
        make_transaction(
            37, "reverted", error="must claim at least 100 tokens", claims=(ClaimedRange(4702, 200, 220),)
        ),
        make_transaction(36, "replaced"),
        *(make_transaction(number) for number in range(35, 8, -1)),
    ]
    start = (now // 3600 - 23) * 3600
    shape = [
        120,
        90,
        0,
        0,
        None,
        None,
        None,
        40,
        210,
        340,
        280,
        120,
        60,
        90,
        400,
        520,
        610,
        480,
        300,
        350,
        420,
        510,
        260,
        197,
    ]
    node.points = [
        EarningsPoint(
            start + place * 3600,
            generated,
            None if generated is None else max(generated - generated % 100, 0),
            () if not generated else (TokenAmount("ETH", (generated - generated % 100) * 900 * GWEI),),
        )
        for place, generated in enumerate(shape)
    ]
    node.journal_lines = [
        (now - 6, "Checkpoint of 100 tokens sent, 0x8d1b2c…35c4"),
        (now - 70, "Checkpoint of 100 tokens confirmed; 0.00009 ETH credited"),
        (now - 90, "Checkpoint of 100 tokens sent, 0xfcbf01…da5d"),
        (now - 600, "First token"),
        (now - 602, "Session opened"),
    ]
