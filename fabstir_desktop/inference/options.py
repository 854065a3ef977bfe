"""What the engine client needs to know, apart from the rest of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fabstir_desktop.settings import Settings


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds of the waiting line and the watchdogs. Times in seconds."""

    queue_length: int = 32
    queue_per_client: int = 4
    queue_per_job: int = 2
    queue_timeout_s: float = 30.0
    load_stall_s: float = 300.0
    prefill_stall_s: float = 120.0
    decode_stall_s: float = 30.0
    tick_s: float = 1.0
    unread_tokens: int = 512
    """Tokens of a stream that its reader may leave unread before the model rests on it."""
    restart_delays_s: tuple[float, ...] = (0.0, 1.0, 5.0, 15.0, 60.0)
    deaths_until_failed: int = 5
    deaths_window_s: float = 600.0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run the model. `context_window` is the tokens a stream gets, None: automatic; `threads` None: all cores;
    `gpu_layers` None: as many as fit. `hash_store` is the file that remembers SHA-256 sums of models,
    `quarantine_store` that of prompts which were running when a worker died."""

    model_path: Path | None
    context_window: int | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    parallel: int = 8
    hash_store: Path | None = None
    quarantine_store: Path | None = None
    session_cache_bytes: int = 512 * 1024 * 1024
    limits: EngineLimits = EngineLimits()

    @classmethod
    def from_settings(cls, settings: Settings) -> EngineOptions:
        """The engine's part of the settings."""
        return cls(
            model_path=settings.model_path,
            context_window=settings.context_window,
            gpu_layers=settings.gpu_layers,
            threads=settings.threads,
            parallel=settings.max_parallel,
            hash_store=settings.data_dir / "model-hashes.json",
            quarantine_store=settings.data_dir / "prompt-quarantine.json",
        )
