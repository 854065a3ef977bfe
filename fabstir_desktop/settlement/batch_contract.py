"""Where the code lies that a host's account borrows for batches (EIP-7702), and how it gets there.

The address follows from the code (CREATE2 through the factory that is the same on every chain, salt zero): at this address
there is this code or none, so not even a lying RPC can make the account borrow another.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from fabstir_desktop.jobs.status import WalletState
from fabstir_desktop.settings import Settings
from fabstir_desktop.wallet.signer import Signer, keccak256, to_checksum_address
from fabstir_desktop.wallet.wallet import Wallet

FACTORY = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
BATCH_CONTRACT = "0x5B567b9ca41Bad87Ce727b818E384736B91f54d0"
SALT = bytes(32)
DELEGATION_PREFIX = bytes.fromhex("ef0100")
"""What the code of an account that borrows some begins with (EIP-7702); the address follows."""
OWN_DELEGATION = DELEGATION_PREFIX + bytes.fromhex(BATCH_CONTRACT[2:])

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "_resources" / "contracts", _PACKAGE.parent / "resources" / "contracts")


@cache
def deployment() -> bytes:
    """What the factory is sent to put the code on chain; empty where this installation lacks it, or has another code."""
    for folder in _FOLDERS:
        path = folder / "BatchClaims.json"
        if path.is_file():
            code = bytes.fromhex(str(json.loads(path.read_text(encoding="utf-8"))["bytecode"]).removeprefix("0x"))
            return SALT + code if create2_address(code) == BATCH_CONTRACT else b""
    return b""


def create2_address(code: bytes) -> str:
    """Where the factory puts a contract that is made by this code."""
    digest = keccak256(b"\xff" + bytes.fromhex(FACTORY[2:]) + SALT + keccak256(code))
    return to_checksum_address("0x" + digest[-20:].hex())


def signing_errands() -> dict[str, bytes]:
    """What a signer may sign beside claims: sending the code to the factory."""
    return {FACTORY: deployment()} if deployment() else {}


def claim_signer(wallet: Wallet, settings: Settings) -> Signer | None:
    """A signer for claims to the contract that is set, single or batched; None while the wallet has no usable key."""
    if wallet.status.state is not WalletState.READY:
        return None
    return wallet.signer(
        settings.chain_id,
        frozenset({settings.contract_address}),
        delegates=frozenset({BATCH_CONTRACT}),
        errands=signing_errands(),
    )
