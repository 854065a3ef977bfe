"""The last step of every run must bite: a run that wrote a secret anywhere fails, and says where."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from secrets_support import KEY_MARK, PROMPT, RPC_QUERY, TEXT_MARK, canary_key, leaks_below, marks_in, with_canary

TESTS = Path(__file__).resolve().parent.parent
CONFTEST = """
import pytest
from secrets_support import SecretHunt

def pytest_configure(config):
    config.pluginmanager.register(SecretHunt(config), "secret-hunt")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is gone before the last step of this very run looks around."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def run_suite(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """A suite of one test, with the hunt as its last step."""
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_one.py").write_text(
        "import logging, sys\nfrom secrets_support import *\n\ndef test_it(tmp_path):\n    " + body + "\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_DEBUG_TEMPROOT": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("(tmp_path / 'host.log').write_text(f'prompt: {PROMPT}')", "host.log"),
        ("(tmp_path / 'child.out').write_text(canary_key().upper())", "child.out"),
        ("(tmp_path / 'ledger.db').write_bytes(bytes(5_000_000) + bytes.fromhex(canary_key()[2:]))", "ledger.db"),
        ("(tmp_path / 'settings.toml').write_text(canary_key())", "settings.toml"),
        ("logging.getLogger('fabstir_desktop').warning('RPC %s failed', with_canary('http://127.0.0.1:1'))", "log"),
        ("(tmp_path / 'a.log').write_text(planted('Tell me of the sea and its ships.').upper())", "a.log"),
        ("print(canary_key())", "stdout"),
        ("print(PROMPT, file=sys.stderr)", "stderr"),
    ],
)
def test_a_run_that_wrote_a_secret_fails_and_says_where(folder: Path, body: str, where: str) -> None:
    done = run_suite(folder / "suite", body)
    assert done.returncode == 1, done.stdout
    told = done.stdout.split("secrets were written")[1]
    assert where in told
    assert KEY_MARK not in told
    assert TEXT_MARK not in told


def test_a_run_that_wrote_none_passes(folder: Path) -> None:
    body = "(tmp_path / 'settings.toml').write_text(with_canary('http://127.0.0.1:1')); print('kept')"
    done = run_suite(folder / "suite", body)
    assert done.returncode == 0, done.stdout


def test_a_secret_across_two_pieces_of_a_large_file_is_found(folder: Path) -> None:
    (folder / "large.log").write_bytes(b" " * ((1 << 22) - 5) + PROMPT.encode())
    assert len(list(leaks_below(folder))) == 1


def test_every_spelling_is_found_and_what_is_no_secret_is_not() -> None:
    key = canary_key()
    for secret in (key, key.upper(), bytes.fromhex(key[2:]).hex(), PROMPT, PROMPT.upper(), RPC_QUERY):
        assert marks_in(f"x{secret}x".encode())
    assert marks_in(bytes.fromhex(key[2:]))
    assert marks_in(PROMPT.encode("utf-16-le"))
    assert marks_in(b"http://127.0.0.1:8545 0x" + b"12" * 32) == []
    assert with_canary("http://a:1, http://b/?x=1") == f"http://a:1/?{RPC_QUERY},http://b/?x=1"


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """Where tests call this function."""
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield path, node


def test_every_host_that_tests_make_up_has_a_key_that_is_looked_for() -> None:
    made = [(path, call) for path, call in calls("deploy_demo") if "benchmarks" not in path.parts]
    without = {
        f"{path.relative_to(TESTS)}:{call.lineno}"
        for path, call in made
        if "host_key" not in {keyword.arg for keyword in call.keywords}
    }
    assert without == set()
    assert {path.parent.name for path, _ in made} >= {"integration", "faults", "ui"}


@pytest.mark.parametrize("suite", ["integration", "faults", "ui"])
def test_each_suite_plants_a_key_a_prompt_and_an_rpc_url(suite: str) -> None:
    """`Product`, `Desk` and the requests of both plant them, whatever the test: each suite runs the product through one."""
    sources = [path.read_text(encoding="utf-8") for path in (TESTS / suite).glob("*.py")]
    for plants in (
        ("canary_key(", "host_key"),
        ("brief_request(", "inference("),
        ("Product(", "running(", "Desk("),
    ):
        assert any(plant in source for source in sources for plant in plants), plants
    for module, plant in (
        ("product_support.py", "with_canary("),
        ("product_support.py", "planted("),
        ("server_support.py", "prompt: str = PROMPT"),
        ("ui/desk.py", "with_canary("),
    ):
        assert plant in (TESTS / module).read_text(encoding="utf-8")
