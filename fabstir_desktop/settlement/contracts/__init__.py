"""One module per contract behind one small interface; `make_contract` picks by the venue's word."""

from __future__ import annotations

from collections.abc import Callable

from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts.base import SettlementContract
from fabstir_desktop.settlement.contracts.job_marketplace import JobMarketplace
from fabstir_desktop.settlement.contracts.proof_system import ProofSystem


def make_contract(venue: Venue, client: ChainClient) -> SettlementContract:
    """The contract of a venue. Raises ValueError for an unknown interface."""
    makers: dict[str, Callable[[ChainClient, str], SettlementContract]] = {
        "proof_system": ProofSystem,
        "job_marketplace": JobMarketplace,
    }
    if venue.interface not in makers:
        raise ValueError(f"no contract interface is called {venue.interface}")
    return makers[venue.interface](client, venue.contract)
