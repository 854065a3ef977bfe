"""One typed model of all settings: defaults, then settings.toml, then the environment, then the command line.

Each field's description is what the Settings page shows; `effect` says when a change takes effect. The environment name of
a field is its name in capitals, without a prefix (`API_PORT`), as hosts know it from the brief.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
import tomlkit
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from fabstir_desktop.errors import SettingError

SETTINGS_FILE = "settings.toml"
BATCHING = "batch_claims"
SECRETS = frozenset({"host_private_key", "engine_api_key"})
"""Fields that are never shown, stored or logged."""
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
RESTART = "at the next start"
NOW = "at once"


def _setting(default: Any, description: str, effect: str = RESTART, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"effect": effect}, **limits)


EarningsFrom = Literal["included", "safe", "final"]
"""How deep a block must be for its payments to count as earned."""
Notify = Literal["tray", "none"]
"""How a kind of news is told: beside the tray, or not at all."""


class Settings(BaseSettings):
    """Every setting of the application. Frozen: a change makes a new object (see `save_setting`)."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False, validate_default=True
    )

    data_dir: Annotated[Path, NoDecode] = Field(default_factory=lambda: default_data_dir())  # noqa: PLW0108 - defined below
    host_private_key: SecretStr | None = Field(None, exclude=True, repr=False)
    engine_api_key: SecretStr | None = Field(None, exclude=True, repr=False)

    rpc_url: Annotated[tuple[str, ...], NoDecode] = _setting(
        ("https://sepolia.base.org",), "RPC endpoints, comma separated; the first healthy one is used."
    )
    chain_id: int = _setting(84532, "The chain that claims are made on; nothing is signed for another.", gt=0)
    contract_proof_system: str = _setting(
        "0x2ACcc60893872A499700908889B38C5420CBcFD1", "Address of the ProofSystem contract."
    )
    contract_job_marketplace: str | None = _setting(None, "Address of the JobMarketplace contract.")
    settlement_contract: Literal["proof_system", "job_marketplace"] = _setting(
        "proof_system", "Which of the two contracts claims go to."
    )
    checkpoint_threshold: int = _setting(100, "Tokens of a job after which a checkpoint is submitted.", ge=1, le=10**9)
    confirmations: int = _setting(
        1, "Blocks on top of a claim's block, itself counted, until it counts as proven.", ge=1, le=10_000
    )
    earnings_from: EarningsFrom = _setting(
        "safe",
        "How deep a payment's block must be until it counts as earned (included, safe, final); others are shown as pending.",
    )
    max_fee_gwei: int = _setting(50, "Cap on the fee per gas, in gwei; dearer claims wait.", ge=1, le=100_000)
    max_unproven_tokens: int = _setting(
        5000, "Tokens a job may gather unproven before its prompts wait (also with the RPC down).", ge=1
    )
    uneconomic_claims: Literal["claim", "hold"] = _setting(
        "claim",
        "Claims that earn less than their gas: make them all the same, or hold them back until they have grown.",
    )
    batch_claims: bool = _setting(
        False,
        "Send up to fifty claims in one transaction (EIP-7702: your account borrows the code for it). Cheaper; undone at once.",
        NOW,
    )
    unknown_jobs: Literal["refuse", "wait"] = _setting(
        "refuse",
        "Prompts of jobs that cannot be checked because the RPC is away: refuse them, or let them wait 20 s for it.",
    )
    settlement_poll_seconds: float = _setting(2.0, "How often receipts and events are looked for.", gt=0, le=600)

    model_path: Path | None = _setting(
        None, "The GGUF file to serve, or a folder with one; the Models page changes it without a restart.", RESTART
    )
    engine_url: str | None = _setting(
        None, "Address of an OpenAI-compatible server (vLLM, SGLang, llama-server) to use instead of a local model."
    )
    engine_model: str | None = _setting(
        None, "The model to use of that server, by its own name for it; empty: the first that it lists."
    )
    context_window: int | None = _setting(
        None, "Tokens of context a stream gets; empty: automatic.", ge=128, le=1_048_576
    )
    gpu_layers: int | None = _setting(None, "Layers kept on the GPU; empty: as many as fit.", ge=0)
    threads: int | None = _setting(None, "CPU threads of the model; empty: the machine's cores.", ge=1, le=1024)
    max_parallel: int = _setting(8, "Prompts answered at the same time.", ge=1, le=256)

    api_host: str = _setting("127.0.0.1", "Address the server listens on; 127.0.0.1 reaches this machine only.")
    api_port: int = _setting(8080, "Port the server listens on; 0 picks a free one.", ge=0, le=65535)
    api_origins: Annotated[tuple[str, ...], NoDecode] = _setting(
        (), "Web origins allowed to connect, comma separated; programs that send none always may."
    )
    session_grace_seconds: float = _setting(
        5.0, "Time to reconnect after a session's last socket closed, before it is settled.", ge=0, le=3600
    )
    session_idle_seconds: float = _setting(900.0, "A session without a prompt for this long is ended.", gt=0, le=86400)
    tls_certificate: Path | None = _setting(None, "Certificate file (PEM) for wss; renewed files are read again.")
    tls_key: Path | None = _setting(None, "Key file of the certificate (PEM).")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = _setting(
        (), "Addresses of reverse proxies whose X-Forwarded-For is believed, comma separated."
    )
    public_url: str | None = _setting(
        None,
        "Address under which clients reach this host, such as wss://host.example.org; its name is accepted in requests.",
    )
    max_connections: int = _setting(256, "Connections at the same time.", ge=1, le=100_000)
    free_use: Literal["loopback", "everyone", "nobody"] = _setting(
        "loopback", "Who may send prompts without a job (they earn nothing)."
    )

    serving_hours: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Hours of the day to serve in, such as 22:00-07:00, comma separated; empty: always. The host pauses outside.",
    )
    pause_on_battery: bool = _setting(False, "Pause while the computer runs on battery.")
    keep_awake: bool = _setting(True, "Keep the machine from sleeping while a request runs, and only then.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _setting("INFO", "How much is logged.")
    close_action: Literal["ask", "tray", "quit"] = _setting("ask", "What closing the window does.", NOW)
    start_hidden: bool = _setting(False, "Start in the tray without opening the window.")
    tray_icon: Literal["auto", "light", "dark"] = _setting(
        "auto", "Panel that the tray's icon is drawn for; auto follows the desktop's scheme.", NOW
    )
    tray_amounts: bool = _setting(True, "Show in the tray's menu what was settled today.", NOW)
    notify_errors: Notify = _setting(
        "tray", "Tell of problems that stop serving or payment, while the window is not seen.", NOW
    )
    notify_warnings: Notify = _setting("none", "Tell of warnings, such as gas money that is low.", NOW)
    notify_payments: Notify = _setting("none", "Tell how many tokens were settled, at most every ten minutes.", NOW)
    notify_pauses: Notify = _setting("tray", "Tell when the host pauses by itself, and when it serves again.", NOW)
    appearance: Literal["system", "light", "dark"] = _setting(
        "system", "Light or dark; system follows the desktop.", NOW
    )

    @field_validator("rpc_url", "api_origins", "trusted_proxies", "serving_hours", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return tuple(value) if isinstance(value, list) else value

    @field_validator("rpc_url")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if not urls:
            raise ValueError("at least one URL such as https://sepolia.base.org")
        if any(not url.startswith(("http://", "https://")) for url in urls):
            raise ValueError("each URL must start with http:// or https://")
        return urls

    @field_validator("serving_hours")
    @classmethod
    def _check_hours(cls, spans: tuple[str, ...]) -> tuple[str, ...]:
        if any(not _HOURS.fullmatch(span) for span in spans):
            raise ValueError("spans of the day such as 22:00-07:00, comma separated")
        return spans

    @field_validator("data_dir", "model_path", "tls_certificate", "tls_key")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path is not None else None

    @field_validator("engine_url")
    @classmethod
    def _check_engine_url(cls, url: str | None) -> str | None:
        expected = "an address that starts with http:// or https://, such as http://192.168.1.5:8000"
        try:
            usable = url is None or (url.startswith(("http://", "https://")) and urlsplit(url).hostname is not None)
            usable = usable and (url is None or urlsplit(url).port != 0)
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(expected)
        return url

    @field_validator("engine_api_key")
    @classmethod
    def _check_engine_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("a key of printable characters without blanks")
        return key

    @field_validator("contract_proof_system", "contract_job_marketplace")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None and not _ADDRESS.fullmatch(address):
            raise ValueError("an address: 0x and 40 hexadecimal digits")
        return address

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @property
    def contract_address(self) -> str:
        """The address of the chosen contract. Raises SettingError if it is not set."""
        address = (
            self.contract_proof_system if self.settlement_contract == "proof_system" else self.contract_job_marketplace
        )
        if address is None:
            raise SettingError(
                "CONTRACT_JOB_MARKETPLACE is not set, but SETTLEMENT_CONTRACT is job_marketplace: expected its address"
            )
        return address

    @property
    def ledger_path(self) -> Path:
        """The SQLite file with everything that was earned."""
        return self.data_dir / "ledger.db"

    @property
    def log_path(self) -> Path:
        """The log file hosts grep."""
        return self.data_dir / "logs" / "fabstir-desktop.log"

    @property
    def proofs_dir(self) -> Path:
        """Where canonical proof records are kept."""
        return self.data_dir / "proofs"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line first, then the environment, then settings.toml in the data directory."""
        given = init_settings.init_kwargs if isinstance(init_settings, InitSettingsSource) else {}
        folder = Path(given.get("data_dir") or default_data_dir())
        return init_settings, _Environment(settings_cls), _File(settings_cls, toml_file=folder / SETTINGS_FILE)


class _Environment(EnvSettingsSource):
    """The environment, where the data directory has one name only: DATA_DIR belongs to whatever else runs here."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        values.pop("data_dir", None)
        return values


class _File(TomlConfigSettingsSource):
    """settings.toml. A name that is no setting is an error: misspelt, it would silently leave a default in force."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        for name in values:
            if name in SECRETS:
                raise SettingError(
                    f"{name.upper()} ({SETTINGS_FILE}) cannot be used: a key does not belong in a file that others may "
                    "read; expected in the environment or the keyring (fabstir-desktop key set)"
                )
        _check_names(values, SETTINGS_FILE, without={"data_dir"})
        return values


def _check_names(given: Collection[str], source: str, *, without: Collection[str] = ()) -> None:
    known = [name for name in Settings.model_fields if name not in without]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"perhaps {near[0]}" if near else "the names are in the README and on the Settings page"
            raise SettingError(f"{name.upper()} ({source}) cannot be used: expected the name of a setting; {hint}")


def default_data_dir() -> Path:
    """The data directory of the default profile, absolute."""
    chosen = os.environ.get("FABSTIR_DATA_DIR") or platformdirs.user_data_dir("fabstir-desktop", appauthor=False)
    return Path(chosen).expanduser().absolute()


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read all sources; `overrides` is the command line. Raises SettingError with one line that names setting and source."""
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    _check_names(given, "command line")
    try:
        settings = Settings(**given)
        settings.contract_address  # noqa: B018 - checks that the two settings agree
    except SettingError:
        raise
    except ValidationError as error:
        raise SettingError(_explain(error, given)) from None
    except (tomlkit.exceptions.TOMLKitError, ValueError, OSError) as error:
        raise SettingError(f"{SETTINGS_FILE} cannot be read: {error}") from None
    return settings


def source_of(name: str, overrides: Mapping[str, Any] | None = None) -> str:
    """Where the field's value comes from: `command line`, `environment variable NAME`, `settings.toml` or `default`."""
    if overrides and overrides.get(name) is not None:
        return "command line"
    for variable in os.environ:
        if variable.lower() == name and os.environ[variable]:
            return f"environment variable {variable}"
    folder = Path((overrides or {}).get("data_dir") or default_data_dir())
    try:
        stored = tomlkit.parse((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, tomlkit.exceptions.TOMLKitError):
        return "default"
    return SETTINGS_FILE if name in stored else "default"


def check_file_decides(name: str, data_dir: Path, overrides: Mapping[str, Any] | None = None) -> None:
    """Refuse to store what would have no effect, because something stronger than the file decides it. Raises SettingError."""
    decided_by = source_of(name, {**(overrides or {}), "data_dir": data_dir})
    if decided_by not in {"default", SETTINGS_FILE}:
        raise SettingError(f"{name.upper()} is set by the {decided_by}: change it there")


def save_setting(data_dir: Path, name: str, value: Any) -> None:
    """Write one setting into settings.toml, keeping the rest and its comments; None removes it (back to the default).

    Raises SettingError if the value cannot be used; the file is then unchanged. Blocks on disk: call it off the loop.
    """
    field = Settings.model_fields.get(name)
    if field is None or name in {"data_dir", *SECRETS}:
        raise SettingError(f"{name} is not a setting of {SETTINGS_FILE}")
    if value is not None:
        _check_value(data_dir, name, value)
    path = data_dir / SETTINGS_FILE
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
        if value is None:
            document.pop(name, None)
        else:
            document[name] = _plain(value)
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
        temporary.replace(path)
    except (OSError, tomlkit.exceptions.TOMLKitError) as error:
        raise SettingError(f"{SETTINGS_FILE} cannot be written: {error}") from error


def editable_fields() -> dict[str, FieldInfo]:
    """The settings of the file, in the order of the page."""
    return {name: field for name, field in Settings.model_fields.items() if name not in {"data_dir", *SECRETS}}


def _check_value(data_dir: Path, name: str, value: Any) -> None:
    """Whether the next start could use it, beside all that is stored. Raises SettingError."""
    try:
        load_settings({"data_dir": data_dir, name: value})
    except SettingError as error:
        raise SettingError(str(error).replace(" (command line)", "")) from None


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [str(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _explain(error: ValidationError, overrides: Mapping[str, Any]) -> str:
    """One line: the setting, its source, what is expected. Never the value of a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    expected = str(first["msg"]).removeprefix("Value error, ")
    return f"{name.upper()} ({source_of(name, overrides)}) cannot be used: expected {_expectation(expected)}"


def _expectation(message: str) -> str:
    lowered = message[0].lower() + message[1:]
    return re.sub(r"^input should be (a valid )?", "", lowered)
