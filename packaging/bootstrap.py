#!/usr/bin/env python3
"""From a fresh clone to a running application, with one command and nothing but Python 3.11.

    python3 packaging/bootstrap.py demo [ARGUMENTS OF fabstir-desktop --demo]
    python3 packaging/bootstrap.py test [ARGUMENTS OF pytest]

Makes `.venv` in the repository, installs the locked versions (checked by hash), the small model and, on Debian as root, the
system libraries of Qt; then runs. What is done is written to a stamp file, so the second run starts at once.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when run by `python -P` or imported by a test

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = ROOT / "packaging" / "locks"
STAMP = VENV / "bootstrap-stamp.json"
OLDEST_PYTHON = (3, 11)
LOCK_WAIT_S = 1800
WINDOWS = os.name == "nt"

PIP_NOISE = ("Requirement already", "Looking in ", "Using cached", "Collecting ", "Preparing metadata", "Getting requ")

# What pip says, and what that means for the reader.
PIP_CAUSES = (
    (
        ("name resolution", "getaddrinfo", "NewConnectionError", "Network is unreachable", "ProxyError", "timed out"),
        "the package index cannot be reached: check the network (or proxy) and run the same command again",
    ),
    (("No space left on device",), "the disk is full: free about 3 GB and run the same command again"),
    (
        ("CMAKE_C_COMPILER", "CMAKE_CXX_COMPILER", "No CMAKE_C", "Building wheel for llama-cpp-python"),
        "llama.cpp could not be compiled: a C and C++ compiler is needed (see the lines above)",
    ),
    (
        ("DO NOT MATCH THE HASHES",),
        "a downloaded package is not the one in the lock file: do not use it; is a mirror or proxy in between?",
    ),
)


class Stop(Exception):
    """The bootstrap cannot go on; the text is the one line that says why and what to do."""


def main(arguments: list[str]) -> int:
    """Run one of the two commands; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["demo", "test"], help="what to run; all further arguments go on to it")
    command = parser.parse_args(arguments[:1]).command
    try:
        check_python()
        with only_one():
            prepare(command, arguments[1:])
    except Stop as stop:
        print(f"bootstrap: {stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbootstrap: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    if command == "test":
        os.chdir(ROOT)  # the demo stays where its caller is, whose paths it may be given
    return run_program(program(command, arguments[1:]))


def prepare(command: str, arguments: list[str]) -> None:
    """Bring everything into place that `command` needs and that is not there yet."""
    from system_parts import ensure_system_parts  # noqa: PLC0415 - beside this file

    try:
        ensure_system_parts(command, needs_window=command == "test" or wants_window(arguments))
    except RuntimeError as error:
        raise Stop(str(error)) from None
    ensure_venv()
    lock = "test.txt" if command == "test" else "app.txt"
    ensure_installed(lock, "the locked packages", ["--require-hashes"], covers=("app.txt",))
    ensure_installed("model.txt", "the small model", ["--require-hashes", "--no-deps"])
    ensure_project()
    if command == "test":
        ensure_node_tools()


def program(command: str, arguments: list[str]) -> list[str]:
    """The command line that is run at the end."""
    if command == "test":
        return [str(venv_python()), "-m", "pytest", *arguments]
    more = [] if wants_window(arguments) or "--headless" in arguments else ["--headless"]
    if more:
        say("there is no display here: the demo runs without a window (--headless)")
    return [str(venv_python()), "-m", "fabstir_desktop", "--demo", *more, *arguments]


def wants_window(arguments: list[str]) -> bool:
    """Whether the demo will open a window."""
    has_display = not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return has_display and "--headless" not in arguments


# --- the environment ------------------------------------------------------------------------------------------------


def check_python() -> None:
    """Refuse a Python that is too old, and name a newer one if there is."""
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return
    newer = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if shutil.which(name)]
    hint = f"run it with {newer[-1]}" if newer else "install a newer one from python.org or your system's packages"
    raise Stop(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: {hint}")


def venv_python() -> Path:
    """The interpreter inside the virtual environment."""
    return VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")


def ensure_venv() -> None:
    """Make the environment unless a working one is there; a half-made or broken one is made anew."""
    if read_stamp().get("venv") == "made" and venv_python().exists() and venv_works(["--version"]):
        return
    if not venv_works(["-m", "pip", "--version"]):
        say("making the virtual environment .venv")
        clear_venv()
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], env=clean_environment(), check=False)
        if made.returncode != 0 or not venv_works(["-m", "pip", "--version"]):
            raise Stop("the virtual environment cannot be made; on Debian and Ubuntu: apt-get install python3-venv")
    if not venv_works(["-c", f"import sys; sys.exit(sys.version_info[:2] < {OLDEST_PYTHON})"]):
        raise Stop(f"the environment in {VENV} is made of an older Python: remove that folder and run this again")
    write_stamp(venv="made")


def venv_works(arguments: list[str]) -> bool:
    """Whether the interpreter of the environment runs with these arguments."""
    try:
        result = subprocess.run(
            [str(venv_python()), *arguments], env=clean_environment(), capture_output=True, check=False
        )
    except OSError:
        return False
    return result.returncode == 0


def clear_venv() -> None:
    """Empty the folder of the environment, but for our lock file, which is open."""
    for entry in VENV.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "bootstrap.lock":
            entry.unlink()


def clean_environment() -> dict[str, str]:
    """This process's environment without what would lead Python to other packages."""
    cores = str(os.cpu_count() or 1)
    environment = {name: text for name, text in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    environment.update(PYTHONNOUSERSITE="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", cores)
    return environment


# --- packages -------------------------------------------------------------------------------------------------------


def ensure_installed(lock: str, what: str, options: list[str], covers: tuple[str, ...] = ()) -> None:
    """Install a lock file unless the stamp says that just this one is installed; `covers` are locks it contains."""
    digest = digest_of(LOCKS / lock)
    if read_stamp().get(lock) == digest:
        return
    drop_broken_packages()
    say(f"installing {what}")
    if "llama-cpp-python" in (LOCKS / lock).read_text(encoding="utf-8") and not venv_works(["-c", FIND_LLAMA]):
        say("llama.cpp is compiled for this machine: about 3 minutes on two cores, once")
    pip(["install", "--progress-bar", "off", *options, "-r", str(LOCKS / lock)])
    write_stamp(**{name: digest_of(LOCKS / name) for name in {lock, *covers}})


FIND_LLAMA = "import importlib.util, sys; sys.exit(importlib.util.find_spec('llama_cpp') is None)"


def ensure_project() -> None:
    """Make the project itself importable from its folder, with its entry point."""
    digest = digest_of(ROOT / "pyproject.toml")
    if read_stamp().get("project") != digest:
        say("installing fabstir-desktop itself")
        pip(["install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
        write_stamp(project=digest)


def ensure_node_tools() -> None:
    """Install what the tests take from npm (a Solidity compiler, an Ethereum node), from their own lock file."""
    digest = digest_of(ROOT / "tests" / "node" / "package-lock.json")
    if read_stamp().get("node") == digest and (ROOT / "tests" / "node" / "node_modules").is_dir():
        return
    say("installing the test tools that come from npm")
    result = subprocess.run(
        [str(venv_python()), str(ROOT / "tests" / "node_tools.py")], env=clean_environment(), check=False
    )
    if result.returncode != 0:
        raise Stop("the test tools from npm cannot be installed (see the lines above): check the network and try again")
    write_stamp(node=digest)


def pip(arguments: list[str]) -> None:
    """Run pip, show what it says, and explain a failure in one line."""
    command = [str(venv_python()), "-m", "pip", *arguments]
    with subprocess.Popen(
        command, env=clean_environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        lines = []
        for line in process.stdout or ():
            if not line.strip().startswith(PIP_NOISE):
                print(f"  {line.rstrip()}", flush=True)
            lines.append(line)
    if process.returncode != 0:
        text = "".join(lines[-400:])
        causes = [meaning for words, meaning in PIP_CAUSES if any(word in text for word in words)]
        raise Stop(causes[0] if causes else "pip could not install the packages (see the lines above)")


def drop_broken_packages() -> None:
    """Make pip install again what an interrupted installation left in halves: forget packages with missing files."""
    packages = "Lib/site-packages" if WINDOWS else "lib/python3*/site-packages"
    for record_folder in VENV.glob(f"{packages}/*.dist-info"):
        if record_folder.name.startswith("pip-"):
            continue
        if not is_complete(record_folder):
            say(f"{record_folder.name.split('-')[0]} is incomplete and will be installed again")
            shutil.rmtree(record_folder)


def is_complete(record_folder: Path) -> bool:
    """Whether every file that the package's record names is there (compiled files aside)."""
    try:
        with (record_folder / "RECORD").open(encoding="utf-8", newline="") as file:
            names = [row[0] for row in csv.reader(file) if row]
    except OSError:
        return False
    base = record_folder.parent
    return bool(names) and all((base / name).exists() for name in names if not name.endswith(".pyc"))


# --- stamp, lock, words ---------------------------------------------------------------------------------------------


def digest_of(path: Path) -> str:
    """A short name of a file's content."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    except OSError as error:
        raise Stop(f"{path} cannot be read: {error.strerror}") from None


def read_stamp() -> dict[str, str]:
    """What is installed already."""
    try:
        content = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_stamp(**facts: str) -> None:
    """Add to what is installed; the file is whole at every moment."""
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps({**read_stamp(), **facts}, indent=1), encoding="utf-8")
    temporary.replace(STAMP)


@contextlib.contextmanager
def only_one():  # type: ignore[no-untyped-def]  # noqa: ANN201 - a generator of nothing
    """Hold the folder's lock while installing; a second bootstrap waits for the first."""
    try:
        VENV.mkdir(exist_ok=True)
        file = (VENV / "bootstrap.lock").open("a+b")
    except OSError as error:
        raise Stop(f"{VENV} cannot be written: {error.strerror}") from None
    with file:
        end = time.monotonic() + LOCK_WAIT_S
        is_told = False
        while not try_lock(file.fileno()):
            if not is_told:
                say("another bootstrap is at work in this folder; waiting for it")
                is_told = True
            if time.monotonic() > end:
                raise Stop("the other bootstrap does not come to an end")
            time.sleep(0.2)
        yield


def try_lock(descriptor: int) -> bool:
    """Take the lock if it is free; the system gives it back when this process ends."""
    try:
        if WINDOWS:
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def run_program(command: list[str]) -> int:
    """Become the program where that is possible, so that signals and the exit code are its own."""
    environment = clean_environment()
    sys.stdout.flush()
    if not WINDOWS:
        os.execve(command[0], command, environment)  # noqa: S606 - does not return
    return subprocess.call(command, env=environment)


def say(text: str) -> None:
    """Tell the reader what happens."""
    print(f"bootstrap: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
