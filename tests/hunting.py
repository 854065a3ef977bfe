"""Seeds: each hunt draws its own, says it, and plays it again with `--seed`."""

from __future__ import annotations

import random

import pytest


def hunt_seed(request: pytest.FixtureRequest) -> int:
    """The seed of `--seed`, or a new one; printed, so that a failure's report has it."""
    chosen = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(2**32) if chosen is None else int(chosen)
    print(f"to play this again: --seed {seed}")
    return seed
