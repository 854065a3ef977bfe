"""From a conversation to token ids, in the worker, beside the decode loop: a long prompt does not stop the others' tokens."""

from __future__ import annotations

from dataclasses import dataclass

from fabstir_desktop.inference import wire
from fabstir_desktop.inference.llama import LlamaError, LlamaModel
from fabstir_desktop.inference.templates import ChatTemplate, TemplateError


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with its prompt's token ids."""

    begin: wire.Begin
    prompt_ids: tuple[int, ...]


class Preparer:
    """Render and tokenise. Called from the preparing thread only; the vocabulary is read-only."""

    def __init__(self, model: LlamaModel, window: int) -> None:
        self._model = model
        self._window = window
        self._bos_text = model.bos_text
        self._template = ChatTemplate(
            model.chat_template, bos=self._bos_text, eos=model.eos_text, control_texts=model.control_texts()
        )

    def prepare(self, begin: wire.Begin) -> Prepared | wire.Refused:
        """The prompt's ids, or why there are none. Never raises for what a client may send."""
        try:
            ids = self.tokenise(begin.messages)
        except TemplateError as error:
            return wire.Refused(begin.stream, wire.INVALID, str(error))
        except LlamaError as error:
            return wire.Refused(begin.stream, wire.INVALID, str(error))
        if not ids:
            return wire.Refused(begin.stream, wire.INVALID, "the conversation is empty")
        if len(ids) >= self._window:
            return wire.Refused(begin.stream, wire.OVERFLOW, "", len(ids))
        return Prepared(begin, tuple(ids))

    def tokenise(self, messages: list[tuple[str, str]]) -> list[int]:
        """Token ids of the rendered conversation, with the beginning token exactly once where the model wants one."""
        segments = self._template.render(messages)
        ids: list[int] = []
        for segment in segments:
            ids += self._model.tokenise(segment.text, parse_controls=not segment.plain)
        bos = self._model.bos_id
        if bos is not None and (not ids or ids[0] != bos):
            ids.insert(0, bos)
        return ids

    def common_prefix(self) -> list[int]:
        """The token ids with which every conversation of a lone user message begins: the template's own beginning."""
        try:
            first = self.tokenise([("user", "A")])
            second = self.tokenise([("user", "zebra 7")])
        except (TemplateError, LlamaError):
            return []
        length = 0
        while length < min(len(first), len(second)) and first[length] == second[length]:
            length += 1
        return first[:length]
