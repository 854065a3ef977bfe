"""The bootstrap: what it decides, what it says, and what it leaves alone."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PACKAGING = Path(__file__).resolve().parent.parent.parent / "packaging"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PACKAGING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, working on a folder of the test."""
    before = list(sys.path)
    module = load("bootstrap")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "LOCKS", tmp_path)
    monkeypatch.setattr(module, "STAMP", venv / "bootstrap-stamp.json")
    venv.mkdir()
    yield module
    sys.path[:] = before


@pytest.fixture
def system_parts() -> ModuleType:
    return load("system_parts")


def test_further_arguments_go_on_to_the_program(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":1")
    assert bootstrap.program("test", ["-k", "x", "--long"])[1:] == ["-m", "pytest", "-k", "x", "--long"]
    assert bootstrap.program("demo", ["--once"])[1:] == ["-m", "fabstir_desktop", "--demo", "--once"]


def test_without_a_display_the_demo_says_so_and_runs_headless(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert bootstrap.program("demo", ["--once"])[3:] == ["--demo", "--headless", "--once"]
    assert "no display" in capsys.readouterr().out
    assert bootstrap.program("demo", ["--headless"])[3:] == ["--demo", "--headless"]
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert bootstrap.program("demo", [])[3:] == ["--demo"]


def test_an_old_python_is_refused_in_one_line_that_names_a_newer_one(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(bootstrap.sys, "version", "3.9.2 (default)")
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: name if name == "python3.12" else None)
    assert bootstrap.main(["demo"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "3.9.2" in said
    assert "python3.12" in said


def test_the_bootstrap_can_be_read_by_an_old_python_so_that_it_can_refuse() -> None:
    import ast

    for name in ("bootstrap.py", "system_parts.py"):
        ast.parse((PACKAGING / name).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_what_the_stamp_says_is_not_installed_again_and_a_changed_lock_is(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "pip", calls.append)
    lock = tmp_path / "app.txt"
    lock.write_text("a==1")
    for _ in range(2):
        bootstrap.ensure_installed("app.txt", "packages", ["--require-hashes"])
    assert calls == [["install", "--progress-bar", "off", "--require-hashes", "-r", str(lock)]]
    lock.write_text("a==2")
    bootstrap.ensure_installed("app.txt", "packages", ["--require-hashes"])
    assert len(calls) == 2


def test_the_tests_lock_covers_that_of_the_app(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "pip", calls.append)
    (tmp_path / "app.txt").write_text("a==1")
    (tmp_path / "test.txt").write_text("a==1\nb==1")
    bootstrap.ensure_installed("test.txt", "packages", [], covers=("app.txt",))
    bootstrap.ensure_installed("app.txt", "packages", [], covers=("app.txt",))
    assert len(calls) == 1


def test_a_failed_installation_leaves_no_stamp(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: list[str]) -> None:
        raise bootstrap.Stop("no")

    monkeypatch.setattr(bootstrap, "pip", fail)
    (tmp_path / "app.txt").write_text("a==1")
    with pytest.raises(bootstrap.Stop):
        bootstrap.ensure_installed("app.txt", "packages", [])
    assert bootstrap.read_stamp() == {}


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", '"x"'])
def test_a_damaged_stamp_counts_as_none(bootstrap: ModuleType, content: str) -> None:
    bootstrap.STAMP.write_text(content)
    assert bootstrap.read_stamp() == {}
    bootstrap.write_stamp(venv="made")
    assert json.loads(bootstrap.STAMP.read_text()) == {"venv": "made"}


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (
            "NewConnectionError: Failed to establish: [Errno -3] Temporary failure in name resolution",
            "check the network",
        ),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("CMake Error: CMAKE_C_COMPILER not set", r"C and C\+\+ compiler is needed"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "do not use it"),
        ("ERROR: something new", "see the lines above"),
    ],
)
def test_a_failure_of_pip_is_explained_in_one_line(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, words: str, meaning: str
) -> None:
    class FailedPip:
        returncode = 1

        def __init__(self, *_: object, **__: object) -> None:
            self.stdout = io.StringIO(f"Collecting a\n{words}\n")

        def __enter__(self) -> FailedPip:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(bootstrap.subprocess, "Popen", FailedPip)
    with pytest.raises(bootstrap.Stop, match=meaning) as caught:
        bootstrap.pip(["install", "a"])
    assert "\n" not in str(caught.value)


def test_a_package_left_in_halves_is_forgotten_and_a_whole_one_is_kept(bootstrap: ModuleType) -> None:
    folder = bootstrap.VENV / ("Lib" if bootstrap.WINDOWS else f"lib/python3.{sys.version_info[1]}") / "site-packages"
    for name, files in (("whole", ["whole.py"]), ("half", ["half.py", "lost.py"]), ("bare", [])):
        record_folder = folder / f"{name}-1.dist-info"
        record_folder.mkdir(parents=True)
        (record_folder / "METADATA").write_text("x")
        for file in files:
            if file != "lost.py":
                (folder / file).write_text("")
        if files:
            record = [*files, f"{name}-1.dist-info/METADATA", f"__pycache__/{name}.cpython-311.pyc"]
            (record_folder / "RECORD").write_text("".join(f"{file},,\n" for file in record))
    bootstrap.drop_broken_packages()
    assert sorted(path.name for path in folder.glob("*.dist-info")) == ["whole-1.dist-info"]


def test_a_second_bootstrap_waits_for_the_first_and_says_so(bootstrap: ModuleType) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap; from pathlib import Path;"
        "bootstrap.VENV = Path(sys.argv[2])\nwith bootstrap.only_one(): print('mine', flush=True)"
    )
    command = [sys.executable, "-c", program, str(PACKAGING), str(bootstrap.VENV)]
    with bootstrap.only_one():
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert "another bootstrap is at work" in second.stdout.readline()
        assert second.poll() is None
    output, _ = second.communicate(timeout=20)
    assert output == "mine\n"


def test_clearing_the_environment_keeps_the_lock_that_is_held(bootstrap: ModuleType) -> None:
    (bootstrap.VENV / "lib").mkdir()
    (bootstrap.VENV / "pyvenv.cfg").write_text("")
    with bootstrap.only_one():
        bootstrap.clear_venv()
        assert [path.name for path in bootstrap.VENV.iterdir()] == ["bootstrap.lock"]


def test_no_foreign_packages_lead_the_environment_astray(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    environment = bootstrap.clean_environment()
    assert not {"PYTHONPATH", "PYTHONHOME"} & set(environment)
    assert environment["CMAKE_BUILD_PARALLEL_LEVEL"]


# --- the system's part ----------------------------------------------------------------------------------------------


def missing(system_parts: ModuleType, monkeypatch: pytest.MonkeyPatch, *, debian: bool, user: int) -> None:
    """A Linux without a tray panel and without a compiler."""
    monkeypatch.setattr(system_parts.sys, "platform", "linux")
    monkeypatch.setattr(system_parts, "has_library", lambda name: name != "libEGL.so.1")
    monkeypatch.setattr(
        system_parts.shutil, "which", lambda name: None if name in {"tint2", "cc", "gcc", "clang"} else name
    )
    monkeypatch.setattr(system_parts, "is_debian", lambda: debian)
    monkeypatch.setattr(system_parts.os, "geteuid", lambda: user, raising=False)


def test_a_user_of_debian_is_told_the_one_command(system_parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(system_parts, monkeypatch, debian=True, user=1000)
    with pytest.raises(RuntimeError, match=r"sudo apt-get install -y libegl1.* tint2 gcc"):
        system_parts.ensure_system_parts("test", needs_window=True)


def test_a_demo_without_a_window_needs_no_library_of_qt(
    system_parts: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(system_parts, monkeypatch, debian=True, user=1000)
    with pytest.raises(RuntimeError, match=r"install -y gcc$"):
        system_parts.ensure_system_parts("demo", needs_window=False)


def test_without_a_compiler_elsewhere_it_is_named(system_parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(system_parts, monkeypatch, debian=False, user=0)
    with pytest.raises(RuntimeError, match=r"no C and C\+\+ compiler"):
        system_parts.ensure_system_parts("demo", needs_window=True)


def test_root_of_debian_gets_the_packages_after_fresh_lists(
    system_parts: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing(system_parts, monkeypatch, debian=True, user=0)
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if "install" in command:  # from now on everything is there
            monkeypatch.setattr(system_parts, "has_library", lambda _: True)
            monkeypatch.setattr(system_parts.shutil, "which", lambda name: name)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(system_parts.subprocess, "run", run)
    monkeypatch.setattr(system_parts, "APT_LISTS", tmp_path)
    system_parts.ensure_system_parts("test", needs_window=True)
    assert [command[2] if "update" in command else "install" for command in commands] == ["update", "install"]
    assert {"libegl1", "tint2", "gcc"} <= set(commands[1])


def test_with_everything_there_nothing_is_called(system_parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(system_parts, monkeypatch, debian=True, user=0)
    monkeypatch.setattr(system_parts, "has_library", lambda _: True)
    monkeypatch.setattr(system_parts.shutil, "which", lambda name: name)
    monkeypatch.setattr(system_parts, "FONT_FOLDERS", ())
    monkeypatch.setattr(system_parts, "install", lambda packages: pytest.fail(f"installs {packages}"))
    with pytest.raises(BaseException, match="fonts-dejavu-core"):  # no font folder: that one is missing
        system_parts.ensure_system_parts("test", needs_window=True)
    system_parts.ensure_system_parts("demo", needs_window=False)
