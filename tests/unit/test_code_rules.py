"""The rules of the house: what the linters, the type checker and the import contracts say, and what they cannot say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "fabstir_desktop"
LONGEST_FILE = 400
LONGEST_FUNCTION = 40
TEXT_ENDINGS = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".sol",
    ".json",
    ".desktop",
    ".spec",
    ".in",
    ".yml",
    ".yaml",
    ".cfg",
    ".sh",
    "",
}


def run(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=580, check=False
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"


def project_files() -> Iterator[Path]:
    """What belongs to the project: the files git tracks, or in an unpacked archive every file."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in listed.stdout.split("\0") if name]
    yield from (ROOT / name for name in names if (ROOT / name).is_file())


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function, but those that say in the line above, in words, why they are long: `# long: a table of columns`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not re.fullmatch(r"\s*# long: \w.{8,}", lines[node.lineno - 2]):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_the_linter_finds_nothing() -> None:
    run("ruff", "check", ".")


def test_every_file_is_formatted() -> None:
    run("ruff", "format", "--check", ".")


@pytest.mark.timeout(600)  # the first run has no cache
def test_the_types_hold() -> None:
    run("mypy")


def test_arrows_only_go_down_and_each_library_has_one_door() -> None:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_of_the_application_is_longer_than_a_reader_bears() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_function_of_the_application_is_longer_than_a_screen() -> None:
    long = {name: node.end_lineno - node.lineno + 1 for name, node in functions() if node.end_lineno is not None}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION} == {}


def test_the_packaging_folder_is_no_package() -> None:
    assert not (ROOT / "packaging" / "__init__.py").exists()


def test_the_lock_files_pin_every_package_with_hashes_and_name_no_registry() -> None:
    for lock in sorted((ROOT / "packaging" / "locks").glob("*.txt")):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text, lock.name
        for requirement in re.split(r"\n(?=[A-Za-z0-9])", text.split("\n", 1)[1]):
            assert re.match(r"[A-Za-z0-9._-]+==\S+", requirement), (lock.name, requirement[:80])
            assert "--hash=sha256:" in requirement, (lock.name, requirement[:80])


@pytest.mark.parametrize("lock", ["app.txt", "test.txt"])
def test_every_dependency_of_the_project_is_locked(lock: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["demo"]]
    if lock == "test.txt":
        wanted += project["dependency-groups"]["dev"]
    locked = {
        re.sub(r"[-_.]+", "-", name).lower()
        for name in re.findall(
            r"^([A-Za-z0-9._-]+)==", (ROOT / "packaging" / "locks" / lock).read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~!; ]", text)[0]).lower() for text in wanted}
    assert names - locked == set()


def test_the_project_names_nothing_outside_itself() -> None:
    # Spelled in halves, so that this file does not find itself.
    strangers = [
        "/work/" + "shared",
        "/work/" + "main",
        "../" + "shared",
        "registry." + "npmjs",
        "files.python" + "hosted",
    ]
    found = [
        (str(path.relative_to(ROOT)), stranger)
        for path in project_files()
        if path.suffix in TEXT_ENDINGS
        for stranger in strangers
        if stranger in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []
