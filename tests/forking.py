"""Processes made to be killed, forked from one that has imported everything already: a life begins in a tenth of a second."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

PRELOADED = ("ledger_child", "settlement_child", "forked_product")
"""What the children of the whole run need: there is one process that forks, and it starts once."""


@functools.cache
def forking_context() -> Any:
    """Where such processes come from; where nothing can be forked each imports for itself."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    from multiprocessing import forkserver  # not where nothing can be forked

    before = os.environ.get("PYTHONPATH")
    paths = [str(Path(__file__).parent), before]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # the one that forks reads no other path
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context
