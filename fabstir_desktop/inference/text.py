"""From token bytes to text: whole characters only, and never past a stop string. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class StreamText:
    """Turn the bytes of sampled tokens into text as it becomes certain.

    Bytes of an unfinished character are held back (at most three), and so is the longest end of the text that may still
    grow into a stop string. Text from a stop string on is never given out. The cost per token does not grow with the answer.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False
        """Whether a stop string was completed."""

    def push(self, piece: bytes) -> str:
        """Take one token's bytes; returns the text that is certain now. Sets `stopped` when a stop string is complete."""
        text = self._decoder.decode(piece)
        if not self._stops:
            return text
        return self._search(text)

    def finish(self) -> str:
        """The end of the answer: returns what was held back, U+FFFD for an unfinished character. Nothing after a stop."""
        if self.stopped:
            return ""
        text = self._decoder.decode(b"", final=True)
        if not self._stops:
            return text
        return self._search(text) + ("" if self.stopped else self._held)

    def _search(self, text: str) -> str:
        if self.stopped or not text:
            return ""
        pending = self._held + text
        found = [place for place in (pending.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return pending[: min(found)]
        keep = max(_overlap(pending, stop) for stop in self._stops)
        self._held = pending[len(pending) - keep :] if keep else ""
        return pending[: len(pending) - keep] if keep else pending


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
