"""What the C allocator keeps: knobs that only turn where glibc is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fabstir_desktop import allocator

GROW_AND_FREE = """
import psutil
from fabstir_desktop import allocator
allocator.keep_little()
own = psutil.Process()
blocks = [bytes(700) for _ in range(100_000)]
kept = blocks[::2000]
full = own.memory_info().rss
del blocks
allocator.give_back()
print(full - own.memory_info().rss)
"""


def test_nothing_happens_where_the_knobs_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    allocator._glibc.cache_clear()
    try:
        allocator.keep_little()
        allocator.give_back()
        assert allocator._glibc() is None
    finally:
        allocator._glibc.cache_clear()


@pytest.mark.skipif(allocator._glibc() is None, reason="glibc alone has these knobs")
def test_what_was_freed_between_blocks_that_stay_goes_back_to_the_system() -> None:
    run = subprocess.run([sys.executable, "-c", GROW_AND_FREE], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 40_000_000
