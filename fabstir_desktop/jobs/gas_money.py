"""Gas money in words, and when it is little: the same for the monitor that tells of it and the window that shows it."""

from __future__ import annotations

WARN_CHECKPOINTS = 50
"""At so many checkpoints left the host is told to send some."""
ALERT_CHECKPOINTS = 10
"""At so many the host is told once more, because the next thing to happen is that claims stop."""


def format_eth(wei: int) -> str:
    """Wei as ETH, exact, without trailing zeros."""
    whole, rest = divmod(wei, 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".")
