"""The front door: arguments, then the tray app, the headless node, or a command."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_CHAIN_PROCESS = "fabstir_desktop.devnet.serve"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run fabstir-desktop; returns the exit code (0 done, 1 failed, 2 cannot start as asked)."""
    if getattr(sys, "frozen", False):
        _be_a_child()
    from fabstir_desktop.errors import FabstirError  # noqa: PLC0415 - a child must not import the application

    try:
        return _run(arguments)
    except FabstirError as error:
        print(f"fabstir-desktop: {error}", file=sys.stderr)  # noqa: T201 - the last word to the person who started it
        return 2


def _be_a_child() -> None:
    """A frozen build starts its model process and the demo's chain through this door: be that, and never return."""
    multiprocessing.freeze_support()
    if sys.argv[1:3] == ["-m", _CHAIN_PROCESS]:
        from fabstir_desktop.devnet.serve import main as serve_chain  # noqa: PLC0415

        sys.exit(serve_chain(sys.argv[3:]))
    from fabstir_desktop.inference.worker import run_if_worker  # noqa: PLC0415

    run_if_worker(sys.argv)


def _run(arguments: Sequence[str] | None) -> int:
    from fabstir_desktop import allocator, cli  # noqa: PLC0415

    call = cli.parse(arguments)
    if call.command is not None:
        return cli.run_command(call)
    allocator.keep_little()
    overrides = _take_key(call.overrides)
    if call.headless or cli.no_display(call):
        from fabstir_desktop.headless import run_headless  # noqa: PLC0415 - imports no Qt

        return _leave(run_headless(overrides, demo=call.demo, once=call.once))
    from fabstir_desktop.app import run_app  # noqa: PLC0415 - Qt only for the tray app

    return _leave(run_app(overrides, demo=call.demo, hidden=call.hidden))


def _leave(code: int) -> int:
    """The node has ended: whatever still hangs in a thread must not keep its process."""
    from fabstir_desktop.tasks import exit_now_if_held_up  # noqa: PLC0415

    exit_now_if_held_up(code)
    return code


def _take_key(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the command line, with the key of the environment, which is taken out of it: what the application
    starts (a browser for a link, the program that keeps the machine awake) must not inherit it."""
    from pydantic import SecretStr  # noqa: PLC0415 - slow to import

    key = os.environ.pop("HOST_PRIVATE_KEY", None)
    return {**overrides, **({"host_private_key": SecretStr(key)} if key else {})}


if __name__ == "__main__":
    sys.exit(main())
