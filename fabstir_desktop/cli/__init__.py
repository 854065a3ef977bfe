"""The command line: what may be asked, and of whom."""

from fabstir_desktop.cli.arguments import Call, parse
from fabstir_desktop.cli.commands import no_display, run_command

__all__ = ["Call", "no_display", "parse", "run_command"]
