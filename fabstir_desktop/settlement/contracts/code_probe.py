"""What a contract's code can answer, read from the code: selectors and event topics stand in it as constants.

Behind an EIP-1967 proxy it is the implementation's code that counts.
"""

from __future__ import annotations

from fabstir_desktop.errors import CallReverted, ContractNotSupported
from fabstir_desktop.settlement.abi import ContractCall, ContractEvent
from fabstir_desktop.settlement.chain_client import ChainClient

IMPLEMENTATION_SLOT = 0x360894A13BA1A3210667C828492DB98DCA3E2076CC3735A920A3CA505D382BBC


async def readable_code(client: ChainClient, address: str) -> bytes:
    """The contract's code, and its implementation's after it. Raises ContractNotSupported if there is none."""
    code = await client.code(address)
    if not code:
        raise ContractNotSupported(
            f"There is no contract at {address} on this chain; check the contract address and the RPC"
        )
    implementation = (await client.storage(address, IMPLEMENTATION_SLOT))[-20:]
    if any(implementation):
        code += await client.code("0x" + implementation.hex())
    return code


def has_call(code: bytes, call: ContractCall) -> bool:
    """Whether the dispatcher knows the function (PUSH4 selector)."""
    return b"\x63" + call.selector in code


def has_event(code: bytes, event: ContractEvent) -> bool:
    """Whether the code can write the event."""
    return event.topic in code


async def answers_claims(client: ChainClient, address: str, code: bytes, call: ContractCall, garbage: bytes) -> bool:
    """Whether the function is there: its selector stands in the code, or (behind another kind of proxy) a nonsensical
    call is refused with a reason. A contract that takes nonsense without a word does not speak the interface."""
    if has_call(code, call):
        return True
    try:
        await client.call(address, garbage)
    except CallReverted as error:
        return error.reason != "no reason given"
    return False
