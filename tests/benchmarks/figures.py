"""A table of figures on standard output: what was measured, what the aim is, on which machine. Nothing passes or fails by it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A row: `aim` as the issue has it, `measured` with its unit."""

    name: str
    aim: str
    measured: str


def print_figures(title: str, figures: Sequence[Figure]) -> None:
    """Print them as a table that can be pasted into a text."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{title} ({machine}, Python {platform.python_version()})")
    rows = [("figure", "aim", "measured"), *((one.name, one.aim, one.measured) for one in figures)]
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    for number, row in enumerate(rows):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("| " + " | ".join("-" * width for width in widths) + " |", flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
