"""The newest log lines in memory, for the Logs page. Records come from any thread; the page takes them at its own pace."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

_LINES_KEPT = 5000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as written, with what it is filtered by."""

    number: int
    level: int
    component: str
    text: str


class LogStore(logging.Handler):
    """Keeps the newest lines; older ones are in the log file."""

    def __init__(self, formatter: logging.Formatter | None = None) -> None:
        super().__init__()
        self.setFormatter(formatter or logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[LogLine] = deque(maxlen=_LINES_KEPT)
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line; never raises (a log line must not stop anything)."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - logging's own rule: report, go on
            self.handleError(record)
            return
        self._count += 1
        component = record.name.removeprefix("fabstir_desktop.").partition(".")[0]
        self._lines.append(LogLine(self._count, record.levelno, component, text))

    def after(self, number: int) -> list[LogLine]:
        """The lines kept that came after line `number`."""
        fresh = []
        for line in reversed(self._lines.copy()):
            if line.number <= number:
                break
            fresh.append(line)
        return fresh[::-1]
