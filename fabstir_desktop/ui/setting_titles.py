"""What the settings are called in the window; the names of the file and the environment stand beside them."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

translate = QCoreApplication.translate


def setting_title(name: str) -> str:
    """The title of a setting; a setting without one is called by its name."""
    titles = {**_of_the_app(), **_of_the_port(), **_of_the_chain()}
    return titles.get(name, name.replace("_", " ").capitalize())


def _of_the_app() -> dict[str, str]:
    """Window, tray, habits and model."""
    return {
        "close_action": translate("settings", "Closing the window"),
        "start_hidden": translate("settings", "Start hidden"),
        "appearance": translate("settings", "Light or dark"),
        "tray_icon": translate("settings", "Icon for a light or dark panel"),
        "tray_amounts": translate("settings", "Amounts in the tray"),
        "log_level": translate("settings", "Log level"),
        "serving_hours": translate("settings", "Serving hours"),
        "pause_on_battery": translate("settings", "Pause on battery"),
        "notify_errors": translate("settings", "Problems"),
        "notify_warnings": translate("settings", "Warnings"),
        "notify_payments": translate("settings", "Settled tokens"),
        "notify_pauses": translate("settings", "Pauses by itself"),
        "keep_awake": translate("settings", "Stay awake while serving"),
        "model_path": translate("settings", "Model file"),
        "engine_url": translate("settings", "Server elsewhere"),
        "engine_model": translate("settings", "Model on that server"),
        "context_window": translate("settings", "Context window"),
        "gpu_layers": translate("settings", "Layers on the GPU"),
        "threads": translate("settings", "CPU threads"),
        "max_parallel": translate("settings", "Prompts at a time"),
    }


def _of_the_port() -> dict[str, str]:
    """Who may connect, and how."""
    return {
        "api_host": translate("settings", "Address to listen on"),
        "api_port": translate("settings", "Port"),
        "api_origins": translate("settings", "Web origins"),
        "free_use": translate("settings", "Prompts without a job"),
        "session_grace_seconds": translate("settings", "Time to reconnect (seconds)"),
        "session_idle_seconds": translate("settings", "Idle session ends after (seconds)"),
        "public_url": translate("settings", "Public address"),
        "max_connections": translate("settings", "Connections at a time"),
        "trusted_proxies": translate("settings", "Trusted proxies"),
        "tls_certificate": translate("settings", "TLS certificate"),
        "tls_key": translate("settings", "TLS key"),
    }


def _of_the_chain() -> dict[str, str]:
    """Claims and what they are worth."""
    return {
        "checkpoint_threshold": translate("settings", "Tokens a checkpoint"),
        "confirmations": translate("settings", "Confirmations"),
        "earnings_from": translate("settings", "Earned counts from"),
        "max_fee_gwei": translate("settings", "Fee cap (gwei)"),
        "max_unproven_tokens": translate("settings", "Unproven tokens a job may gather"),
        "uneconomic_claims": translate("settings", "Claims that cost more than they earn"),
        "batch_claims": translate("settings", "Several claims in one transaction"),
        "settlement_poll_seconds": translate("settings", "Look at the chain every (seconds)"),
        "rpc_url": translate("settings", "RPC endpoints"),
        "chain_id": translate("settings", "Chain id"),
        "settlement_contract": translate("settings", "Contract that claims go to"),
        "contract_proof_system": translate("settings", "ProofSystem contract"),
        "contract_job_marketplace": translate("settings", "JobMarketplace contract"),
        "unknown_jobs": translate("settings", "Jobs that cannot be checked"),
    }
