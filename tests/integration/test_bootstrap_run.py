"""The bootstrap for real, on a small project of its own: interpreter, environment, pip, interruptions, two at once.

The locked packages are tiny wheels on disk, so nothing is fetched; everything else is what a user's first start does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parent.parent.parent / "packaging"
LIMIT_S = 120
BACKEND = """
import zipfile
from pathlib import Path

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "fabstir_desktop-0-py3-none-any.whl"
    info = "fabstir_desktop-0.dist-info"
    with zipfile.ZipFile(Path(folder) / name, "w") as wheel:
        wheel.writestr("project.pth", str(Path.cwd()) + "\\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: fabstir-desktop\\nVersion: 0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name

build_wheel = build_editable
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "fabstir-desktop"
version = "0"
"""
PROGRAM = """
import os, sys, tiny_app, tiny_model
print("program", tiny_app.text, sys.argv[1:], os.getcwd(), flush=True)
sys.exit(int(os.environ.get("EXIT_CODE", "0")))
"""


def make_wheel(folder: Path, name: str, padding: int = 0) -> str:
    """Write a wheel and return its line for a lock file."""
    path = folder / f"{name}-1-py3-none-any.whl"
    files = {f"{name}.py": "text = 'here'\n", f"{name}_data/big.bin": "x" * padding}
    info = f"{name}-1.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, content)
    return f"{name} @ {path.as_uri()} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone, so to speak: the real bootstrap beside a small project."""
    root = tmp_path_factory.mktemp("first") / "a folder with spaces é"
    (root / "packaging" / "locks").mkdir(parents=True)
    for name in ("bootstrap.py", "system_parts.py"):
        shutil.copy(PACKAGING / name, root / "packaging" / name)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    (root / "fabstir_desktop").mkdir()
    (root / "fabstir_desktop" / "__main__.py").write_text(PROGRAM)
    locks = root / "packaging" / "locks"
    (locks / "app.txt").write_text(make_wheel(root, "tiny_app"))
    (locks / "model.txt").write_text(make_wheel(root, "tiny_model"))
    return root


def start(root: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: text for name, text in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    return subprocess.Popen(
        [sys.executable, str(root / "packaging" / "bootstrap.py"), "demo", *arguments],
        cwd=root.parent,
        env={**inherited, "PIP_NO_INDEX": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(root: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    process = start(root, *arguments, **environment)
    output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def test_the_first_run_makes_everything_and_the_second_starts_at_once(template: Path) -> None:
    code, output = run(template, "--once")
    assert code == 0, output
    assert "making the virtual environment" in output
    assert "no display here" in output
    assert f"program here ['--demo', '--headless', '--once'] {template.parent}" in output

    begun = time.monotonic()
    code, output = run(template, "--headless", EXIT_CODE="7")
    assert time.monotonic() - begun < 5
    assert code == 7, output
    assert output.splitlines() == [f"program here ['--demo', '--headless'] {template.parent}"]


def test_a_broken_environment_is_made_anew(template: Path) -> None:
    assert run(template)[0] == 0
    python = template / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text("#!/nonexistent\n")
    python.chmod(0o755)
    code, output = run(template)
    assert code == 0, output
    assert "program here" in output


def test_a_package_lost_by_an_interruption_comes_back(template: Path) -> None:
    assert run(template)[0] == 0
    (package,) = (template / ".venv").glob("lib/python3*/site-packages/tiny_app.py")
    package.unlink()
    (template / ".venv" / "bootstrap-stamp.json").unlink()
    code, output = run(template)
    assert code == 0, output
    assert "tiny_app is incomplete" in output
    assert "program here" in output


def test_a_wheel_that_is_not_the_locked_one_is_refused(template: Path) -> None:
    lock = template / "packaging" / "locks" / "app.txt"
    original = lock.read_text()
    lock.write_text(original.split("--hash")[0] + f"--hash=sha256:{'0' * 64}\n")
    (template / ".venv" / "bootstrap-stamp.json").unlink(missing_ok=True)
    shutil.rmtree(template / ".venv", ignore_errors=True)
    try:
        code, output = run(template)
    finally:
        lock.write_text(original)
    assert code == 1
    assert output.splitlines()[-1].startswith("bootstrap: a downloaded package is not the one in the lock file")


def test_whenever_it_is_killed_the_next_run_goes_on(template: Path) -> None:
    shutil.rmtree(template / ".venv", ignore_errors=True)
    for words in ("making the virtual environment", "installing the locked packages", "installing fabstir-desktop"):
        process = start(template)
        assert process.stdout is not None
        while line := process.stdout.readline():
            if words in line:
                break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT_S)
    code, output = run(template)
    assert code == 0, output
    assert "program here" in output


def test_two_at_once_do_not_disturb_each_other(template: Path) -> None:
    shutil.rmtree(template / ".venv", ignore_errors=True)
    both = [start(template), start(template)]
    outputs = [process.communicate(timeout=LIMIT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all("program here" in output for output in outputs)
    assert sum("making the virtual environment" in output for output in outputs) == 1
    assert sum("another bootstrap is at work" in output for output in outputs) == 1


def test_a_folder_that_cannot_be_written_is_said_in_one_line(template: Path) -> None:
    shutil.rmtree(template / ".venv", ignore_errors=True)
    (template / ".venv").write_text("a file where the folder should be")
    try:
        code, output = run(template)
    finally:
        (template / ".venv").unlink()
    assert code == 1
    assert output.count("\n") == 1
    assert "cannot be written" in output


def test_signals_reach_the_program(template: Path) -> None:
    (template / "fabstir_desktop" / "__main__.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint('ready', flush=True)\nsignal.pause()\n"
    )
    try:
        process = start(template)
        assert process.stdout is not None
        while "ready" not in (line := process.stdout.readline()):
            assert line
        process.terminate()
        process.communicate(timeout=LIMIT_S)
    finally:
        (template / "fabstir_desktop" / "__main__.py").write_text(PROGRAM)
    assert process.returncode == 5
