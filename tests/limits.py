"""How long tests wait. No test passes or fails by a clock: a limit only ends what hangs, and slow machines stretch them all."""

from __future__ import annotations

import os

SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))
"""Every limit of a wait is multiplied by it, for slow machines."""


def scaled(limit_s: float) -> float:
    """The limit of a wait on this machine, in seconds."""
    return limit_s * SCALE
