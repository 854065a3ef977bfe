"""First steps: a walk over the pages' own parts, leavable anywhere, ended by a self-test. One file a step."""

from __future__ import annotations

from fabstir_desktop.ui.wizard.wizard import Wizard, needs_first_steps

__all__ = ["Wizard", "needs_first_steps"]
