"""Sentences of rooms that know no Qt, in the user's language: recognised here, at the edge, by what they were written as.

Those rooms write English with the values already in it. `sentences.txt` (made by packaging/extract_sentences.py) has what
they can write, with braces where values go; what is said is matched against it, and its values are said in their turn,
for they may be sentences too. What is not recognised stays as it is: never wrong, at worst English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from PySide6.QtCore import QCoreApplication

from fabstir_desktop.ui.resources import resource_dir

CONTEXT = "sentences"
_PLACE = re.compile(r"\{(\w+)\}")
_COUNT = re.compile(r"(\d{1,9}) (request|job)s?")
_DEEPEST = 4
_KEPT = 2048


def say(text: str) -> str:
    """The text in the user's language."""
    return _say(text, 0)


def forget() -> None:
    """The language has changed."""
    _say.cache_clear()


@lru_cache(maxsize=_KEPT)
def _say(text: str, depth: int) -> str:
    core = text.strip()
    stop = "." if core.endswith(".") and not core.endswith("..") else ""
    core = core.removesuffix(stop) if stop else core
    if not any(letter.isalpha() for letter in core) or depth > _DEEPEST:
        return text
    found = _translate(core, depth)
    if found is None:
        return text
    before, _, after = text.partition(text.strip())
    if core[0].isupper():
        found = found[:1].upper() + found[1:]
    return f"{before}{found}{'' if found.endswith(stop) else stop}{after}"


def _translate(core: str, depth: int) -> str | None:
    """Word for word, or as a sentence with values; None if nobody writes this."""
    whole, patterns = _sources()
    for known in (core, core[:1].lower() + core[1:]):
        if known in whole:
            return QCoreApplication.translate(CONTEXT, known)
    for source, pattern in patterns:
        match = pattern.fullmatch(core)
        if match is not None:
            values = {name: _say(value, depth + 1) for name, value in match.groupdict().items()}
            return _filled(QCoreApplication.translate(CONTEXT, source), values)
    return _counted(core)


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), text)


def _counted(core: str) -> str | None:
    """A number of requests or jobs: other languages have other plurals, which Qt knows."""
    match = _COUNT.fullmatch(core)
    if match is None:
        return None
    said = QCoreApplication.translate(CONTEXT, f"%n {match[2]}(s)", "", int(match[1]))
    return None if "(s)" in said else said


@cache
def _sources() -> tuple[frozenset[str], list[tuple[str, re.Pattern[str]]]]:
    """What can be written: without values, and with them, those that say most first."""
    lines = (resource_dir() / "translations" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    with_values = sorted((line for line in lines if _PLACE.search(line)), key=lambda line: -len(_PLACE.sub("", line)))
    return frozenset(lines) - set(with_values), [(line, _pattern(line)) for line in with_values]


def _pattern(source: str) -> re.Pattern[str]:
    """The first letter may be a capital: a finding becomes a sentence when it is told."""
    parts = _PLACE.split(source)
    literal = [re.escape(part) for part in parts[::2]]
    if parts[0]:
        literal[0] = f"(?i:{re.escape(parts[0][0])}){re.escape(parts[0][1:])}"
    values = [f"(?P<{name}>.*?)" for name in parts[1::2]]
    pieces = [piece for pair in zip(literal, [*values, ""], strict=True) for piece in pair]
    return re.compile("".join(pieces), re.DOTALL)
