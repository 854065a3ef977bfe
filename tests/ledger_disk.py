"""A disk with faults, as a file system layer of SQLite: full, broken, tearing writes, or losing what was not synced."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import apsw

_numbers = itertools.count()


@dataclass(slots=True)
class Content:
    """What of a file is surely on the medium, and what was written since."""

    synced: bytes
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)

    def after_power_loss(self, chance: random.Random) -> bytes:
        """The synced content with a random part of the later writes, some of them torn."""
        content = bytearray(self.synced)
        for offset, data in self.unsynced:
            lot = chance.random()
            if lot < 0.4:
                continue
            piece = data[: chance.randrange(len(data) + 1)] if lot < 0.5 else data
            if not data and offset < len(content):
                del content[offset:]
            content.extend(bytes(max(0, offset + len(piece) - len(content))))
            content[offset : offset + len(piece)] = piece
        return bytes(content)


class FaultyDisk(apsw.VFS):
    """The real disk until operation `at` (writes, syncs and truncations count); from there on what `kind` says.

    `full` and `error` fail without an effect, `torn` writes half and fails, `unsynced` fails syncs alone; each once, or
    until `heal` if `lasting`. `crash` tears a write and refuses everything after it, as if the machine had stopped.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{next(_numbers)}"
        super().__init__(self.name, "")
        self.operations = 0
        self.kind = ""
        self.at = 0
        self.lasting = False
        self.hits = 0
        self.contents: dict[str, Content] = {}

    def arm(self, kind: str, at: int, *, lasting: bool) -> None:
        """From now on, fail at the operation `at`."""
        self.operations, self.hits = 0, 0
        self.kind, self.at, self.lasting = kind, at, lasting

    def heal(self) -> None:
        """No faults from now on."""
        self.kind = ""

    def fault(self, operation: str) -> str:
        """Count the operation; the kind of fault that it meets, or nothing."""
        self.operations += 1
        if not self.kind or self.operations < self.at or (self.kind == "unsynced" and operation != "sync"):
            return ""
        self.hits += 1
        kind = self.kind
        if not self.lasting and kind != "crash":
            self.kind = ""
        return kind

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        text = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        if text not in self.contents or not Path(text).exists():
            self.contents[text] = Content(Path(text).read_bytes() if Path(text).exists() else b"")
        return FaultyFile(self, name, flags, Path(text))

    def excepthook(self, *_error: object) -> None:
        """An injected fault that SQLite has no way to report is no surprise."""

    def image_after_power_loss(self, folder: Path, chance: random.Random) -> None:
        """Write to `folder` what the medium holds: all that was synced, and any part of what was not."""
        for name, content in self.contents.items():
            if Path(name).exists():
                (folder / Path(name).name).write_bytes(content.after_power_loss(chance))


class FaultyFile(apsw.VFSFile):
    """One opened file of the faulty disk."""

    def __init__(self, disk: FaultyDisk, name: object, flags: list[int], path: Path) -> None:
        self.disk = disk
        self.path = path
        self.content = disk.contents[str(path)]
        super().__init__("", name, flags)

    def excepthook(self, *_error: object) -> None:
        """An injected fault that SQLite has no way to report is no surprise."""

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        kind = self.disk.fault("write")
        if kind in ("torn", "crash") and self.disk.hits == 1:
            half = data[: len(data) // 2]
            self.content.unsynced.append((offset, half))
            super().xWrite(half, offset)
        if kind:
            raise apsw.FullError("full") if kind == "full" else apsw.IOError(kind)
        self.content.unsynced.append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self.disk.fault("sync"):
            raise apsw.IOError("sync")
        # The machine's own disk is not synced: nothing here asks for more than a killed process, and it takes long.
        self.content.synced = self.path.read_bytes()
        self.content.unsynced.clear()

    def xTruncate(self, size: int) -> None:  # noqa: N802
        if kind := self.disk.fault("truncate"):
            raise apsw.FullError("full") if kind == "full" else apsw.IOError(kind)
        super().xTruncate(size)
        self.content.unsynced.append((size, b""))
