"""Put the application into the menu of a Linux desktop, for this user: entry and icon.

    .venv/bin/python packaging/install_desktop_entry.py [--remove]

The entry calls the program beside this Python, so the environment must stay where it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "fabstir-desktop"


def main(arguments: list[str] | None = None) -> int:
    """Install or remove; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--remove", action="store_true", help="take entry and icon away again")
    share = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    entry = share / "applications" / f"{NAME}.desktop"
    icon = share / "icons" / "hicolor" / "scalable" / "apps" / f"{NAME}.svg"
    if parser.parse_args(arguments).remove:
        for path in (entry, icon):
            path.unlink(missing_ok=True)
        print("removed from the menu")
    else:
        install(entry, icon, Path(sys.executable).parent / NAME)
        print(f"in the menu as {entry}")
    refresh(entry.parent)
    return 0


def install(entry: Path, icon: Path, program: Path) -> None:
    """Write both files; the entry names the program by its full path."""
    for path in (entry, icon):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "resources" / "icons" / f"{NAME}.svg", icon)
    text = (ROOT / "resources" / "desktop" / f"{NAME}.desktop").read_text(encoding="utf-8")
    command = quote(str(program))
    text = re.sub(rf"^Exec={NAME}", lambda _: f"Exec={command}", text, flags=re.MULTILINE)
    text = re.sub(rf"^TryExec={NAME}", lambda _: f"TryExec={program}", text, flags=re.MULTILINE)
    entry.write_text(text, encoding="utf-8")


def quote(argument: str) -> str:
    """Quote a path as the Exec key wants it."""
    escaped = re.sub(r'(["`$\\])', r"\\\1", argument).replace("%", "%%")
    return '"' + escaped.replace("\\", "\\\\") + '"' if re.search(r"[^\w@+=:,./-]", argument) else escaped


def refresh(folder: Path) -> None:
    """Tell the desktop, where it wants to be told."""
    updater = shutil.which("update-desktop-database")
    if updater is not None:
        subprocess.run([updater, str(folder)], check=False)


if __name__ == "__main__":
    sys.exit(main())
