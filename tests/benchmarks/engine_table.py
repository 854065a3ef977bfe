"""What the rows of the engine's table share: who takes part, the prompts, and how a line is judged."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine_contestants import EngineAlone, LlamaServer, PythonServer, Run, WholeProduct

PROMPT = "{} Please tell me a long and detailed story about the sea and all the animals in it."
BEGINNINGS = (
    "Amber",
    "Birch",
    "Copper",
    "Dune",
    "Ember",
    "Fern",
    "Granite",
    "Heron",
    "Iris",
    "Juniper",
    "Kelp",
    "Lark",
)
SENTENCE = "The keeper of the lighthouse number {} wrote down what he saw of the sea, the ships and the birds. "
CANCELS = 200
CLOSES = 100
MEBIBYTE = 1024 * 1024


@dataclass
class Field:
    """Everybody who takes part; those that no chosen row needs are None."""

    rounds: int
    tokens: int
    setup: tuple[int, int, int]
    folder: Path
    product: WholeProduct
    sessions: int = 200
    """That come and go before memory is read."""
    llama_server: LlamaServer | None = None
    engine: EngineAlone | None = None
    bare: Run | None = None
    python: PythonServer | None = None


@dataclass
class Line:
    """A line of the table; `reached` is None where nothing was asked for."""

    figure: str
    must_reach: str
    measured: str
    reached: bool | None
    how: str = ""


def story(number: int) -> str:
    """A prompt that shares no beginning with another's: what a server keeps of one client helps no other."""
    count = len(BEGINNINGS)
    words = [BEGINNINGS[number // count**place % count] for place in range(3)]
    return PROMPT.format(f"{words[0]}, {words[1]} and {words[2]} ask:")


def at_least(figure: str, limit: float, value: float, how: str) -> Line:
    return Line(figure, f"at least {limit:.2f}", f"{value:.2f}", value >= limit, how)


def at_most(figure: str, limit: float, value: float, how: str, unit: str = "", digits: int = 2) -> Line:
    return Line(figure, f"at most {limit:g}{unit}", f"{value:.{digits}f}{unit}", value <= limit, how)


def ratio(own: Sequence[float], other: Sequence[float]) -> float:
    """The median over the rounds of what stood side by side."""
    return statistics.median(a / b for a, b in zip(own, other, strict=True))
