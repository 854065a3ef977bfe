"""What looking closely found: a model file, a job on chain, the texts of a diagnostic bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """A model file at hand. `detail` is what its header says, or why it cannot be used (then `path` and sizes are None).

    `needed_bytes` is what it would take to serve it as the settings say, `free_bytes` what the machine has free now.
    `context_tokens` is the longest window it was trained for; without a template of its own a general one is used.
    """

    name: str
    detail: str
    path: Path | None = None
    size_bytes: int | None = None
    needed_bytes: int | None = None
    free_bytes: int | None = None
    parameter_count: int | None = None
    context_tokens: int | None = None
    has_template: bool | None = None

    @property
    def fits(self) -> bool | None:
        """Whether it fits into what is free; None is unknown."""
        if self.needed_bytes is None or self.free_bytes is None:
            return None
        return self.needed_bytes <= self.free_bytes


@dataclass(frozen=True, slots=True)
class ChainJob:
    """A job as its contract holds it: tokens paid for, or (None) why that is unknown. `read_at`: seconds since the epoch."""

    job_id: int
    tokens: int | None
    why: str
    read_at: float


@dataclass(frozen=True, slots=True)
class ChainTransaction:
    """What every endpoint said of a transaction when asked. `deep` counts its own block; None: in no block that they know."""

    block: int | None
    deep: int | None
    succeeded: bool | None
    asked: int
    """How many endpoints answered."""


@dataclass(frozen=True, slots=True)
class BundleText:
    """One file of a diagnostic bundle; `redactions` is how many places were blanked in it."""

    name: str
    text: str
    redactions: int = 0
