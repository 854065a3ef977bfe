"""Keep the machine from sleeping while a request runs, by the means of each system; released when it ends or the app dies."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

log = logging.getLogger(__name__)

_END_LIMIT_S = 2.0
_ITS_ENVIRONMENT = ("PATH", "HOME", "LANG", "XDG_RUNTIME_DIR", "DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS")
"""What the inhibiting program needs; settings, RPC URLs among them, are not its business."""
_CONTINUOUS = 0x80000000
_SYSTEM_REQUIRED = 0x00000001


def inhibiting_command() -> list[str] | None:
    """The program that keeps this system awake for as long as its standard input is open; None if there is none."""
    if sys.platform == "darwin":
        return ["caffeinate", "-i", "-w", str(os.getpid())]
    program = shutil.which("systemd-inhibit")
    cat = shutil.which("cat")
    if program is None or cat is None:
        return None
    # The pipe to `cat` closes with this process, however it ends: no inhibitor outlives the app.
    return [program, "--what=sleep:idle", "--who=Fabstir host", "--why=A request is running", "--mode=block", cat]


class Awake:
    """Holds the machine awake between `hold` and `release`. One thread at a time; on Windows always the same one."""

    def __init__(self, command: Sequence[str] | None = None) -> None:
        """`command` replaces the system's program."""
        self._command = list(command) if command is not None else inhibiting_command()
        self._process: subprocess.Popen[bytes] | None = None
        self.is_held = False

    def hold(self) -> None:
        """From now on. A system without the means sleeps when it wants to; that is no error."""
        if self.is_held:
            return
        self.is_held = True
        if sys.platform == "win32":
            _set_execution_state(_CONTINUOUS | _SYSTEM_REQUIRED)
        elif self._command is not None:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    self._command,
                    env={name: os.environ[name] for name in _ITS_ENVIRONMENT if name in os.environ},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                log.info("the machine cannot be kept awake: %s", error)

    def release(self) -> None:
        """No more. Safe to call twice."""
        self.is_held = False
        if sys.platform == "win32":
            _set_execution_state(_CONTINUOUS)
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _set_execution_state(flags: int) -> None:
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - Windows alone

        ctypes.windll.kernel32.SetThreadExecutionState(flags)
