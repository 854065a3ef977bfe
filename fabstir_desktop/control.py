"""What the control socket answers: the node's commands for scripts and second starts, as plain JSON."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fabstir_desktop.errors import UserError
from fabstir_desktop.jobs.ids import parse_job_id
from fabstir_desktop.jobs.status import PauseKind
from fabstir_desktop.jobs.views import JobView, TokenAmount, TransactionView
from fabstir_desktop.node import HostNode
from fabstir_desktop.server.control import ControlServer
from fabstir_desktop.settings import BATCHING, check_file_decides

_LONGEST_PAUSE_S = 7 * 86400.0
_LONGEST_TOKEN = 512

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]


async def serve_control(node: HostNode) -> ControlServer:
    """Open the control socket of a started node. Raises EnvironmentFault."""
    server = ControlServer(node.settings.data_dir, control_handlers(node))
    await server.start()
    return server


def control_handlers(node: HostNode) -> dict[str, Handler]:
    """The commands by name; each takes the call's arguments and returns what JSON can hold. Raises FabstirError."""
    commands = _Commands(node)
    return {
        "status": commands.status,
        "jobs": commands.jobs,
        "transactions": commands.transactions,
        "earnings": commands.earnings,
        "checkpoint": commands.checkpoint,
        "batching": commands.batching,
        "reload_key": commands.reload_key,
        "unlock_keystore": commands.unlock_keystore,
        "pause": commands.pause,
        "resume": commands.resume,
        "raise_window": commands.raise_window,
        "stop": commands.stop,
    }


class _Commands:
    """One method a command. The arguments come from outside: what is read of them is checked."""

    def __init__(self, node: HostNode) -> None:
        self._node = node

    async def status(self, _: Mapping[str, Any]) -> Any:
        return {**asdict(self._node.status), "problems": [asdict(problem) for problem in self._node.problems]}

    async def jobs(self, _: Mapping[str, Any]) -> Any:
        return [job_json(view) for view in await self._node.jobs()]

    async def transactions(self, _: Mapping[str, Any]) -> Any:
        return [transaction_json(view) for view in await self._node.transactions()]

    async def earnings(self, _: Mapping[str, Any]) -> Any:
        return asdict(await self._node.earnings())

    async def checkpoint(self, arguments: Mapping[str, Any]) -> Any:
        wanted = arguments.get("job_id")
        outcomes = await self._node.checkpoint(None if wanted is None else parse_job_id(wanted))
        return [{**asdict(outcome), "job_id": str(outcome.job_id)} for outcome in outcomes]

    async def batching(self, arguments: Mapping[str, Any]) -> Any:
        action = arguments.get("action", "status")
        if action not in ("status", "on", "off"):
            raise UserError("action must be status, on or off")
        if action != "status":
            node = self._node
            await asyncio.to_thread(check_file_decides, BATCHING, node.settings.data_dir, node.overrides)
            await node.save_setting(BATCHING, action == "on")
        return asdict(self._node.batching)

    async def reload_key(self, _: Mapping[str, Any]) -> Any:
        await self._node.reload_key()
        return asdict(self._node.status.wallet)

    async def unlock_keystore(self, arguments: Mapping[str, Any]) -> Any:
        password = arguments.get("password")
        if not isinstance(password, str):
            raise UserError("password must be a text")
        return asdict(await self._node.unlock_keystore(password))

    async def pause(self, arguments: Mapping[str, Any]) -> Any:
        duration_s = arguments.get("duration_s")
        if duration_s is not None and not (isinstance(duration_s, int | float) and 0 < duration_s <= _LONGEST_PAUSE_S):
            raise UserError("duration_s must be a number of seconds, at most a week")
        kind = PauseKind.AFTER_JOBS if arguments.get("after_jobs") is True else PauseKind.NOW
        await self._node.pause(duration_s, kind=kind)
        return self._node.status.sentence

    async def resume(self, _: Mapping[str, Any]) -> Any:
        await self._node.resume()
        return self._node.status.sentence

    async def raise_window(self, arguments: Mapping[str, Any]) -> Any:
        if self._node.on_raise_window is None:
            raise UserError("the running app has no window: it was started with --headless")
        token = arguments.get("activation_token")
        if isinstance(token, str) and token.isprintable() and 0 < len(token) < _LONGEST_TOKEN:
            os.environ["XDG_ACTIVATION_TOKEN"] = token  # Qt hands it to the compositor when the window is activated
        self._node.on_raise_window()
        return True

    async def stop(self, _: Mapping[str, Any]) -> Any:
        if self._node.on_quit is None:
            raise UserError("the running app cannot be stopped from here")
        self._node.on_quit()
        return True


def job_json(view: JobView) -> dict[str, Any]:
    """A job as `jobs --json` prints it: ids and amounts as decimal strings, counts as integers."""
    return {
        "job_id": str(view.job_id),
        "session_id": view.session_id,
        "state": view.state,
        "generated": view.generated,
        "claimed": view.claimed,
        "proven": view.proven,
        "settled": view.settled,
        "unclaimed": view.unclaimed,
        "earned": _amounts(view.earned),
        "pending": _amounts(view.pending),
        "note": view.note,
        "updated_at": view.updated_at,
    }


def _amounts(amounts: Sequence[TokenAmount]) -> list[dict[str, str]]:
    return [{"token": amount.token, "amount": str(amount.amount)} for amount in amounts]


def transaction_json(view: TransactionView) -> dict[str, Any]:
    """A transaction as `transactions --json` prints it."""
    return {
        "tx_hash": view.tx_hash,
        "kind": view.kind,
        "nonce": view.nonce,
        "state": view.state,
        "claims": [{"job_id": str(item.job_id), "from": item.start, "to": item.end} for item in view.claims],
        "block": view.block,
        "gas_used": view.gas_used,
        "fee_wei": view.fee_wei,
        "replaces": view.replaces,
        "error": view.error,
        "created_at": view.created_at,
    }
