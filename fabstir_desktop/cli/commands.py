"""The commands: ask the running app where one runs, else the ledger; print for people or as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabstir_desktop.cli.arguments import Call
from fabstir_desktop.cli.tables import print_jobs, print_outcomes, print_status, print_transactions
from fabstir_desktop.errors import EnvironmentFault, UserError
from fabstir_desktop.jobs.ids import parse_job_id
from fabstir_desktop.settings import Settings, load_settings

_CALL_LIMIT_S = 20.0
_CHECKPOINT_LIMIT_S = 120.0


def run_command(call: Call) -> int:
    """Run the command; returns its exit code. Raises FabstirError with the words for the person who called."""
    commands: dict[str, Callable[[Call, Settings], int]] = {
        "status": _status,
        "jobs": _jobs,
        "transactions": _transactions,
        "checkpoint": _checkpoint,
        "batching": _batching,
        "key": _key,
        "doctor": _doctor,
        "chat": _chat,
        "verify": _verify,
    }
    return commands[str(call.command)](call, load_settings(call.overrides))


def no_display(call: Call) -> bool:
    """Whether the demo must run headless because there is no display; says so. Raises UserError for the plain tray app."""
    if not sys.platform.startswith("linux"):
        return False
    if any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
        return False
    if not call.demo:
        raise UserError("there is no display here (DISPLAY and WAYLAND_DISPLAY are not set); start it with --headless")
    print("There is no display here: the demo runs headless.", file=sys.stderr)
    return True


def _ask(settings: Settings, command: str, limit_s: float = _CALL_LIMIT_S, **arguments: Any) -> Any | None:
    """The running app's answer, None if none runs."""
    from fabstir_desktop.server.control import call_running  # noqa: PLC0415

    return asyncio.run(call_running(settings.data_dir, command, arguments, timeout_s=limit_s))


def _status(call: Call, settings: Settings) -> int:
    answer = _ask(settings, "status")
    if answer is None:
        rows = asyncio.run(_from_ledger(settings, "jobs"))
        counts = {name: sum(row[name] for row in rows) for name in ("generated", "claimed", "settled", "unclaimed")}
        answer = {"state": "stopped", "sentence": "Not running", "data_dir": str(settings.data_dir), "tokens": counts}
        answer["problems"] = []
    if call.arguments["json"]:
        _print_json(answer)
    else:
        print_status(answer)
    return 0


def _jobs(call: Call, settings: Settings) -> int:
    rows = _ask(settings, "jobs")
    if rows is None:
        rows = asyncio.run(_from_ledger(settings, "jobs"))
    _print_json(rows) if call.arguments["json"] else print_jobs(rows)
    return 0


def _transactions(call: Call, settings: Settings) -> int:
    rows = _ask(settings, "transactions")
    if rows is None:
        rows = asyncio.run(_from_ledger(settings, "transactions"))
    _print_json(rows) if call.arguments["json"] else print_transactions(rows)
    return 0


async def _from_ledger(settings: Settings, what: str) -> list[dict[str, Any]]:
    from fabstir_desktop.control import job_json, transaction_json  # noqa: PLC0415
    from fabstir_desktop.ledger.ledger import read_views  # noqa: PLC0415

    if not settings.ledger_path.exists():
        return []
    ledger = await read_views(settings.ledger_path)
    try:
        if what == "jobs":
            return [job_json(view) for view in await ledger.job_views()]
        return [transaction_json(view) for view in await ledger.transaction_views()]
    finally:
        await ledger.close()


def _checkpoint(call: Call, settings: Settings) -> int:
    wanted = call.arguments["job_id"]
    if wanted is not None:
        wanted = str(parse_job_id(wanted))
    outcomes = _ask(settings, "checkpoint", _CHECKPOINT_LIMIT_S, job_id=wanted)
    if outcomes is None:
        raise EnvironmentFault(f"no running app uses {settings.data_dir}: start it, then ask again")
    print_outcomes(outcomes)
    return 0 if all(outcome["submitted"] for outcome in outcomes) else 1


def _batching(call: Call, settings: Settings) -> int:
    from fabstir_desktop.cli.batching import run_batching_command  # noqa: PLC0415

    return run_batching_command(call, settings)


def _key(call: Call, settings: Settings) -> int:
    from fabstir_desktop.cli.keys import run_key_command  # noqa: PLC0415

    return asyncio.run(run_key_command(call.arguments, settings))


def _doctor(_: Call, settings: Settings) -> int:
    from fabstir_desktop.cli.doctor import run_doctor  # noqa: PLC0415

    return asyncio.run(run_doctor(settings))


def _chat(call: Call, settings: Settings) -> int:
    from fabstir_desktop.server.client import chat  # noqa: PLC0415

    url = call.arguments["url"] or _running_url(settings)
    result = asyncio.run(
        chat(
            url,
            job_id=parse_job_id(call.arguments["job"]),
            session_id=call.arguments["session"] or f"cli-{uuid.uuid4()}",
            prompt=call.arguments["prompt"],
            max_tokens=call.arguments["max_tokens"],
            on_text=lambda text: print(text, end="", flush=True),
        )
    )
    print(f"\n[{result.tokens_used} tokens, {result.finish_reason}]")
    return 0


def _running_url(settings: Settings) -> str:
    status = _ask(settings, "status")
    url = status["server"]["url"] if status else None
    if url is None:
        raise EnvironmentFault(f"no running app serves from {settings.data_dir}: start it, or name one with --url")
    return str(url)


def _verify(call: Call, settings: Settings) -> int:
    from fabstir_desktop.cli.verify import verify_file  # noqa: PLC0415

    return verify_file(Path(call.arguments["file"]), settings, replay=call.arguments["replay"])


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
