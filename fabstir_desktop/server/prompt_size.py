"""What is too long is refused by its bytes, before the model's process spends time on cutting it into tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fabstir_desktop.errors import ContextOverflow, InvalidGenerationRequest
from fabstir_desktop.jobs.generation import EngineStatus, Message

BYTES_PER_TOKEN: Final = 64
"""Many times what a text comes to, and more where the vocabulary has longer words: what has more is runs of one character."""
BYTES_BESIDE: Final = 4 << 10
"""For the least of windows: a short prompt is never refused by its bytes."""
_NO_LETTERS: Final = bytes(range(0x21)) + b"\x7f"


def check_prompt_size(turns: Sequence[Message], status: EngineStatus) -> None:
    """Raises ContextOverflow if the turns cannot fit the window, InvalidGenerationRequest if they are beyond all reason.

    A model on another server is left to that server: its window may be a guess, and its tokeniser is not ours.
    """
    model = status.model
    if model is None or status.is_remote or model.context_window <= 0:
        return
    least = _least_tokens(turns, model.context_window, model.longest_word)
    if least >= model.context_window:
        raise ContextOverflow(least, model.context_window, is_lower_bound=True)
    size = sum(len(turn.content.encode()) for turn in turns)
    most = model.context_window * max(BYTES_PER_TOKEN, model.longest_word) + BYTES_BESIDE
    if size > most:
        raise InvalidGenerationRequest(
            f"the prompt has {size} bytes; for a window of {model.context_window} tokens at most {most} are taken"
        )


def _least_tokens(turns: Sequence[Message], window: int, longest_word: int) -> int:
    """Tokens that the turns have at the very least, 0 if that is surely below the window or cannot be told.

    What users said is put before the model whole, whatever its template does with blanks, answers and instructions.
    """
    texts = [turn.content for turn in turns if turn.role == "user"]
    if longest_word <= 0 or sum(map(len, texts)) < window * longest_word:
        return 0
    letters = sum(len(text.encode("ascii", "ignore").translate(None, _NO_LETTERS)) for text in texts)
    return -(-letters // longest_word)
