"""Start at login, as each system keeps it: an autostart file, a launch agent, or a value of the registry's Run key.

The state is never remembered here: it is read back from the system, where the host may have changed it too.
"""

from __future__ import annotations

import configparser
import os
import plistlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from PySide6.QtCore import QSettings

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.settings import default_data_dir

NAME = "fabstir-desktop"
_LABEL = "org.fabstir.desktop"
_RUN = r"HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Run"
_APPROVED = r"HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"


class LoginItem(Protocol):
    """The system's list of what starts at login. Both block on disk: call them off the loop."""

    def is_on(self) -> bool:
        """Whether the app starts at login now. Raises EnvironmentFault."""
        ...

    def turn(self, *, on: bool) -> None:
        """Start it at login from now on, or no more. Raises EnvironmentFault."""
        ...


class AutostartFile:
    """Linux: a desktop entry in the XDG autostart folder."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.path = folder / f"{NAME}.desktop"
        self._command = command

    def is_on(self) -> bool:
        """The file is there, and no desktop has switched it off in it."""
        entry = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            entry.read_string(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError, configparser.Error) as error:
            raise EnvironmentFault(f"{self.path} cannot be read: {error}") from error
        values = entry["Desktop Entry"] if entry.has_section("Desktop Entry") else {}
        switched_off = values.get("Hidden", "false") == "true"
        return not switched_off and values.get("X-GNOME-Autostart-enabled", "true") != "false"

    def turn(self, *, on: bool) -> None:
        """Write or remove the file."""
        lines = ["[Desktop Entry]", "Type=Application", "Name=Fabstir host", f"Exec={_exec_line(self._command)}"]
        text = "\n".join([*lines, f"Icon={NAME}", "Terminal=false", "X-GNOME-Autostart-enabled=true", ""])
        _write_or_remove(self.path, text.encode() if on else None)


class LaunchAgent:
    """macOS: a property list in the user's LaunchAgents."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.path = folder / f"{_LABEL}.plist"
        self._command = command

    def is_on(self) -> bool:
        """The list is there and asks for a start at load."""
        try:
            agent = plistlib.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError, plistlib.InvalidFileException) as error:
            raise EnvironmentFault(f"{self.path} cannot be read: {error}") from error
        return bool(agent.get("RunAtLoad")) and not agent.get("Disabled")

    def turn(self, *, on: bool) -> None:
        """Write or remove the list; it counts from the next login on."""
        agent: dict[str, Any] = {"Label": _LABEL, "ProgramArguments": list(self._command)}
        agent |= {"RunAtLoad": True, "ProcessType": "Interactive"}
        _write_or_remove(self.path, plistlib.dumps(agent) if on else None)


class RunValue:
    """Windows: a value of the Run key; `approved` is where the task manager keeps what the user switched off."""

    def __init__(self, run: QSettings, approved: QSettings, command: Sequence[str]) -> None:
        self._run = run
        self._approved = approved
        self._command = command

    def is_on(self) -> bool:
        """The value is there, and the task manager has not switched it off."""
        self._run.sync()
        self._approved.sync()
        mark = self._approved.value(NAME)
        first = ord(mark[0]) if isinstance(mark, str) and mark else 0
        return self._run.contains(NAME) and not first & 1

    def turn(self, *, on: bool) -> None:
        """Write or remove the value."""
        if on:
            self._run.setValue(NAME, subprocess.list2cmdline(self._command))
            self._approved.remove(NAME)
        else:
            self._run.remove(NAME)
        self._run.sync()
        self._approved.sync()
        if self._run.status() is not QSettings.Status.NoError:
            raise EnvironmentFault("the registry did not take the change")


def login_item(data_dir: Path) -> LoginItem:
    """The login item of this system, for the profile of this data directory."""
    command = start_command(data_dir)
    if sys.platform == "win32":
        native = QSettings.Format.NativeFormat
        return RunValue(QSettings(_RUN, native), QSettings(_APPROVED, native), command)
    if sys.platform == "darwin":
        return LaunchAgent(Path.home() / "Library" / "LaunchAgents", command)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return AutostartFile(config / "autostart", command)


def start_command(data_dir: Path) -> list[str]:
    """How this very copy of the app is started, hidden."""
    image = os.environ.get("APPIMAGE")
    if image or getattr(sys, "frozen", False):
        command = [image or sys.executable]
    else:
        windowed = Path(sys.executable).with_name("pythonw.exe")
        command = [str(windowed) if windowed.exists() else sys.executable, "-m", "fabstir_desktop"]
    profile = [] if data_dir == default_data_dir() else ["--data-dir", str(data_dir)]
    return [*command, "--hidden", *profile]


def _exec_line(command: Sequence[str]) -> str:
    """Quoted as the desktop entry specification wants it: for Exec, and then for a string of the file."""
    quoted = []
    for part in command:
        for sign in ("\\", '"', "`", "$"):
            part = part.replace(sign, "\\" + sign)  # noqa: PLW2901 - one sign after the other
        quoted.append('"' + part.replace("%", "%%") + '"')
    return " ".join(quoted).replace("\\", "\\\\")


def _write_or_remove(path: Path, data: bytes | None) -> None:
    try:
        if data is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be changed: {error}") from error
