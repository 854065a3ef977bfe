"""The front door: arguments, then the tray app, the headless node, or a command."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run fabstir-desktop; returns the exit code (0 done, 1 failed, 2 cannot start as asked)."""
    multiprocessing.freeze_support()  # a frozen build starts its model process through this door
    from fabstir_desktop import cli  # noqa: PLC0415 - after freeze_support: a child must not import the application
    from fabstir_desktop.errors import FabstirError  # noqa: PLC0415

    call = cli.parse(arguments)
    try:
        return _dispatch(call)
    except FabstirError as error:
        print(f"fabstir-desktop: {error}", file=sys.stderr)  # noqa: T201 - the last word to the person who started it
        return 2


def _dispatch(call: "cli.Call") -> int:  # noqa: F821, UP037
    from fabstir_desktop import cli  # noqa: PLC0415

    if call.command is not None:
        return cli.run_command(call)
    if call.headless or cli.no_display(call):
        from fabstir_desktop.headless import run_headless  # noqa: PLC0415 - imports no Qt

        return run_headless(call.overrides, demo=call.demo, once=call.once)
    from fabstir_desktop.app import run_app  # noqa: PLC0415 - Qt only for the tray app

    return run_app(call.overrides, demo=call.demo, hidden=call.hidden)


if __name__ == "__main__":
    sys.exit(main())
