"""The result of looking at one thing that payment depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, whether it would let a payment through, a sentence, and what to do if not."""

    name: str
    passed: bool
    detail: str
    action: str = ""
