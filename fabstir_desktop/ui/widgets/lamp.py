"""A state as a shape: disc, half disc, ring, triangle, cross. Colour only helps."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from fabstir_desktop.ui.theme import colours, theme
from fabstir_desktop.ui.words import Tone


class Lamp(QWidget):
    """Draws a tone's shape; the word stands beside it."""

    def __init__(self, tone: Tone = Tone.QUIET, scale: float = 1.0) -> None:
        super().__init__()
        self._tone = tone
        self._scale = scale
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme().changed.connect(self.update)

    def show_tone(self, tone: Tone, spoken: str = "") -> None:
        """Become this shape; `spoken` is what a screen reader says."""
        if spoken != self.accessibleName():
            self.setAccessibleName(spoken)
        if tone is not self._tone:
            self._tone = tone
            self.update()

    @property
    def tone(self) -> Tone:
        """The shape shown."""
        return self._tone

    def sizeHint(self) -> QSize:
        """As high as the text beside it."""
        side = round(self.fontMetrics().height() * self._scale)
        return QSize(side, side)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002 - Qt's signature
        """Draw the shape."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        scheme = colours()
        colour = scheme.tones[self._tone]
        side = min(self.width(), self.height())
        box = QRectF(0, 0, side, side).adjusted(side * 0.12, side * 0.12, -side * 0.12, -side * 0.12)
        pen = QPen(colour, side * 0.12, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin)
        painter.setPen(pen)
        if self._tone in {Tone.OK, Tone.ERROR, Tone.WARNING}:
            painter.setBrush(colour)
        {
            Tone.OK: self._tick,
            Tone.BUSY: self._half,
            Tone.QUIET: self._ring,
            Tone.WARNING: self._triangle,
            Tone.ERROR: self._cross,
        }[self._tone](painter, box)

    def _tick(self, painter: QPainter, box: QRectF) -> None:
        painter.drawEllipse(box)
        self._mark(painter, box)
        x, y, s = box.x(), box.y(), box.width()
        painter.drawPolyline(
            QPolygonF(
                [
                    QPointF(x + s * 0.27, y + s * 0.52),
                    QPointF(x + s * 0.44, y + s * 0.69),
                    QPointF(x + s * 0.74, y + s * 0.33),
                ]
            )
        )

    def _half(self, painter: QPainter, box: QRectF) -> None:
        painter.drawEllipse(box)
        painter.setBrush(colours().tones[self._tone])
        painter.drawChord(box, 90 * 16, -180 * 16)

    def _ring(self, painter: QPainter, box: QRectF) -> None:
        painter.drawEllipse(box)

    def _triangle(self, painter: QPainter, box: QRectF) -> None:
        painter.drawPolygon(QPolygonF([QPointF(box.center().x(), box.top()), box.bottomRight(), box.bottomLeft()]))
        self._mark(painter, box)
        middle, s = box.center().x(), box.height()
        painter.drawLine(QPointF(middle, box.y() + s * 0.4), QPointF(middle, box.y() + s * 0.64))
        painter.drawPoint(QPointF(middle, box.y() + s * 0.86))

    def _cross(self, painter: QPainter, box: QRectF) -> None:
        painter.drawEllipse(box)
        self._mark(painter, box)
        x, y, s = box.x(), box.y(), box.width()
        painter.drawLine(QPointF(x + s * 0.33, y + s * 0.33), QPointF(x + s * 0.67, y + s * 0.67))
        painter.drawLine(QPointF(x + s * 0.67, y + s * 0.33), QPointF(x + s * 0.33, y + s * 0.67))

    def _mark(self, painter: QPainter, box: QRectF) -> None:
        painter.setPen(
            QPen(
                colours().card,
                box.width() * 0.13,
                Qt.PenStyle.SolidLine,
                Qt.PenCapStyle.RoundCap,
                Qt.PenJoinStyle.RoundJoin,
            )
        )
        painter.setBrush(Qt.BrushStyle.NoBrush)
