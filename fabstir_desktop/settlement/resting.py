"""How long rests what was reverted. Pure."""

from __future__ import annotations

FREE_RETRIES = 1
FIRST_REST_S = 60.0
LONGEST_REST_S = 6 * 3600.0
"""What was reverted is sent again at once; after each further revert it rests four times as long, for it costs gas."""


def rest_after_reverts_s(reverts: int) -> float:
    """How long what was reverted so often rests since it was last made, in seconds."""
    if reverts <= FREE_RETRIES:
        return 0.0
    return min(LONGEST_REST_S, FIRST_REST_S * 4.0 ** min(reverts - FREE_RETRIES - 1, 10))
