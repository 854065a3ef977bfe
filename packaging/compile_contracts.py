"""Compile resources/contracts/*.sol into the JSON artifacts beside them.

    python packaging/compile_contracts.py            write the artifacts
    python packaging/compile_contracts.py --check    exit 1 if one is not what its source compiles to

The compiler is solc from npm, pinned in tests/node. Neither paths nor metadata enter the bytecode, so the same source
gives the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "resources" / "contracts"
COMPILE_LIMIT_S = 120.0

sys.path.insert(0, str(ROOT / "tests"))
from node_tools import solc_command  # noqa: E402  the tests own their tools

SETTINGS: dict[str, Any] = {
    # Cancun is the newest set of instructions that Base, anvil and py-evm all have had for long.
    "evmVersion": "cancun",
    "optimizer": {"enabled": True, "runs": 10_000},
    # The marketplace's getter returns 18 values; only this pipeline has room for them.
    "viaIR": True,
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
}


def compile_all(sources: list[Path]) -> dict[str, str]:
    """Return the artifact text of every contract that has a file of its name. Raises SystemExit on a compiler error."""
    request = {
        "language": "Solidity",
        "sources": {path.name: {"content": path.read_text(encoding="utf-8")} for path in sources},
        "settings": SETTINGS
        | {"outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode", "metadata"]}}},
    }
    output = _solc(request)
    problems = [entry["formattedMessage"] for entry in output.get("errors", []) if entry["severity"] != "info"]
    if problems:
        raise SystemExit("\n".join(problems))
    return {path.stem: _artifact(path, output["contracts"][path.name][path.stem]) for path in sources}


def _solc(request: dict[str, Any]) -> Any:
    # Into a file, not a pipe: solcjs exits without waiting for a pipe to be read, and cuts the answer off at 64 KiB.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        result = subprocess.run(
            [*solc_command(), "--standard-json"],
            input=json.dumps(request),
            stdout=answer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=COMPILE_LIMIT_S,
            check=False,
        )
        answer.seek(0)
        text = answer.read()
    start = text.find("{")  # solcjs prints a line of its own before the answer
    if result.returncode != 0 or start < 0:
        raise SystemExit(f"solc failed: {result.stderr.strip() or text.strip()}")
    return json.loads(text[start:])


def _artifact(path: Path, compiled: dict[str, Any]) -> str:
    deployed = compiled["evm"]["deployedBytecode"]
    artifact = {
        "contractName": path.stem,
        "sourceName": path.name,
        "compiler": {"name": "solc", "version": json.loads(compiled["metadata"])["compiler"]["version"]},
        "settings": SETTINGS,
        "abi": compiled["abi"],
        "bytecode": "0x" + compiled["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + deployed["object"],
        # Where the constructor writes its immutable values into the deployed code: compare around them.
        "immutableReferences": sorted(
            (place for places in deployed.get("immutableReferences", {}).values() for place in places),
            key=lambda place: place["start"],
        ),
    }
    return json.dumps(artifact, indent=1) + "\n"


def main() -> int:
    """Compile and write, or compare; return the exit code."""
    parser = argparse.ArgumentParser(description="compile the contracts")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if an artifact is stale")
    check = parser.parse_args().check
    stale = []
    for name, text in compile_all(sorted(CONTRACTS.glob("*.sol"))).items():
        target = CONTRACTS / f"{name}.json"
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            target.write_text(text, encoding="utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
