"""HostNode: owns the parts, starts and stops them in order, offers the commands and the feed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fabstir_desktop.feed import Feed
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.status import CheckpointOutcome, NodeStatus
from fabstir_desktop.jobs.views import EarningsPoint, EarningsView, JobView, TransactionView
from fabstir_desktop.settings import Settings


class HostNode:
    """The application without its face. All methods belong to the loop it was started in."""

    feed: Feed
    settings: Settings

    @property
    def status(self) -> NodeStatus:
        """A fresh snapshot; cheap, no IO."""
        raise NotImplementedError

    @property
    def problems(self) -> Sequence[Problem]:
        """What stands now, worst first."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start every part. Returns when the ledger is open and the server listens; model and chain follow by themselves."""
        raise NotImplementedError

    async def stop(self, timeout_s: float = 5.0) -> None:
        """No new work, end sessions, sign and store last claims, stop every part. Safe to call twice."""
        raise NotImplementedError

    async def pause(self, duration_s: float | None = None) -> None:
        """Take no new prompts; running ones end. With a duration it resumes by itself."""
        raise NotImplementedError

    async def resume(self) -> None:
        """Take prompts again."""
        raise NotImplementedError

    async def checkpoint(self, job_id: int | None = None) -> list[CheckpointOutcome]:
        """Claim now what the job (or every job) has unclaimed; says per job what was done or why not."""
        raise NotImplementedError

    async def jobs(self) -> list[JobView]:
        """Jobs, most recently changed first."""
        raise NotImplementedError

    async def transactions(self) -> list[TransactionView]:
        """Transactions, newest first."""
        raise NotImplementedError

    async def earnings(self) -> EarningsView:
        """The ladder."""
        raise NotImplementedError

    async def earnings_series(self, *, since: float, bucket_seconds: int) -> list[EarningsPoint]:
        """Points of the plot."""
        raise NotImplementedError

    async def journal(self, job_id: int | None = None) -> list[tuple[float, str]]:
        """What happened (time, sentence), newest first."""
        raise NotImplementedError

    async def set_key(self, text: str, *, replace: bool = False) -> str:
        """Store the key in the keyring and begin to submit; returns the address. Raises KeyInvalid, KeyringUnavailable,
        KeyringLocked, or UserError if another key is stored and `replace` is false."""
        raise NotImplementedError

    async def remove_key(self) -> None:
        """Remove the stored key; the node goes on counting."""
        raise NotImplementedError

    async def load_model(self, path: Path) -> None:
        """Serve another model once running requests have ended; also stored as the setting. Raises ModelFileError."""
        raise NotImplementedError

    async def save_setting(self, name: str, value: Any) -> None:
        """Write a setting into settings.toml (None: back to the default). Raises SettingError."""
        raise NotImplementedError
