"""The model's own chat template, rendered in a sandbox, and cut so that no client's text becomes a control token.

Runs in the worker only: a template is code from whoever published the model. A template that never ends is ended by the
parent's watchdog together with the worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Two code points that Unicode reserves for a program's own use; a client's own are replaced.
_PLAIN_ON = "\ufdd0"
_PLAIN_OFF = "\ufdd1"
_MARKS = re.compile(f"[{_PLAIN_ON}{_PLAIN_OFF}]")
_PLACEHOLDER = "\ufffd"
MAX_RENDERED_CHARACTERS = 8_000_000


class TemplateError(Exception):
    """The template cannot be read, or refuses a conversation. The text holds nothing of the conversation."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the rendered prompt; in a `plain` one control tokens are ordinary text."""

    text: str
    plain: bool


class _GenerationTags(Extension):
    """Transformers' `{% generation %}` marks training targets; for a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: Parser) -> list[Node]:
        parser.stream.skip()
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One model's template. `control_texts` are the spellings of the vocabulary's control tokens."""

    def __init__(self, source: str | None, *, bos: str, eos: str, control_texts: Iterable[str]) -> None:
        self._bos = bos
        self._eos = eos
        spellings = sorted({text for text in control_texts if text}, key=lambda text: (-len(text), text))
        self._controls = re.compile("|".join(map(re.escape, spellings))) if spellings else None
        self._source = source or ""
        self._template: jinja2.Template | None = None
        if source is not None:
            self._template = self._compile(source)

    def render(self, messages: Sequence[tuple[str, str]]) -> list[Segment]:
        """The prompt for `messages` (role and content) in segments, up to where the answer begins. Raises TemplateError."""
        guarded = [{"role": role, "content": self._guard(content)} for role, content in messages]
        text = self._plain_dialogue(guarded) if self._template is None else self._fill(self._template, guarded)
        if len(text) > MAX_RENDERED_CHARACTERS:
            raise TemplateError("the rendered conversation is too long")
        return list(_segments(text))

    def _compile(self, source: str) -> jinja2.Template:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[_GenerationTags, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        try:
            return environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, MemoryError) as error:
            raise TemplateError(f"the model's chat template cannot be read: {type(error).__name__}") from None

    def _fill(self, template: jinja2.Template, messages: list[dict[str, str]]) -> str:
        try:
            return template.render(
                messages=messages,
                bos_token=self._bos,
                eos_token=self._eos,
                add_generation_prompt=True,
                raise_exception=self._refuse,
                strftime_now=lambda layout: datetime.now().strftime(layout),
                tools=None,
                documents=None,
            )
        except TemplateError:
            raise
        except Exception as error:  # noqa: BLE001 - a template is foreign code and may raise anything
            raise TemplateError(
                f"the model's chat template cannot render this conversation: {type(error).__name__}"
            ) from None

    def _refuse(self, message: object) -> NoReturn:
        # Quoted only if it stands in the template: one that was put together may hold the client's words.
        quoted = f": {str(message)[:120]}" if str(message) in self._source else ""
        raise TemplateError(f"the model's chat template refuses this conversation{quoted}")

    def _guard(self, content: str) -> str:
        """Fence what would be read as a control token, so that it stays the client's text."""
        content = _MARKS.sub(_PLACEHOLDER, content)
        if self._controls is None:
            return content
        return self._controls.sub(lambda match: f"{_PLAIN_ON}{match.group()}{_PLAIN_OFF}", content)

    @staticmethod
    def _plain_dialogue(messages: list[dict[str, str]]) -> str:
        """For models without a template: a lone prompt as it is, a dialogue line by line."""
        if len(messages) == 1:
            return messages[0]["content"]
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant:"


def _segments(text: str) -> Iterable[Segment]:
    plain = False
    start = 0
    for mark in _MARKS.finditer(text):
        if mark.start() > start:
            yield Segment(text[start : mark.start()], plain)
        plain = mark.group() == _PLAIN_ON
        start = mark.end()
    if start < len(text):
        yield Segment(text[start:], plain)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
