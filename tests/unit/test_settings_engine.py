"""The settings of an engine elsewhere: what can be used, and that its key is shown and stored nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fabstir_desktop.errors import SettingError
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.factory import engine_for
from fabstir_desktop.inference.openai_api import ServerAddress
from fabstir_desktop.inference.process import worker_environment
from fabstir_desktop.inference.remote import RemoteEngine
from fabstir_desktop.inspection import _plain_settings
from fabstir_desktop.jobs.diagnosis import derive_problems
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.status import ServerStatus, WalletState, WalletStatus
from fabstir_desktop.settings import editable_fields, load_settings, save_setting

KEY = "sk-kestrel-of-the-engine"


def test_the_engines_key_is_in_no_representation_page_file_or_child(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENGINE_API_KEY", KEY)
    settings = load_settings()
    assert settings.engine_api_key is not None
    assert settings.engine_api_key.get_secret_value() == KEY
    shown = f"{settings!r}{settings!s}{settings.model_dump()}{settings.model_dump_json()}{_plain_settings(settings)}"
    assert KEY not in shown
    assert "engine_api_key" not in editable_fields()
    assert "engine_model" in editable_fields()
    with pytest.raises(SettingError) as caught:
        save_setting(tmp_path, "engine_api_key", KEY)
    assert KEY not in str(caught.value)
    assert KEY not in worker_environment({"ENGINE_API_KEY": KEY, "PATH": "/bin"}).values()
    engine = engine_for(settings.model_copy(update={"engine_url": "http://host.example"}), Feed())
    assert KEY not in f"{engine!r}{engine.status!r}{vars(engine)!r}"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ", "tab\t"])
def test_a_key_that_is_no_header_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("ENGINE_API_KEY", key)
    with pytest.raises(SettingError) as caught:
        load_settings()
    assert str(caught.value).startswith("ENGINE_API_KEY (environment variable ENGINE_API_KEY) cannot be used")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host", "http://", "http://:80", "http://host:99999", "http://[::1"]
)
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ENGINE_URL", url)
    with pytest.raises(SettingError, match="ENGINE_URL"):
        load_settings()


@pytest.mark.parametrize(
    ("url", "base", "place"),
    [
        ("http://host:8000/v1/", "http://host:8000", "host:8000"),
        ("https://host.example", "https://host.example", "host.example"),
        ("https://user:pass@host.example/llm/v1?key=x#y", "https://host.example/llm", "host.example"),
        ("http://[::1]:9", "http://[::1]:9", "[::1]:9"),
    ],
)
def test_of_an_address_only_host_and_port_are_shown(url: str, base: str, place: str) -> None:
    address = ServerAddress.of(url)
    assert (address.base, address.place) == (base, place)
    assert address.headers == ({"Authorization": "Basic dXNlcjpwYXNz"} if "user" in url else {})
    assert "pass" not in repr(address)


def test_a_server_elsewhere_that_is_away_is_no_process_that_restarts() -> None:
    engine = RemoteEngine(ServerAddress.of("http://host.example:9"), Feed())
    status = replace(engine.status, state=EngineState.RESTARTING, detail="the server at host.example:9 does not answer")
    (found,) = derive_problems(
        WalletStatus(WalletState.READY, "0x00"), status, ServerStatus("ws://127.0.0.1:1", 0, 0, 0, 0), None
    )
    assert (found.code, found.page) == ("S02", "settings")
    assert found.message == "No model is served: the server at host.example:9 does not answer."
