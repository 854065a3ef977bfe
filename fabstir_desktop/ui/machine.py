"""What this computer has to serve with: processor, memory, disk."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
from PySide6.QtCore import QCoreApplication

from fabstir_desktop.ui import format as fmt

translate = QCoreApplication.translate

_MEMORY_BYTES = 4_000_000_000
_DISK_BYTES = 2_000_000_000
_CORES = 2


@dataclass(frozen=True, slots=True)
class MachineFact:
    """A sentence, and whether it is enough for a small model."""

    is_enough: bool
    text: str


async def look_at_machine(data_dir: Path) -> list[MachineFact]:
    """Look at processor, memory and disk, off the loop."""
    return await asyncio.to_thread(_look, data_dir)


def _look(data_dir: Path) -> list[MachineFact]:
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    memory = psutil.virtual_memory()
    facts = [
        MachineFact(cores >= _CORES, translate("machine", "{cores} processor cores").format(cores=cores)),
        MachineFact(
            memory.available >= _MEMORY_BYTES,
            translate(
                "machine", "{free} of {all} memory free; a model needs a little more than its file's size"
            ).format(free=fmt.size(memory.available), all=fmt.size(memory.total)),
        ),
    ]
    try:
        free = shutil.disk_usage(data_dir).free
    except OSError:
        text = translate("machine", "The disk of {folder} cannot be looked at").format(folder=data_dir)
        return [*facts, MachineFact(is_enough=False, text=text)]
    text = translate("machine", "{free} free on the disk of {folder}").format(free=fmt.size(free), folder=data_dir)
    return [*facts, MachineFact(free >= _DISK_BYTES, text)]
