"""How much memory the C allocator keeps for itself. Only glibc has these knobs; elsewhere nothing happens.

glibc gives each thread an arena of its own, keeps in each what was freed, and lets large blocks into them once one was
freed: after imports and some sessions a third of such a process is memory that nobody uses.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
_LARGE_BYTES = 1024 * 1024
"""Blocks from this size on are the system's, and go back to it when they are freed; smaller ones are used again."""


def keep_little() -> None:
    """Use few arenas, and give large blocks back at once. To be called before threads are started."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Give what is free back to the system. Takes some milliseconds, in which other threads may wait for memory."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
