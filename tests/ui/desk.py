"""A virtual screen with a window manager and a panel, the real app on it, and a hand at mouse and keyboard.

Shared by the test of the real app and the script that takes its pictures. A missing program fails with its name.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from limits import SCALE
from screen_reading import line_centres
from secrets_support import with_canary

from fabstir_desktop.jobs.problems import Severity

SIZE = (1400, 960)
PROGRAMS = ("Xvfb", "openbox", "tint2", "xdotool", "import")
WINDOW = "^Fabstir host"
TITLED = "^[A-Z]"
"""Windows and questions have a title; the icon in the panel and menus have the name of the program."""
LARGEST_ICON = 48
SUBMIT_LINE = 4
"""After state, network, *Open window* and *Open logs*; one further down while a problem stands above them."""
FEWEST_LINES = 6
"""State, open, logs, submit, pause, quit stand in every menu of the tray."""
_PANEL = """
panel_items = ST
panel_position = bottom center horizontal
panel_size = 100% 30
systray_padding = 4 2 2
systray_icon_size = 22
time1_format = %H:%M
background_color = #222222 100
"""


PANEL_ATTEMPTS = 3


class Desk:
    """Screen, window manager, panel and app; everything ends with `stop`."""

    def __init__(self, folder: Path, *, scheme: str = "light", settings: Mapping[str, str] | None = None) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        assert not missing, f"not installed: {', '.join(missing)}"
        self.folder = folder
        self.data_dir = folder / "data"
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        hidden = {"QT_QPA_PLATFORM", "WAYLAND_DISPLAY", "HOST_PRIVATE_KEY", "FABSTIR_DATA_DIR"}
        self.environment = {
            **{name: text for name, text in os.environ.items() if name not in hidden},
            # The tray of this panel is the one of X11: no bus, on which another desktop's tray could answer.
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder / 'no-bus'}",
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "APPEARANCE": scheme,
            "SESSION_GRACE_SECONDS": "120",
            **{name: with_canary(text) if name == "RPC_URL" else text for name, text in (settings or {}).items()},
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "app.log"
        self.app: subprocess.Popen[bytes] | None = None
        self.panel: subprocess.Popen[bytes] | None = None

    # --- processes ----------------------------------------------------------------------------------------------------

    def spawn(self, *command: str, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a process that ends with the desk."""
        with (log or Path(os.devnull)).open("wb") as file:
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        self.processes.append(process)
        return process

    def run(self, *command: str, limit_s: float = 60.0) -> str:
        """Run a program to its end; its output. Raises CalledProcessError."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=limit_s * SCALE, check=True
        )
        return done.stdout.strip()

    def product(self, *arguments: str) -> str:
        """Run a command of the product for this profile."""
        return self.run(sys.executable, "-m", "fabstir_desktop", "--data-dir", str(self.data_dir), *arguments)

    def wait_for(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        """Look until the condition holds."""
        limit = time.monotonic() + limit_s * SCALE
        while not condition():
            log = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
            assert time.monotonic() < limit, f"gave up waiting for {what}:\n{log}"
            time.sleep(0.1)

    def logged(self, words: str) -> int:
        """How often the app has logged the words."""
        return self.log.read_text(errors="replace").count(words)

    def open_screen(self, *, with_panel: bool = True) -> None:
        """Screen, window manager, panel."""
        reading, writing = os.pipe()
        command = ("Xvfb", "-displayfd", str(writing), "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-nolisten", "tcp")
        self.processes.append(subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL))
        os.close(writing)
        with os.fdopen(reading) as answer:
            number = answer.readline().strip()
        assert number, "Xvfb did not start"
        self.environment["DISPLAY"] = f":{number}"
        self.spawn("openbox")
        if with_panel:
            self.start_panel()

    def start_panel(self) -> None:
        """The panel, now or after the one before was ended; returns once it takes icons."""
        panel = self.folder / "tint2rc"
        panel.write_text(_PANEL, encoding="utf-8")
        for attempt in range(PANEL_ATTEMPTS):
            self.panel = self.spawn("tint2", "-c", str(panel))
            try:
                self.wait_for(lambda: bool(self.windows("tint2", visible=False)), 10, "the panel")
            except (
                AssertionError
            ):  # it may meet a window manager that is not there yet, and then draws nothing for ever
                self.end_panel()
                if attempt == PANEL_ATTEMPTS - 1:
                    raise
            else:
                return

    def end_panel(self) -> None:
        """The panel crashes."""
        assert self.panel is not None
        self.panel.kill()
        self.panel.wait()
        self.wait_for(lambda: not self.windows("tint2", visible=False), 20, "the end of the panel")

    def launch_app(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the app without waiting for its window."""
        self.app = self.spawn(
            sys.executable, "-m", "fabstir_desktop", "--data-dir", str(self.data_dir), *arguments, log=self.log
        )
        return self.app

    def start_app(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the app; returns once its window is on the screen."""
        app = self.launch_app(*arguments)
        self.wait_for(lambda: bool(self.windows(WINDOW)), 60, "the window")
        return app

    def stop(self) -> None:
        """End everything, the newest first."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # --- mouse and keyboard -------------------------------------------------------------------------------------------

    def windows(self, name: str, *, by: str = "--name", visible: bool = True) -> list[str]:
        """Ids of the windows whose title (or class) matches."""
        options = ["--onlyvisible"] if visible else []
        done = subprocess.run(
            ["xdotool", "search", *options, by, name],
            env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout.split()

    def is_shown(self, name: str = WINDOW) -> bool:
        """Whether such a window is on the screen."""
        return bool(self.windows(name))

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, where the keyboard is."""
        self.run("xdotool", "key", "--delay", "80", *keys)

    def place_of(self, window: str) -> tuple[int, int, int, int]:
        """Left, top, width, height on the screen."""
        lines = self.run("xdotool", "getwindowgeometry", "--shell", window).splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        return int(values["X"]), int(values["Y"]), int(values["WIDTH"]), int(values["HEIGHT"])

    def click(self, x: int, y: int, button: int = 1) -> None:
        """Click at a place of the screen."""
        self.run("xdotool", "mousemove", str(x), str(y), "click", str(button))

    def answer(self, title: str, *keys: str) -> None:
        """Wait for a question with this title to have the keyboard, press keys, wait until it is gone."""

        def has_keyboard() -> bool:
            return self.run("xdotool", "getwindowfocus", "getwindowname") == title

        self.wait_for(has_keyboard, 20, f"the question {title!r}")
        self.press(*keys)
        self.wait_for(lambda: not self.is_shown(f"^{title}"), 20, f"the end of the question {title!r}")

    def _own_places(self) -> list[tuple[int, int, int, int]]:
        """Places of what the app shows without a frame: its icon in the panel, and open menus."""
        framed = self.windows(TITLED)
        return [self.place_of(window) for window in self.windows("fabstir", by="--class") if window not in framed]

    def tray_icon(self) -> tuple[int, int] | None:
        """The middle of the app's icon in the panel."""
        for left, top, width, height in self._own_places():
            if width <= LARGEST_ICON and left < SIZE[0] and top > SIZE[1] - LARGEST_ICON:
                return left + width // 2, top + height // 2
        return None

    def has_menu(self) -> bool:
        """Whether a menu of the app is open."""
        return any(width > LARGEST_ICON for _, _, width, _ in self._own_places())

    def open_tray_menu(self) -> None:
        """Click the icon in the panel with the right button, and wait for the menu."""
        self.wait_for(lambda: self.tray_icon() is not None, 40, "the icon in the panel")
        self.click(*(self.tray_icon() or (0, 0)), button=3)
        self.wait_for(self.has_menu, 20, "the tray's menu")

    def picture(self, name: str = "screen") -> Path:
        """The whole screen as it is now."""
        path = self.folder / f"{name}.png"
        self.run("import", "-window", "root", str(path))
        return path

    def click_in_tray_menu(self, line: int) -> None:
        """Open the tray's menu and click on a line of text with the mouse: 0 is the first, -1 the last."""
        self.open_tray_menu()
        place = max(self._own_places(), key=lambda place: place[2])
        lines: list[int] = []

        def is_drawn() -> bool:
            lines[:] = line_centres(self.picture("menu"), place)
            return len(lines) >= FEWEST_LINES

        self.wait_for(is_drawn, 20, "the lines of the menu")
        self.click(place[0] + place[2] // 3, lines[line])
        self.wait_for(lambda: not self.has_menu(), 20, "the end of the menu")

    def click_submit(self) -> None:
        """*Submit checkpoints now* in the tray's menu, with the mouse."""
        problems = json.loads(self.product("status", "--json"))["problems"]
        self.click_in_tray_menu(SUBMIT_LINE + any(one["severity"] > Severity.INFORMATION for one in problems))

    def choose_in_tray_menu(self, *keys: str) -> None:
        """Open the tray's menu, go to a line with the keyboard, choose it."""
        self.open_tray_menu()
        self.press(*keys, "Return")
        self.wait_for(lambda: not self.has_menu(), 20, "the end of the menu")

    def close_window(self) -> None:
        """Ask the window to close, as the button in its frame does."""
        self.run("xdotool", "windowactivate", "--sync", self.windows(WINDOW)[0], "key", "alt+F4")
