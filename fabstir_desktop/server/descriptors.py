"""How many sockets there may be: each is an open file, and ledger, chain and model need some of these too."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

KEPT_DESCRIPTORS: Final = 128
"""Never for sockets of clients: the ledger's files, connections to the chain, a new model process, and sockets that are accepted
in one turn of the loop and refused in the next."""
_ASSUMED_OPEN: Final = 128
_FOLDERS: Final = ("/proc/self/fd", "/dev/fd")


def raise_descriptor_limit(wanted: int) -> None:
    """Allow so many open files, or as many as the system's hard limit does."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def open_descriptors() -> int:
    """How many files this process has open."""
    for folder in _FOLDERS:
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))
    return _ASSUMED_OPEN


def room_for_sockets(wanted: int) -> int:
    """How many sockets of clients there is room for, at most `wanted`; asks the system for that many."""
    taken = open_descriptors() + KEPT_DESCRIPTORS
    raise_descriptor_limit(wanted + taken)
    if sys.platform == "win32":
        return wanted
    import resource  # noqa: PLC0415 - not on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - taken))
