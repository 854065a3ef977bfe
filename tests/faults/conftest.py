"""Fixtures of this folder. Those of the chains are described in chain_support."""

from __future__ import annotations

from chain_support import (  # noqa: F401  fixtures are found by their names
    anvil,
    anvil_world,
    chain,
    embedded_chain,
    embedded_chain_process,
    embedded_world,
    start_anvil,
    start_embedded,
    world,
)
from marketplace_support import marketplace  # noqa: F401
