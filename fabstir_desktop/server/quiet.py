"""The logger websockets is given."""

from __future__ import annotations

import logging


def quiet_logger() -> logging.Logger:
    """Warnings only, whatever LOG_LEVEL is: at DEBUG websockets writes whole frames, and so prompts and answers."""
    logger = logging.getLogger("fabstir_desktop.server.websockets")
    logger.setLevel(logging.WARNING)
    return logger
