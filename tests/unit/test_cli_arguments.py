"""The command line: what is understood, and that it stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fabstir_desktop.cli.arguments import parse


def test_the_data_directory_may_stand_before_or_after_the_command(tmp_path: Path) -> None:
    assert parse(["--data-dir", str(tmp_path), "jobs", "--json"]).overrides["data_dir"] == tmp_path
    assert parse(["jobs", "--json", "--data-dir", str(tmp_path)]).overrides["data_dir"] == tmp_path


def test_settings_are_given_by_name() -> None:
    assert parse(["--set", "api_port=0", "--set", "LOG_LEVEL=debug"]).overrides == {
        "api_port": "0",
        "log_level": "debug",
    }


def test_once_belongs_to_the_demo_and_needs_no_window(capsys: pytest.CaptureFixture[str]) -> None:
    call = parse(["--demo", "--once"])
    assert (call.demo, call.once, call.headless) == (True, True, True)
    with pytest.raises(SystemExit):
        parse(["--once"])
    assert "--demo" in capsys.readouterr().err


def test_a_key_is_never_taken_as_an_argument() -> None:
    with pytest.raises(SystemExit):
        parse(["key", "set", "0x" + "1" * 64])


@pytest.mark.parametrize("name", ["host_private_key", "HOST_PRIVATE_KEY", " Host_Private_Key "])
def test_a_key_is_no_setting_of_the_command_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = "0x" + "1" * 64
    with pytest.raises(SystemExit):
        parse(["--set", f"{name}={key}", "status"])
    told = capsys.readouterr().err
    assert "key set" in told
    assert key not in told


def test_help_and_version_import_neither_qt_nor_web3_nor_the_model() -> None:
    code = (
        "import sys\n"
        "from fabstir_desktop import cli\n"
        "cli.parse(['jobs'])\n"
        "heavy = {'PySide6', 'web3', 'llama_cpp', 'eth_account', 'websockets', 'apsw'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
