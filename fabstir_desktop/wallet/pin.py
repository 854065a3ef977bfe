"""Which key this profile works with, as its address and place: another key in the same place is said, never used silently.

The pin is written when a key is first in force and when a person stores or accepts another. It holds no secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.wallet.keystore import write_private

log = logging.getLogger(__name__)

PIN_FILE = "wallet.json"


@dataclass(frozen=True, slots=True)
class Pin:
    """The address that signs, and what people call the place its key is kept in."""

    address: str
    place: str


class PinStore:
    """The pin of one profile, in its data directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Pin | None:
        """The pin; None before the first key, and for a file that cannot be read (which is logged)."""
        return await asyncio.to_thread(self._read)

    async def write(self, pin: Pin | None) -> None:
        """Pin this key from now on; None: whichever comes next. Raises EnvironmentFault."""
        await asyncio.to_thread(self._write, pin)

    def _read(self) -> Pin | None:
        try:
            found = json.loads(self._path.read_bytes())
            return Pin(str(found["address"]), str(found["place"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("%s cannot be read; the next key found is taken for this profile's", self._path)
            return None

    def _write(self, pin: Pin | None) -> None:
        if pin is not None:
            write_private(self._path, json.dumps(asdict(pin)).encode())
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{self._path} cannot be removed: {error.strerror}") from None
