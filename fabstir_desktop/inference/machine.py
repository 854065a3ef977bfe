"""What this machine has for a model: processor cores, and whether a GPU is there at all. Looks at files only."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import psutil

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_TRACES_OF_A_GPU = (
    "/proc/driver/nvidia/version",
    "/dev/nvidia0",
    "/dev/kfd",
    "C:/Windows/System32/nvcuda.dll",
    "C:/Windows/System32/amdhip64.dll",
)


def usable_cores() -> int:
    """Physical cores that this process may use: llama.cpp's threads wait for each other, two on one core gain nothing."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 4
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, min(cores, _quota_cores(_CGROUP_QUOTA) or cores))


def _quota_cores(file: Path) -> int | None:
    """Whole cores of a container's share of processor time; None where it has no limit."""
    try:
        quota, period = file.read_text("ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def machine_has_gpu() -> bool:
    """Whether a GPU that llama.cpp could use with the right build has left its traces here."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return any(Path(trace).exists() for trace in _TRACES_OF_A_GPU)
