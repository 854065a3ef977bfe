"""What of an answer made elsewhere may be billed: exactly what its server counted, and nothing that is not certain. Pure.

The end-of-generation token is not billed, but servers count it, each in its own place:

- llama-server counts a token beside the text it made (`timings`); the last token and those without text only at the end.
- vLLM tells the ids of each part and, in the part that ends the answer, the end-of-generation token's among them.
- SGLang, and vLLM without ids, tell a running `usage`, which may hold it before they say that the answer has ended. So the
  last token of such a count waits until another follows or the end is told.

When an answer ends by itself ("stop"), the last token that no text came with is the end-of-generation token, unless the server
says that a stop string ended it. Where it does not say which of the two it was, the token is not certain and not billed.

Not guaranteed: that a server counts truthfully. Counts that contradict each other end the answer with an error.
"""

from __future__ import annotations

from fabstir_desktop.inference.openai_dialects import Chunk, OpenAiError
from fabstir_desktop.jobs.generation import Piece

UNKNOWN_TOKEN_ID = 2**31 - 1
"""Stands for a token that was counted by the server but whose id it did not tell."""


class Tally:
    """The account of one answer of at most `max_tokens`. Give it every part, then settle. Its methods raise OpenAiError."""

    def __init__(self, max_tokens: int, prompt_ids: tuple[int, ...]) -> None:
        self.finish_reason: str | None = None
        self._max_tokens = max_tokens
        self._asked_prompt_ids = prompt_ids
        self._prompt_tokens: int | None = None
        self._made = 0
        """Tokens by the server's count, an end-of-generation token among them."""
        self._waiting: list[int] = []
        """The last of them, not billed yet."""
        self._text = ""
        self._has_stop_text = False

    @property
    def is_prompt_counted(self) -> bool:
        """Whether the server has said how long the prompt was."""
        return self._prompt_tokens is not None

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's ids, where the answer's own count of them agrees; else as many unknown ones as it counted."""
        if self._prompt_tokens is None or self._prompt_tokens == len(self._asked_prompt_ids):
            return self._asked_prompt_ids
        return (UNKNOWN_TOKEN_ID,) * self._prompt_tokens

    def take(self, chunk: Chunk) -> Piece | None:
        """Count a part; what of it (and of earlier ones) can be billed and delivered now."""
        self._note_prompt(chunk)
        self._count(chunk)
        self._text += chunk.text
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
            self._has_stop_text = chunk.has_stop_text
        if self._text and not self._made:
            raise OpenAiError("the server gives no token counts while it streams: nothing it makes could be billed")
        if self.finish_reason is not None:
            return None  # how many of the last tokens are billed is decided once all are counted
        is_end_among_them = not chunk.text or (chunk.is_usage and not chunk.is_ids_complete)
        return self._piece(len(self._waiting) - is_end_among_them)

    def settle(self) -> Piece | None:
        """The answer has ended: what is left to bill and deliver."""
        if self.finish_reason == "stop" and not self._has_stop_text and self._waiting:
            self._waiting.pop()
        return self._piece(len(self._waiting))

    def _piece(self, count: int) -> Piece | None:
        billed, self._waiting = tuple(self._waiting[: max(0, count)]), self._waiting[max(0, count) :]
        text, self._text = self._text, ""
        return Piece(billed, text) if billed or text else None

    def _note_prompt(self, chunk: Chunk) -> None:
        if chunk.prompt_ids is not None and self._prompt_tokens is None:
            self._asked_prompt_ids = chunk.prompt_ids
            self._prompt_tokens = len(chunk.prompt_ids)
        elif chunk.prompt_tokens and self._prompt_tokens is None:
            self._prompt_tokens = chunk.prompt_tokens

    def _count(self, chunk: Chunk) -> None:
        ids = list(chunk.token_ids)
        if chunk.made_tokens is None:
            new = len(ids) if chunk.is_ids_complete else 0
        else:
            new = chunk.made_tokens - self._made
            if new < 0 or (chunk.is_ids_complete and new != len(ids)):
                raise OpenAiError("the server's token counts contradict each other: they cannot be billed by")
        if self._made + new > self._max_tokens:
            raise OpenAiError("the server counts more tokens than it was asked for: they cannot be billed by")
        known = ids[-new:] if new else []
        self._waiting += [*([UNKNOWN_TOKEN_ID] * (new - len(known))), *known]
        self._made += new
