"""The committed artifacts are what their sources compile to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "resources" / "contracts"


def test_compiling_again_gives_the_committed_artifacts() -> None:
    result = subprocess.run(
        [sys.executable, "packaging/compile_contracts.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "stale: none\n"


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "packaging"))
    try:
        from compile_contracts import compile_all
    finally:
        sys.path.remove(str(ROOT / "packaging"))
    source = (CONTRACTS / "ProofSystem.sol").read_text(encoding="utf-8")
    changed = tmp_path / "ProofSystem.sol"
    changed.write_text(source.replace("TREASURY_SHARE = 10", "TREASURY_SHARE = 11"), encoding="utf-8")
    committed = (CONTRACTS / "ProofSystem.json").read_text(encoding="utf-8")
    assert compile_all([changed])["ProofSystem"] != committed


@pytest.mark.parametrize("source", sorted(CONTRACTS.glob("*.sol")), ids=lambda path: path.stem)
def test_every_contract_has_an_artifact_that_fits_on_a_chain(source: Path) -> None:
    artifact = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    assert artifact["contractName"] == source.stem
    assert artifact["compiler"]["version"].startswith("0.8.")
    assert 0 < len(artifact["deployedBytecode"]) // 2 <= 24_576


def test_the_lock_file_of_the_test_tools_names_no_registry() -> None:
    lock = json.loads((ROOT / "tests" / "node" / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    assert all("resolved" not in entry and "integrity" in entry for entry in packages.values())
