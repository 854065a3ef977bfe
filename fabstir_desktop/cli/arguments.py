"""Arguments and their help; nothing else of the application is imported here, so that --help is instant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabstir_desktop import __version__

_EPILOG = """settings: defaults, then settings.toml in the data directory, then the environment (API_PORT, MODEL_PATH, RPC_URL,
CHAIN_ID, CHECKPOINT_THRESHOLD, ...), then --set. The key is kept in the OS keyring: fabstir-desktop key set"""


@dataclass(frozen=True, slots=True)
class Call:
    """One parsed call. `overrides` are settings from the command line; `arguments` those of the command."""

    command: str | None
    headless: bool
    demo: bool
    once: bool
    hidden: bool
    overrides: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)


def parse(arguments: Sequence[str] | None = None) -> Call:
    """Read the arguments; ends the process with a usage text where they cannot be understood."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    overrides: dict[str, Any] = dict(given.pop("settings") or [])
    data_dir = given.pop("data_dir_late", None) or given.pop("data_dir", None)
    given.pop("data_dir", None)
    if data_dir is not None:
        overrides["data_dir"] = data_dir.expanduser().absolute()
    once, demo = given.pop("once"), given.pop("demo")
    if once and not demo:
        parser.error("--once serves the demo's sample prompt: use it with --demo")
    headless, hidden = given.pop("headless"), given.pop("hidden")
    command = given.pop("command", None)
    return Call(command, headless or once, demo, once, hidden, overrides, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fabstir-desktop",
        description="Host application of the Fabstir LLM marketplace. Without a command it starts the tray app.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fabstir-desktop {__version__}")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where all state of this profile lives")
    parser.add_argument("--headless", action="store_true", help="run without a window until SIGINT or SIGTERM")
    parser.add_argument("--demo", action="store_true", help="embedded chain, throw-away key, small model")
    parser.add_argument("--once", action="store_true", help="with --demo: serve one prompt, wait until it is paid, end")
    parser.add_argument("--hidden", action="store_true", help="start in the tray without opening the window")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        type=_assignment,
        metavar="NAME=VALUE",
        help="set a setting, e.g. api_port=0",
    )
    _add_commands(parser)
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data-dir", dest="data_dir_late", type=Path, metavar="DIR", help="the profile to ask")
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="machine-readable output")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("status", parents=[common, as_json], help="what the running app does")
    commands.add_parser("jobs", parents=[common, as_json], help="jobs with their token counts and earnings")
    commands.add_parser("transactions", parents=[common, as_json], help="checkpoints on their way and on chain")
    checkpoint = commands.add_parser("checkpoint", parents=[common], help="claim now")
    checkpoint.add_argument("job_id", nargs="?", metavar="JOB_ID", help="only this job; default: every job")
    key = commands.add_parser("key", parents=[common], help="HOST_PRIVATE_KEY in the OS keyring")
    key.add_argument(
        "action",
        choices=["set", "show", "remove", "unlock"],
        help="set reads the key from standard input or a prompt; unlock opens the keystore file for the running app",
    )
    key.add_argument(
        "--file", action="store_true", help="set: into an encrypted keystore file, where there is no keyring"
    )
    key.add_argument("--replace", action="store_true", help="set: replace a key of another address")
    batching = commands.add_parser("batching", parents=[common, as_json], help="several claims in one transaction")
    batching.add_argument(
        "action",
        nargs="?",
        default="status",
        choices=["status", "on", "off"],
        help="off also takes back what your account has allowed for it",
    )
    commands.add_parser("doctor", parents=[common], help="check everything that payment depends on")
    chat = commands.add_parser("chat", parents=[common], help="send a prompt to the own server")
    chat.add_argument("--job", required=True, metavar="JOB_ID")
    chat.add_argument("--session", default=None, metavar="SESSION_ID")
    chat.add_argument("--max-tokens", type=int, default=200, metavar="N")
    chat.add_argument("--url", default=None, help="another server than the running app's")
    chat.add_argument("prompt", metavar="PROMPT")
    verify = commands.add_parser("verify", parents=[common], help="check a stored proof record")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("--replay", action="store_true", help="also check the tokens by running the model again")


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError("expected NAME=VALUE, for example api_port=0")
    if name.strip().lower() == "host_private_key":
        raise argparse.ArgumentTypeError("a key is never an argument, which others can read: fabstir-desktop key set")
    return name.strip().lower(), value
