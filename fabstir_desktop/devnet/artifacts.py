"""The compiled contracts of resources/contracts, and the ABI arithmetic that the demo and the tests need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fabstir_desktop.devnet.answers import to_hex
from fabstir_desktop.errors import Bug

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE.parent / "resources" / "contracts", _PACKAGE / "_resources" / "contracts")


@dataclass(frozen=True, slots=True)
class DecodedEvent:
    """One log entry, read by its ABI. Addresses are checksummed, bytes are bytes."""

    name: str
    arguments: Mapping[str, Any]
    address: str
    block_number: int
    transaction_hash: str

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract. `bytecode` deploys it; `deployed_bytecode` is what then lies at its address."""

    name: str
    abi: tuple[Mapping[str, Any], ...] = field(repr=False)
    bytecode: str = field(repr=False)
    deployed_bytecode: str = field(repr=False)
    compiler_version: str

    def encode_call(self, function: str, *arguments: Any) -> str:
        """Return the call data of a function as hex."""
        entry = self._entry("function", function, len(arguments))
        return to_hex(_selector(entry) + _encode(entry["inputs"], arguments))

    def encode_deployment(self, *arguments: Any) -> str:
        """Return the data of the transaction that deploys the contract with these constructor arguments."""
        inputs: list[Mapping[str, Any]] = next(
            (entry["inputs"] for entry in self.abi if entry["type"] == "constructor"), []
        )
        return self.bytecode + _encode(inputs, arguments).hex()

    def decode_result(self, function: str, output: str) -> tuple[Any, ...]:
        """Read what a call of the function returned."""
        from eth_abi.abi import decode  # noqa: PLC0415

        entry = next(item for item in self.abi if item["type"] == "function" and item["name"] == function)
        return decode([_type(item) for item in entry["outputs"]], bytes.fromhex(output.removeprefix("0x")))

    def decode_events(self, logs: Iterable[Mapping[str, Any]], name: str | None = None) -> list[DecodedEvent]:
        """Read the log entries that this contract's ABI knows, all or those of one name; others are passed over."""
        by_topic = {to_hex(_topic(entry)): entry for entry in self.abi if entry["type"] == "event"}
        found = [_decode_event(by_topic[log["topics"][0]], log) for log in logs if log["topics"][0] in by_topic]
        return [event for event in found if name is None or event.name == name]

    def _entry(self, kind: str, name: str, count: int) -> Mapping[str, Any]:
        for entry in self.abi:
            if entry["type"] == kind and entry["name"] == name and len(entry["inputs"]) == count:
                return entry
        raise Bug(f"{self.name} has no {kind} {name} with {count} arguments")


@cache
def load_artifact(name: str) -> Artifact:
    """Read resources/contracts/NAME.json. Raises Bug when it is not part of this installation."""
    for folder in _FOLDERS:
        path = folder / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            return Artifact(
                name=content["contractName"],
                abi=tuple(content["abi"]),
                bytecode=content["bytecode"],
                deployed_bytecode=content["deployedBytecode"],
                compiler_version=content["compiler"]["version"],
            )
    raise Bug(f"the contract artifact {name}.json is missing from this installation")


def contract_address(creator: str, nonce: int) -> str:
    """Return the address that a contract gets when `creator` deploys it with this nonce."""
    from eth_utils.address import to_checksum_address  # noqa: PLC0415
    from eth_utils.crypto import keccak  # noqa: PLC0415
    from rlp import encode  # type: ignore[import-untyped]  # noqa: PLC0415

    return str(to_checksum_address(keccak(encode([bytes.fromhex(creator[2:]), nonce]))[-20:]))


def _decode_event(entry: Mapping[str, Any], log: Mapping[str, Any]) -> DecodedEvent:
    from eth_abi.abi import decode  # noqa: PLC0415

    indexed = [item for item in entry["inputs"] if item["indexed"]]
    plain = [item for item in entry["inputs"] if not item["indexed"]]
    values: dict[str, Any] = {}
    for item, topic in zip(indexed, log["topics"][1:], strict=True):
        values[item["name"]] = decode([item["type"]], bytes.fromhex(topic[2:]))[0]
    decoded = decode([_type(item) for item in plain], bytes.fromhex(log["data"][2:]))
    values.update({item["name"]: value for item, value in zip(plain, decoded, strict=True)})
    return DecodedEvent(
        name=entry["name"],
        arguments={item["name"]: _shown(item["type"], values[item["name"]]) for item in entry["inputs"]},
        address=_shown("address", log["address"]),
        block_number=int(log["blockNumber"], 16),
        transaction_hash=log["transactionHash"],
    )


def _shown(abi_type: str, value: Any) -> Any:
    if abi_type != "address":
        return value
    from eth_utils.address import to_checksum_address  # noqa: PLC0415

    return to_checksum_address(value)


def _encode(inputs: list[Mapping[str, Any]], arguments: tuple[Any, ...]) -> bytes:
    from eth_abi.abi import encode  # noqa: PLC0415

    return encode([_type(item) for item in inputs], arguments)


def _selector(entry: Mapping[str, Any]) -> bytes:
    return _topic(entry)[:4]


def _topic(entry: Mapping[str, Any]) -> bytes:
    from eth_utils.crypto import keccak  # noqa: PLC0415

    signature = f"{entry['name']}({','.join(_type(item) for item in entry['inputs'])})"
    return bytes(keccak(signature.encode()))


def _type(item: Mapping[str, Any]) -> str:
    """Return the canonical type; a struct is the tuple of its members."""
    kind = str(item["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_type(member) for member in item['components'])}){kind.removeprefix('tuple')}"
