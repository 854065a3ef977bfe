"""The account of one answer: which sampled tokens are billed, what text is given out, and when it ends. Pure.

Billed is every sampled token but the one that ends the generation. The token that completes a stop string was sampled and is
billed; the text from the stop string on is not given out. `max_tokens` is checked right after each token, before anything
else can delay it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fabstir_desktop.inference.text import StreamText


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a sampled token: `ending` is "stop" or "length" if it was the last."""

    is_billed: bool
    text: str
    ending: str | None


_END = Taken(is_billed=False, text="", ending="stop")


class Answer:
    """Takes the sampled tokens of one answer, at most `allowed_tokens`."""

    def __init__(self, allowed_tokens: int, stops: Sequence[str] = ()) -> None:
        if allowed_tokens < 1:
            raise ValueError("an answer has room for one token at least")
        self.made_tokens = 0
        self._allowed = allowed_tokens
        self._text = StreamText(stops)

    def take(self, piece: bytes | None) -> Taken:
        """Take a token by its bytes; None is an end-of-generation token."""
        if piece is None:
            return _END
        self.made_tokens += 1
        text = self._text.push(piece)
        if self._text.stopped:
            return Taken(True, text, "stop")
        return Taken(True, text, "length" if self.made_tokens >= self._allowed else None)

    def finish(self) -> str:
        """The text still held back."""
        return self._text.finish()
