"""One module per contract behind one small interface; `make_contract` picks by the venue's word."""

from __future__ import annotations

from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.contracts.base import SettlementContract
from fabstir_desktop.settlement.contracts.proof_system import ProofSystem


def make_contract(venue: Venue, client: ChainClient) -> SettlementContract:
    """The contract of a venue. Raises ValueError for an unknown interface."""
    makers = {"proof_system": ProofSystem}
    if venue.interface not in makers:
        raise ValueError(f"no contract interface is called {venue.interface}")
    return makers[venue.interface](client, venue.contract)
