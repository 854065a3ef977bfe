"""The system's part of the installation: Qt's libraries, a compiler, and the programs that the tests need.

On Debian and Ubuntu as root they are installed; as another user the one command is printed; elsewhere they are named.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

# What Qt loads at run time, and the Debian package that has it.
QT_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
}
TEST_PROGRAMS = {
    "Xvfb": "xvfb",
    "openbox": "openbox",
    "tint2": "tint2",
    "xdotool": "xdotool",
    "import": "imagemagick",
    "dbus-run-session": "dbus",
    "gnome-keyring-daemon": "gnome-keyring",
    "xprop": "x11-utils",
}
FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")
APT_LISTS = Path("/var/lib/apt/lists")


def ensure_system_parts(command: str, needs_window: bool) -> None:
    """Install or name what is missing. Raises RuntimeError with one line if `command` cannot run without it."""
    if sys.platform == "win32":
        return  # wheels bring everything but the compiler, whose absence its own build explains best
    packages = missing_packages(command, needs_window) if sys.platform.startswith("linux") else []
    packages += missing_build_packages()
    if packages and is_debian():
        if os.geteuid() != 0:
            raise RuntimeError(f"system packages are missing; run: sudo apt-get install -y {' '.join(packages)}")
        install(packages)
        packages = [*missing_packages(command, needs_window), *missing_build_packages()]
    if packages:
        raise RuntimeError(advice(packages))


def missing_packages(command: str, needs_window: bool) -> list[str]:
    """The Debian packages of the libraries and programs that are not there."""
    packages = [package for library, package in QT_LIBRARIES.items() if needs_window and not has_library(library)]
    if needs_window and not any(next(folder.rglob("*.[to]tf"), None) for folder in FONT_FOLDERS if folder.is_dir()):
        packages.append("fonts-dejavu-core")
    if command == "test":
        packages += [package for name, package in TEST_PROGRAMS.items() if shutil.which(name) is None]
    return packages


def missing_build_packages() -> list[str]:
    """A compiler for llama.cpp, and the module that makes virtual environments."""
    packages = []
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        packages.append("gcc")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        packages.append("g++")
    if importlib.util.find_spec("ensurepip") is None:
        packages.append("python3-venv")
    return packages


def has_library(name: str) -> bool:
    """Whether the system's loader finds a shared library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def is_debian() -> bool:
    """Whether packages come through apt."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg") is not None


def install(packages: list[str]) -> None:
    """Install Debian packages as root. Raises RuntimeError with one line."""
    print(f"bootstrap: installing system packages: {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-y", "-o", "Dpkg::Use-Pty=0", "install", "--no-install-recommends", *packages]
    if any(APT_LISTS.glob("*_Packages*")) and subprocess.run(command, env=environment, check=False).returncode == 0:
        return
    subprocess.run(["apt-get", "-qq", "update"], env=environment, check=False)
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise RuntimeError(
            f"apt-get could not install the system packages; run: apt-get install -y {' '.join(packages)}"
        )


def advice(packages: list[str]) -> str:
    """One line for a system without apt."""
    if sys.platform == "darwin":
        return "a C compiler is needed; run: xcode-select --install"
    if "gcc" in packages or "g++" in packages:
        return "no C and C++ compiler is found: install gcc and g++ with your system's package manager"
    return f"missing on this system (named as Debian does): {' '.join(packages)}; install them and run this again"
