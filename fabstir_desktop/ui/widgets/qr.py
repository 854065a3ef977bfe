"""An address as a QR code: dark on white in every scheme, because cameras want it so."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

_QUIET_MODULES = 2


class QrCode(QWidget):
    """Draws the code of a text."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._text = ""
        self._modules: list[list[int]] = []
        self.setAccessibleName(name)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def show_text(self, text: str) -> None:
        """Show this text's code; empty shows nothing."""
        if text == self._text:
            return
        self._text = text
        self._modules = _encode(text) if text else []
        self.setAccessibleDescription(text)
        self.setVisible(bool(text))
        self.update()

    def sizeHint(self) -> QSize:
        """Large enough for a phone."""
        side = self.fontMetrics().height() * 9
        return QSize(side, side)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002 - Qt's signature
        """Draw whole-pixel modules."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.white)
        if not self._modules:
            return
        module = min(self.width(), self.height()) / (len(self._modules) + 2 * _QUIET_MODULES)
        edges = [round((place + _QUIET_MODULES) * module) for place in range(len(self._modules) + 1)]
        for y, line in enumerate(self._modules):
            for x, is_dark in enumerate(line):
                if is_dark:
                    width, height = edges[x + 1] - edges[x], edges[y + 1] - edges[y]
                    painter.fillRect(edges[x], edges[y], width, height, Qt.GlobalColor.black)


def _encode(text: str) -> list[list[int]]:
    import segno  # noqa: PLC0415 - only where a code is shown

    code: Any = segno.make(text, error="m", micro=False)
    return [list(line) for line in code.matrix]
