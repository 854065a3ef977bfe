"""Where log lines go: standard error and a rotating file, written by a thread so that a slow disk never stops the loop.

A line is one line, and shows what it holds: control characters, writing directions and everything else without a shape of its
own are escaped. What others can make us write is limited in number.
"""

from __future__ import annotations

import copy
import logging
import queue
import sys
from dataclasses import dataclass
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path

from fabstir_desktop.errors import EnvironmentFault

LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FILE_BYTES = 5_000_000
_FILES_KEPT = 5
_QUEUE_LIMIT = 10_000
_OF_CLIENTS = ("fabstir_desktop.server", "websockets", "asyncio")
"""Whose lines a client can cause, as many as it likes."""
_LINES_PER_S = 50
_PLACES_REMEMBERED = 256


def escaped(text: str) -> str:
    """The text with everything that cannot be seen written out. Lone surrogates too, which no file could take."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\t" else f"\\x{ord(one):02x}" for one in text)


class OneLineFormatter(logging.Formatter):
    """Format a record as one line, a traceback with it: the queue has made it part of the message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Escape what a client could have put into the message."""
        record.message = escaped(record.message)
        return super().formatMessage(record)


@dataclass(slots=True)
class _Place:
    second: int
    lines: int = 0
    left_out: int = 0


class LineRate:
    """At most so many lines a second from each place in the code that clients can make write."""

    def __init__(self, lines_per_s: int = _LINES_PER_S) -> None:
        self._lines_per_s = lines_per_s
        self._places: dict[tuple[str, int], _Place] = {}

    def take(self, record: logging.LogRecord) -> tuple[bool, int]:
        """Whether the record is written, and how many of its kind were left out before it. DEBUG is the host's own wish."""
        if record.levelno < logging.INFO or not record.name.startswith(_OF_CLIENTS):
            return True, 0
        key, second = (record.pathname, record.lineno), int(record.created)
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _PLACES_REMEMBERED:
                self._places.clear()
            place = self._places[key] = _Place(second)
        left_out = 0
        if place.second != second:
            left_out, place.left_out = place.left_out, 0
            place.second, place.lines = second, 0
        place.lines += 1
        if place.lines > self._lines_per_s:
            place.left_out += 1
            return False, 0
        return True, left_out


class _DroppingQueueHandler(QueueHandler):
    """Drop lines rather than block when the writer thread cannot keep up, or when a client causes too many."""

    def __init__(self, records: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(records)
        self._rate = LineRate()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, and before it how many of its kind were not."""
        is_written, left_out = self._rate.take(record)
        if left_out:
            told = copy.copy(record)
            told.msg, told.args, told.exc_info = f"{left_out} lines of the next kind were left out", None, None
            super().emit(told)
        if is_written:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Swallow a full queue; everything else is shown as usual."""
        if not isinstance(sys.exc_info()[1], queue.Full):
            super().handleError(record)


class LogWriter:
    """The running log; `stop` writes out what waits."""

    def __init__(self, listener: QueueListener, handler: QueueHandler) -> None:
        self._listener: QueueListener | None = listener
        self._handler = handler

    def stop(self) -> None:
        """Flush and detach. Safe to call twice."""
        if self._listener is None:
            return
        logging.getLogger().removeHandler(self._handler)
        self._listener.stop()
        for handler in self._listener.handlers:
            handler.close()
        self._listener = None


def start_logging(path: Path, level: str) -> LogWriter:
    """Send every record at `level` and above to standard error and to `path`.

    Raises EnvironmentFault if the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"the log file {path} cannot be written: {error.strerror}") from error
    formatter = OneLineFormatter(LINE_FORMAT)
    handlers: list[logging.Handler] = [file]
    if sys.stderr is not None:  # a windowed start on Windows has none
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(formatter)
    records: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_LIMIT)
    entrance = _DroppingQueueHandler(records)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(entrance)
    logging.getLogger("fabstir_desktop").setLevel(level)
    for noisy in ("websockets", "aiohttp", "web3", "urllib3", "qasync", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener = QueueListener(records, *handlers)
    listener.start()
    return LogWriter(listener, entrance)
