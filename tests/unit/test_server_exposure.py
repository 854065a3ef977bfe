"""What becomes reachable is judged from the settings alone, before they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fabstir_desktop.errors import SettingError
from fabstir_desktop.node import HostNode
from fabstir_desktop.server.exposure import exposure_after
from fabstir_desktop.settings import Settings


def told(tmp_path: Path, before: dict[str, Any] | None = None, **changes: Any) -> str:
    return " ".join(exposure_after(Settings(data_dir=tmp_path, **(before or {})), changes).sentences)


def test_a_host_of_this_machine_alone_has_nothing_to_tell(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        assert told(tmp_path, api_host=host) == ""
    assert told(tmp_path, free_use="nobody", api_port=9000, api_origins=("https://app.example",)) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"api_host": "0.0.0.0"}, ["every network", "port 8080", "not encrypted"]),
        ({"api_host": "::"}, ["every network"]),
        ({"api_host": "192.0.2.7"}, ["network of 192.0.2.7"]),
        ({"free_use": "everyone"}, ["without a job", "earn nothing"]),
        ({"public_url": "wss://host.example.org/secret?key=1"}, ["host.example.org", "paid jobs"]),
        ({"trusted_proxies": "127.0.0.1"}, ["reverse proxy"]),
        ({"api_origins": "*"}, ["Every web page"]),
    ],
)
def test_each_way_out_is_told_in_words(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    text = told(tmp_path, **changes)
    assert [word for word in words if word not in text] == []
    assert "secret" not in text


def test_a_setting_put_back_to_its_default_is_judged_as_the_default(tmp_path: Path) -> None:
    public = {"api_host": "0.0.0.0", "free_use": "everyone"}
    assert "every network" in told(tmp_path, public)
    assert "every network" not in told(tmp_path, public, api_host=None)
    assert told(tmp_path, public, api_host=None, free_use=None) == ""


def test_what_is_no_setting_of_that_kind_is_an_error_that_shows_no_value(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="API_PORT") as refused:
        told(tmp_path, api_port="canary")
    assert "canary" not in str(refused.value)


def test_the_node_tells_its_window(tmp_path: Path) -> None:
    node = HostNode(Settings(data_dir=tmp_path))
    assert node.exposure({}) == ()
    assert any("earn nothing" in sentence for sentence in node.exposure({"free_use": "everyone"}))
