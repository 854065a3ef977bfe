"""Where log lines go: standard error and a rotating file, written by a thread so that a slow disk never stops the loop.

A line is one line: control characters (and with them forged lines) are escaped.
"""

from __future__ import annotations

import logging
import queue
import sys
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path

from fabstir_desktop.errors import EnvironmentFault

LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FILE_BYTES = 5_000_000
_FILES_KEPT = 5
_QUEUE_LIMIT = 10_000
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029) if code != ord("\t")}


class OneLineFormatter(logging.Formatter):
    """Format a record as one line per logged line; only tracebacks of our own keep their line breaks."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Escape what a client could have put into the message."""
        record.message = record.message.translate(_ESCAPES)
        return super().formatMessage(record)


class _DroppingQueueHandler(QueueHandler):
    """Drop lines rather than block when the writer thread cannot keep up."""

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
