"""What the decode loop's inside asks of llama.cpp, so that it can be tested on a model that is made up."""

from __future__ import annotations

from typing import Any, Protocol

from fabstir_desktop.inference.llama import Batch, ContextOptions
from fabstir_desktop.inference.wire import Sampling


class Context(Protocol):
    """The KV cache and the computation; see LlamaContext."""

    window: int
    handle: Any

    def decode(self, batch: Batch) -> None:
        """Compute one step. Raises DecodeError."""
        ...

    def cut(self, sequence: int, start: int) -> bool:
        """Drop the sequence's cells from `start` on; False if it cannot drop a part."""
        ...

    def state_bytes(self, sequence: int) -> int:
        """How large `save` would be."""
        ...

    def save(self, sequence: int) -> bytes:
        """The sequence's cells as bytes."""
        ...

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put saved cells into an empty sequence; False if there is no room."""
        ...

    def close(self) -> None:
        """Free the cache."""
        ...


class Sampler(Protocol):
    """How one stream chooses its tokens; see llama.Sampler."""

    def sample(self, context: Context, index: int) -> int:
        """Choose the token after the batch's token `index`."""
        ...

    def close(self) -> None:
        """Free the sampler."""
        ...


class Model(Protocol):
    """A loaded model; see LlamaModel."""

    def new_context(self, options: ContextOptions) -> Context:
        """An empty cache. Raises LlamaError if there is not enough memory."""
        ...

    def new_sampler(self, parameters: Sampling) -> Sampler:
        """A stream's sampler. Raises LlamaError if there is not enough memory."""
        ...

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (it is not billed)."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        ...
