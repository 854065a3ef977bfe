"""The words in which the server asks for tokens and an engine gives them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """How a token is chosen. Ranges are checked where frames are decoded and again by the engine."""

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    """Unsigned 32 bit; None draws one."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt. `job_key` is what fairness counts by; `cache_key` names the conversation whose KV cells may be reused
    (None: none); `client` is the peer's address, for limits only."""

    request_id: str
    messages: tuple[Message, ...]
    max_tokens: int
    sampling: SamplingParameters
    stop: tuple[str, ...] = ()
    job_key: str = ""
    cache_key: str | None = None
    client: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The prompt is tokenised and fits; no token is made yet. `prompt_ids` are the rendered prompt's token ids."""

    prompt_ids: tuple[int, ...]
    context_window: int
    seed: int
    """The seed in use, drawn by the engine where the request named none."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the rendered prompt in tokens."""
        return len(self.prompt_ids)


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens just sampled, in order, and the text that became whole with them (may be empty; never splits a character).

    End-of-generation tokens are not among the ids: they are not billed.
    """

    token_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a generation. `text` is what the decoder or the stop search still held back; it carries no token."""

    finish_reason: FinishReason
    text: str = ""


GenerationEvent = Accepted | Piece | Finished


class EngineState(StrEnum):
    """What the engine can do now."""

    STOPPED = "stopped"
    NO_MODEL = "no_model"
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"  # gave up: repeated crashes, or a file that cannot be loaded


class EngineFailure(StrEnum):
    """Why the engine is FAILED."""

    NONE = ""
    FILE_MISSING = "file_missing"
    FILE_UNUSABLE = "file_unusable"
    MEMORY = "memory"
    CRASHES = "crashes"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The loaded model. `sha256` is of the file, hex; `size_bytes` of the file; `longest_word` the most ASCII
    letters, digits and signs that one token stands for (0 where that is not certain)."""

    name: str
    path: str
    sha256: str
    size_bytes: int
    architecture: str
    parameter_count: int
    quantisation: str
    context_window: int
    gpu_layers: int
    layer_count: int
    longest_word: int = 0


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot for windows, /status and metrics. `load_progress` lies in 0..1 while loading; `is_remote`: another server makes
    the tokens, there is no worker here."""

    state: EngineState
    detail: str
    model: ModelInfo | None
    active_streams: int
    queued_requests: int
    parallel_streams: int
    tokens_per_second: float
    load_progress: float
    restarts: int
    worker_pid: int | None
    is_hung: bool = False
    """The worker is started again because it said nothing for too long."""
    queue_limit: int = 0
    """How many prompts may wait; 0 where there is no line."""
    warning: str = ""
    """What the host should know while it serves: layers that are not on the GPU, memory that was short."""
    failure: EngineFailure = EngineFailure.NONE
    gpu_free_bytes: int = 0
    """What the GPUs had free before the model was loaded; 0 where there is none."""
    is_remote: bool = False


@runtime_checkable
class KeepsConversations(Protocol):
    """An engine that keeps what it read of a conversation for its next prompt."""

    def forget(self, cache_key: str) -> None:
        """No further prompt of this conversation comes: give back what is kept of it."""
        ...


class Engine(Protocol):
    """A source of tokens. Safe to call from one loop only."""

    @property
    def status(self) -> EngineStatus:
        """The state just now; cheap."""
        ...

    async def start(self) -> None:
        """Begin loading the configured model; returns before it is ready. State changes go to the feed."""
        ...

    async def stop(self, timeout_s: float = 3.0) -> None:
        """End the worker; running generations end with `ModelUnavailable`. Safe to call twice."""
        ...

    async def load(self, model_path: str) -> None:
        """Switch to another model file after running requests have ended. Raises ModelFileError before anything changes."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Accepted, then Pieces, then Finished.

        Raises a GenerationError (EngineBusy, ContextOverflow, InvalidGenerationRequest, ModelUnavailable, WorkerCrashed).
        Closing the iterator early cancels the request within one decode step.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """End the request within one decode step; its iterator then yields Finished("cancelled"). Unknown ids are ignored."""
        ...
