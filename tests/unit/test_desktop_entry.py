"""The menu entry: complete, and pointing at the program it was installed from."""

from __future__ import annotations

import configparser
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def installer() -> ModuleType:
    path = ROOT / "packaging" / "install_desktop_entry.py"
    spec = importlib.util.spec_from_file_location("install_desktop_entry", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> configparser.ConfigParser:
    entry = configparser.ConfigParser(interpolation=None, strict=True)
    entry.optionxform = str  # type: ignore[assignment,method-assign]
    entry.read(path, encoding="utf-8")
    return entry


def test_entry_and_icon_are_installed_with_the_full_path_and_removed_again(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(installer.sys, "executable", "/opt/my apps/50%/bin/python")
    assert installer.main([]) == 0
    entry = read(tmp_path / "applications" / "fabstir-desktop.desktop")
    main = entry["Desktop Entry"]
    assert main["Type"] == "Application"
    assert main["Exec"] == '"/opt/my apps/50%%/bin/fabstir-desktop"'
    assert main["TryExec"] == "/opt/my apps/50%/bin/fabstir-desktop"
    assert entry["Desktop Action hidden"]["Exec"] == '"/opt/my apps/50%%/bin/fabstir-desktop" --hidden'
    assert (tmp_path / "icons/hicolor/scalable/apps/fabstir-desktop.svg").is_file()
    assert installer.main(["--remove"]) == 0
    assert installer.main(["--remove"]) == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_entry_has_what_a_menu_needs_and_names_its_actions() -> None:
    entry = read(ROOT / "resources" / "desktop" / "fabstir-desktop.desktop")
    main = entry["Desktop Entry"]
    assert {"Type", "Name", "Exec", "Icon", "Categories", "Comment"} <= set(main)
    for action in main["Actions"].rstrip(";").split(";"):
        assert entry[f"Desktop Action {action}"]["Exec"]
