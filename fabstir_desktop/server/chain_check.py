"""Whether the chain that a client names for its job is the one this host claims on. Pure."""

from __future__ import annotations

from typing import Final

from fabstir_desktop.server.actions import Refusal

_CHAIN_OF_SDKS: Final = 84532  # what Fabstir's SDK names where its user chose no chain
_DEVELOPMENT_CHAINS: Final = frozenset({1337, 31337, 131277322940537})  # on one machine: the demo, anvil, hardhat


def check_chain(own_chain_id: int, job_id: int | None, chain_id: int | None) -> None:
    """Job ids repeat from chain to chain: a job named for another chain would be paid by someone else's deposit.

    Raises Refusal.
    """
    if chain_id == _CHAIN_OF_SDKS and own_chain_id in _DEVELOPMENT_CHAINS:
        return  # who says nothing says this; on a chain without value no one loses by it
    if job_id is not None and chain_id is not None and chain_id != own_chain_id:
        raise Refusal("JOB_NOT_VALID", f"this host claims on chain {own_chain_id}, not on chain {chain_id}")
