"""Start at login: off until asked for, kept where the system keeps it, and read back from there."""

from __future__ import annotations

import configparser
import plistlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QSettings
from pytestqt.qtbot import QtBot
from ui_support import FakeNode

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.ui.login_item import NAME, AutostartFile, LaunchAgent, LoginItem, RunValue, start_command
from fabstir_desktop.ui.main_window import MainWindow

COMMAND = ["/opt/my apps/$fabstir", "-m", "fabstir_desktop", "--hidden", "--data-dir", '/data/100% "mine"']


def run_value(folder: Path) -> RunValue:
    ini = QSettings.Format.IniFormat
    return RunValue(QSettings(str(folder / "run.ini"), ini), QSettings(str(folder / "approved.ini"), ini), COMMAND)


@pytest.mark.parametrize(
    "make", [lambda f: AutostartFile(f / "a", COMMAND), lambda f: LaunchAgent(f / "a", COMMAND), run_value]
)
def test_it_is_off_until_turned_on_and_another_reader_sees_it(
    tmp_path: Path, make: Callable[[Path], LoginItem]
) -> None:
    assert not make(tmp_path).is_on()
    make(tmp_path).turn(on=True)
    assert make(tmp_path).is_on()
    make(tmp_path).turn(on=False)
    assert not make(tmp_path).is_on()
    make(tmp_path).turn(on=False)


def test_the_autostart_file_starts_this_command_whatever_signs_are_in_it(tmp_path: Path) -> None:
    item = AutostartFile(tmp_path, COMMAND)
    item.turn(on=True)
    entry = configparser.ConfigParser(interpolation=None)
    entry.read_string(item.path.read_text())
    line = entry["Desktop Entry"]["Exec"].replace("\\\\", "\\")  # the file's own escape
    script = f'for part in {line.replace("%%", "%")}; do echo "$part"; done'  # a shell reads quotes as Exec does
    assert subprocess.check_output(["sh", "-c", script], text=True).splitlines() == COMMAND


def test_what_the_desktop_switched_off_is_shown_as_off(tmp_path: Path) -> None:
    item = AutostartFile(tmp_path, COMMAND)
    item.turn(on=True)
    item.path.write_text(item.path.read_text().replace("enabled=true", "enabled=false"))
    assert not item.is_on()
    value = run_value(tmp_path)
    value.turn(on=True)
    value._approved.setValue(NAME, "\x03\x00")
    assert not value.is_on()
    value.turn(on=True)
    assert value.is_on()


def test_the_launch_agent_runs_at_load(tmp_path: Path) -> None:
    item = LaunchAgent(tmp_path, COMMAND)
    item.turn(on=True)
    agent = plistlib.loads(item.path.read_bytes())
    assert agent["ProgramArguments"] == COMMAND
    assert agent["RunAtLoad"] is True


def test_a_folder_that_takes_no_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for item in (AutostartFile(tmp_path / "file" / "a", COMMAND), LaunchAgent(tmp_path / "file" / "a", COMMAND)):
        with pytest.raises(EnvironmentFault, match="cannot be changed"):
            item.turn(on=True)


def test_the_command_is_this_copy_hidden_and_of_this_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPIMAGE", raising=False)
    monkeypatch.setenv("FABSTIR_DATA_DIR", str(tmp_path))
    assert start_command(tmp_path) == [sys.executable, "-m", "fabstir_desktop", "--hidden"]
    assert start_command(tmp_path / "two")[-2:] == ["--data-dir", str(tmp_path / "two")]
    monkeypatch.setenv("APPIMAGE", "/opt/fabstir.AppImage")
    assert start_command(tmp_path) == ["/opt/fabstir.AppImage", "--hidden"]


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


def test_the_settings_page_turns_it_on_and_shows_what_the_system_says(
    qtbot: QtBot, window: MainWindow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "platform", "linux")
    file = tmp_path / "config" / "autostart" / f"{NAME}.desktop"
    window.show_page("settings")
    check = window.settings_page.login_row.check
    qtbot.waitUntil(check.isEnabled)
    assert not check.isChecked()
    check.click()
    qtbot.waitUntil(file.exists)
    file.unlink()
    window.settings_page.reload()
    qtbot.waitUntil(lambda: not check.isChecked())


def test_a_refused_change_is_said_and_the_box_shows_the_truth(
    qtbot: QtBot, window: MainWindow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("no folder")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no"))
    window.show_page("settings")
    row = window.settings_page.login_row
    qtbot.waitUntil(row.check.isEnabled)
    (tmp_path / "no").write_text("a file where the folder should be")
    row.check.click()
    qtbot.waitUntil(row.error.isVisible)
    assert "autostart" in row.error.text()
    qtbot.waitUntil(lambda: not row.check.isChecked())
