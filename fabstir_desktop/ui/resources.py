"""Where pictures and translations lie: beside the sources, or inside the installed package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def resource_dir() -> Path:
    """The folder `resources`. Raises FileNotFoundError if the installation is incomplete."""
    for folder in (_PACKAGE / "_resources", _PACKAGE.parent / "resources"):
        if (folder / "icons").is_dir():
            return folder
    raise FileNotFoundError("the folder resources/icons is missing from this installation")
