"""What the control socket answers: the node's commands for scripts and second starts, as plain JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from fabstir_desktop.errors import UserError
from fabstir_desktop.jobs.ids import parse_job_id
from fabstir_desktop.jobs.views import JobView, TransactionView
from fabstir_desktop.node import HostNode
from fabstir_desktop.server.control import ControlServer

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]


async def serve_control(node: HostNode) -> ControlServer:
    """Open the control socket of a started node. Raises EnvironmentFault."""
    server = ControlServer(node.settings.data_dir, control_handlers(node))
    await server.start()
    return server


def control_handlers(node: HostNode) -> dict[str, Handler]:  # noqa: C901 - a table of one-line functions
    """The commands by name; each takes the call's arguments and returns what JSON can hold. Raises FabstirError."""

    async def status(_: Mapping[str, Any]) -> Any:
        return {**asdict(node.status), "problems": [asdict(problem) for problem in node.problems]}

    async def jobs(_: Mapping[str, Any]) -> Any:
        return [job_json(view) for view in await node.jobs()]

    async def transactions(_: Mapping[str, Any]) -> Any:
        return [transaction_json(view) for view in await node.transactions()]

    async def earnings(_: Mapping[str, Any]) -> Any:
        return asdict(await node.earnings())

    async def checkpoint(arguments: Mapping[str, Any]) -> Any:
        wanted = arguments.get("job_id")
        outcomes = await node.checkpoint(None if wanted is None else parse_job_id(wanted))
        return [{**asdict(outcome), "job_id": str(outcome.job_id)} for outcome in outcomes]

    async def reload_key(_: Mapping[str, Any]) -> Any:
        await node.reload_key()
        return asdict(node.status.wallet)

    async def pause(arguments: Mapping[str, Any]) -> Any:
        await node.pause(arguments.get("duration_s"))
        return node.status.sentence

    async def resume(_: Mapping[str, Any]) -> Any:
        await node.resume()
        return node.status.sentence

    async def raise_window(_: Mapping[str, Any]) -> Any:
        if node.on_raise_window is None:
            raise UserError("the running app has no window: it was started with --headless")
        node.on_raise_window()
        return True

    async def stop(_: Mapping[str, Any]) -> Any:
        if node.on_quit is None:
            raise UserError("the running app cannot be stopped from here")
        node.on_quit()
        return True

    return {
        "status": status,
        "jobs": jobs,
        "transactions": transactions,
        "earnings": earnings,
        "checkpoint": checkpoint,
        "reload_key": reload_key,
        "pause": pause,
        "resume": resume,
        "raise_window": raise_window,
        "stop": stop,
    }


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
        "earned": [{"token": amount.token, "amount": str(amount.amount)} for amount in view.earned],
        "note": view.note,
        "updated_at": view.updated_at,
    }


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
