"""`batching status|on|off`: several claims in one transaction, switched in the running app or for its next start."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fabstir_desktop.cli.arguments import Call
from fabstir_desktop.settings import BATCHING, Settings, check_file_decides, save_setting

LIMIT_S = 40.0
NOT_RUNNING = "No app runs on this data folder, so the chain was not asked. "
AT_THE_NEXT_START = "It takes effect when the app runs next."
STAYS_TILL_THEN = "What your account has allowed on chain for it is taken back then."


def run_batching_command(call: Call, settings: Settings) -> int:
    """Ask, or switch; prints what is so now. Raises FabstirError."""
    from fabstir_desktop.server.control import call_running  # noqa: PLC0415

    action = str(call.arguments["action"])
    answer: dict[str, Any] | None = asyncio.run(
        call_running(settings.data_dir, "batching", {"action": action}, timeout_s=LIMIT_S)
    )
    if answer is None:
        answer = _without_app(action, settings, call.overrides)
    if call.arguments["json"]:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print_batching(answer)
    return 0


def _without_app(action: str, settings: Settings, overrides: dict[str, Any]) -> dict[str, Any]:
    wanted = settings.batch_claims
    sentence = f"{NOT_RUNNING}The setting is {'on' if wanted else 'off'}."
    if action != "status":
        wanted = action == "on"
        check_file_decides(BATCHING, settings.data_dir, overrides)
        save_setting(settings.data_dir, BATCHING, wanted)
        sentence = f"Stored: {action}. {AT_THE_NEXT_START}" + ("" if wanted else f" {STAYS_TILL_THEN}")
    return {"wanted": wanted, "active": False, "sentence": sentence, "contract": "", "borrowed": None, "tx_hash": None}


def print_batching(answer: dict[str, Any]) -> None:
    """For people: the sentence, and the facts that are known."""
    print(answer["sentence"])
    if answer["borrowed"]:
        print(f"your account borrows the code at {answer['borrowed']}")
    if answer["tx_hash"]:
        print(f"last change: tx_hash {answer['tx_hash']}")
