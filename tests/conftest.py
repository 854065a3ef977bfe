"""Settings of the whole suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")


from secrets_support import SecretHunt


def pytest_configure(config: pytest.Config) -> None:
    """The last step of every run: nothing that was written may hold a secret."""
    config.pluginmanager.register(SecretHunt(config), "secret-hunt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long form of the hunts")
    parser.addoption("--seed", type=int, default=None, help="play a hunt again with the seed that it printed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long forms are a choice, not a missing part: they are left out, not skipped."""
    if not config.getoption("--long"):
        chosen = [item for item in items if "long" not in item.keywords]
        config.hook.pytest_deselected(items=[item for item in items if "long" in item.keywords])
        items[:] = chosen
