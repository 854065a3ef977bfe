"""Names of chains and their block explorers."""

from __future__ import annotations

_NAMES = {1: "Ethereum", 8453: "Base", 84532: "Base Sepolia", 11155111: "Sepolia", 31337: "Anvil"}
_MAIN_CHAINS = frozenset({1, 10, 8453, 42161})
_EXPLORERS = {
    1: "https://etherscan.io/tx/",
    8453: "https://basescan.org/tx/",
    84532: "https://sepolia.basescan.org/tx/",
    11155111: "https://sepolia.etherscan.io/tx/",
}


def chain_name(chain_id: int) -> str:
    """What hosts call the chain."""
    return _NAMES.get(chain_id, f"chain {chain_id}")


def is_testnet(chain_id: int) -> bool:
    """Whether its money is play money."""
    return chain_id not in _MAIN_CHAINS


def has_steady_blocks(chain_id: int) -> bool:
    """Whether blocks come by the clock, so that an old one means that something is wrong; not so on development chains."""
    return chain_id in _EXPLORERS


def explorer_url(chain_id: int, tx_hash: str) -> str | None:
    """Where a transaction can be looked at; None for a chain without a public explorer."""
    base = _EXPLORERS.get(chain_id)
    return f"{base}{tx_hash}" if base else None
