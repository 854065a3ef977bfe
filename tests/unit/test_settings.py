"""Settings: strength of sources, one line for what cannot be used, a file that keeps its comments."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir_desktop.errors import SettingError
from fabstir_desktop.settings import Settings, editable_fields, load_settings, save_setting, source_of


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("FABSTIR_DATA_DIR", str(tmp_path))


def test_the_defaults_are_those_that_the_outside_relies_on(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.chain_id == 84532
    assert settings.contract_address == "0x2ACcc60893872A499700908889B38C5420CBcFD1"
    assert settings.contract_job_marketplace is None
    assert (settings.checkpoint_threshold, settings.confirmations, settings.max_parallel) == (100, 1, 8)
    assert (settings.api_host, settings.api_port, settings.session_grace_seconds) == ("127.0.0.1", 8080, 5)
    assert settings.data_dir == tmp_path


def test_command_line_beats_environment_beats_file_beats_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text("api_port = 9001\nchain_id = 5\ncheckpoint_threshold = 7\n")
    monkeypatch.setenv("API_PORT", "9002")
    monkeypatch.setenv("CHAIN_ID", "6")
    overrides = {"api_port": "9003", "data_dir": tmp_path}
    settings = load_settings(overrides)
    assert (settings.api_port, settings.chain_id, settings.checkpoint_threshold) == (9003, 6, 7)
    assert source_of("api_port", overrides) == "command line"
    assert source_of("chain_id", overrides) == "environment variable CHAIN_ID"
    assert source_of("checkpoint_threshold", overrides) == "settings.toml"
    assert source_of("log_level", overrides) == "default"


def test_the_data_directory_of_the_command_line_is_where_the_file_is_read(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "settings.toml").write_text("api_port = 9001\n")
    assert load_settings({"data_dir": other}).api_port == 9001
    assert load_settings().api_port == 8080


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("API_PORT", "99999", "65535"),
        ("API_PORT", "http", "integer"),
        ("CHECKPOINT_THRESHOLD", "0", "greater than or equal to 1"),
        ("CHAIN_ID", "base", "integer"),
        ("RPC_URL", "ftp://example.org", "http:// or https://"),
        ("CONTRACT_PROOF_SYSTEM", "0x12", "40 hexadecimal digits"),
        ("SETTLEMENT_CONTRACT", "both", "'proof_system' or 'job_marketplace'"),
        ("SETTLEMENT_CONTRACT", "job_marketplace", "CONTRACT_JOB_MARKETPLACE"),
        ("LOG_LEVEL", "loud", "'DEBUG'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_source_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError) as caught:
        load_settings()
    text = str(caught.value)
    assert variable in text
    assert expected in text
    assert "\n" not in text


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("api_port = = 3\n")
    with pytest.raises(SettingError, match=r"settings\.toml"):
        load_settings()


def test_several_rpc_urls_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPC_URL", "https://one.example, http://two.example/")
    assert load_settings().rpc_url == ("https://one.example", "http://two.example/")


def test_the_key_is_in_no_representation_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "0x" + "c0ffee" * 10 + "abcd"
    monkeypatch.setenv("HOST_PRIVATE_KEY", canary)
    settings = load_settings()
    shown = f"{settings!r}{settings!s}{settings.model_dump()}{settings.model_dump_json()}"
    assert canary not in shown
    assert "c0ffee" not in shown
    assert settings.host_private_key is not None
    assert settings.host_private_key.get_secret_value() == canary


def test_saving_keeps_comments_and_other_settings_and_removing_returns_to_the_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("# mine\nchain_id = 5\n")
    save_setting(tmp_path, "api_port", 9001)
    assert "# mine" in file.read_text()
    assert (load_settings().api_port, load_settings().chain_id) == (9001, 5)
    save_setting(tmp_path, "api_port", None)
    assert load_settings().api_port == 8080


def test_saving_refuses_what_could_not_be_loaded_and_leaves_the_file_alone(tmp_path: Path) -> None:
    save_setting(tmp_path, "api_port", 9001)
    before = (tmp_path / "settings.toml").read_text()
    for name, value in (("api_port", 70000), ("host_private_key", "0x1"), ("nonsense", 1)):
        with pytest.raises(SettingError):
            save_setting(tmp_path, name, value)
    assert (tmp_path / "settings.toml").read_text() == before


def test_every_setting_of_the_page_says_what_it_does_and_when(tmp_path: Path) -> None:
    for name, field in editable_fields().items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict), name
        assert field.json_schema_extra["effect"], name


def test_the_data_directory_has_one_name_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "of something else"))
    assert load_settings().data_dir == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FABSTIR_DATA_DIR", "~/profile")
    monkeypatch.setenv("MODEL_PATH", "~/models/a.gguf")
    assert load_settings().data_dir == tmp_path / "profile"
    assert load_settings().model_path == tmp_path / "models" / "a.gguf"


@pytest.mark.parametrize("name", ["chekpoint_threshold", "api_prot"])
def test_a_name_that_is_no_setting_is_said_with_the_one_that_is(tmp_path: Path, name: str) -> None:
    meant = {"chekpoint_threshold": "checkpoint_threshold", "api_prot": "api_port"}[name]
    with pytest.raises(SettingError, match=f"{name.upper()}.*command line.*perhaps {meant}"):
        load_settings({name: "10"})
    (tmp_path / "settings.toml").write_text(f"{name} = 10\n")
    with pytest.raises(SettingError, match=f"{name.upper()}.*settings.toml.*perhaps {meant}"):
        load_settings()


def test_a_key_does_not_belong_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f'host_private_key = "{"0x" + "1" * 64}"\n')
    with pytest.raises(SettingError, match="key set") as caught:
        load_settings()
    assert "1111" not in str(caught.value)


def test_what_would_stop_the_next_start_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="CONTRACT_JOB_MARKETPLACE is not set"):
        save_setting(tmp_path, "settlement_contract", "job_marketplace")
    assert not (tmp_path / "settings.toml").exists()
    save_setting(tmp_path, "contract_job_marketplace", "0x" + "ab" * 20)
    save_setting(tmp_path, "settlement_contract", "job_marketplace")
    with pytest.raises(SettingError, match="API_PORT cannot be used: expected"):
        save_setting(tmp_path, "api_port", 99999)
    assert load_settings().contract_address == "0x" + "ab" * 20
