"""Tokens by hour or day: generated hatched, proven solid, hours without the app as gaps; the same data as a table.

pyqtgraph and numpy are imported when the plot is first shown: the window comes first.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QBrush, QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QSizePolicy,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from fabstir_desktop.jobs.views import EarningsPoint
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.models.keyed_table import Column, KeyedTableModel
from fabstir_desktop.ui.theme import blend, colours, theme
from fabstir_desktop.ui.widgets.basics import label, row, set_text

_DAY_S = 86_400


class EarningsPlot(QWidget):
    """Plot and table of one series."""

    drawn = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._points: tuple[EarningsPoint, ...] = ()
        self._bucket_seconds = 3600
        self._plot: Any = None
        self._chosen: int | None = None
        self.reading = label(self.tr("Hover, or use the arrow keys, to read a bar."), "muted", wrap=True)
        self.legend = label(self.tr("hatched: generated · solid: proven · dotted: app not running"), "muted", wrap=True)
        self.legend.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.model = _PointsModel(self)
        self._stack = QStackedWidget()
        self._place = QWidget()
        self._place_layout = QVBoxLayout(self._place)
        self._place_layout.setContentsMargins(0, 0, 0, 0)
        self._stack.addWidget(self._place)
        self._stack.addWidget(self._make_table())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self._stack, 1)
        below = row(self.reading, self.legend, spacing=24)
        below.setStretch(0, 1)
        below.setStretch(1, 1)
        layout.addLayout(below)
        self.setMinimumHeight(self.fontMetrics().height() * 12)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(self.tr("Plot of tokens generated and proven"))
        theme().changed.connect(self._draw)

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setModel(self.model)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.verticalHeader().hide()
        table.setShowGrid(False)
        table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        table.setAccessibleName(self.tr("Tokens by time, as a table"))
        return table

    # --- data ---------------------------------------------------------------------------------------------------------

    def show_points(self, points: Sequence[EarningsPoint], bucket_seconds: int) -> None:
        """Show this series, oldest first."""
        if tuple(points) == self._points and bucket_seconds == self._bucket_seconds:
            return
        self._points = tuple(points)
        self._bucket_seconds = bucket_seconds
        self.model.bucket_seconds = bucket_seconds
        self.model.show({point.start: point for point in reversed(self._points)})
        self.setAccessibleDescription(self._summary())
        if self._plot is None:
            QTimer.singleShot(0, self, self._draw)
        else:
            self._draw()

    def show_table(self, shown: bool) -> None:
        """Change between plot and table."""
        self._stack.setCurrentIndex(1 if shown else 0)
        self.reading.setVisible(not shown)
        self.legend.setVisible(not shown)

    def as_csv(self) -> str:
        """The series as text: UTC times, exact integers."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["start_utc", "generated", "proven", "earned"])
        for point in self._points:
            start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(point.start))
            earned = "; ".join(f"{amount.amount} {amount.token}" for amount in point.earned)
            unknown = "not running"
            generated = unknown if point.generated is None else point.generated
            writer.writerow([start, generated, unknown if point.proven is None else point.proven, earned])
        return text.getvalue()

    def _summary(self) -> str:
        known = [point for point in self._points if point.generated is not None]
        return self.tr("{generated} tokens generated, {proven} proven, {gaps} intervals without the app").format(
            generated=sum(point.generated or 0 for point in known),
            proven=sum(point.proven or 0 for point in known),
            gaps=len(self._points) - len(known),
        )

    # --- drawing ------------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        if not self._points:
            return
        import pyqtgraph  # noqa: PLC0415 - half a second: the window comes first

        if self._plot is None:
            self._plot = pyqtgraph.PlotWidget()
            self._plot.setMenuEnabled(False)
            self._plot.setMouseEnabled(x=False, y=False)
            self._plot.hideButtons()
            self._plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            self._plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
            self._plot.scene().sigMouseMoved.connect(self._hover)
            self._place_layout.addWidget(self._plot)
        plot, scheme = self._plot, colours()
        plot.clear()
        plot.setBackground(scheme.card)
        self._draw_axes(pyqtgraph)
        self._draw_bars(pyqtgraph)
        self._draw_gaps(pyqtgraph)
        self.drawn.emit()

    def _draw_axes(self, pyqtgraph: Any) -> None:
        scheme = colours()
        item = self._plot.getPlotItem()
        for side in ("left", "bottom"):
            axis = item.getAxis(side)
            axis.setPen(pyqtgraph.mkPen(scheme.line))
            axis.setTextPen(pyqtgraph.mkPen(scheme.muted))
            axis.setStyle(tickFont=self.font())
        item.showGrid(y=True, alpha=0.12)
        step = max(len(self._points) // 8, 1)
        shape = "%H:%M" if self._bucket_seconds < _DAY_S else "%d %b"
        ticks = [
            (place, datetime.fromtimestamp(point.start).strftime(shape))
            for place, point in enumerate(self._points)
            if place % step == 0
        ]
        item.getAxis("bottom").setTicks([ticks])
        highest = max((max(point.generated or 0, point.proven or 0) for point in self._points), default=0)
        self._plot.setXRange(-0.6, len(self._points) - 0.4, padding=0)
        self._plot.setYRange(0, max(highest, 10) * 1.08, padding=0)
        item.getAxis("left").enableAutoSIPrefix(enable=False)

    def _draw_bars(self, pyqtgraph: Any) -> None:
        scheme = colours()
        generated = [(place - 0.2, point.generated) for place, point in enumerate(self._points) if point.generated]
        proven = [(place + 0.2, point.proven) for place, point in enumerate(self._points) if point.proven]
        hatch = QBrush(scheme.second(), Qt.BrushStyle.BDiagPattern)
        outline = pyqtgraph.mkPen(scheme.second(), width=1)
        solid = pyqtgraph.mkPen(scheme.accent)
        for bars, brush, pen in ((generated, hatch, outline), (proven, scheme.accent, solid)):
            if bars:
                places, heights = zip(*bars, strict=True)
                bar = pyqtgraph.BarGraphItem(x=places, height=heights, width=0.36, brush=brush, pen=pen)
                self._plot.addItem(bar)

    def _draw_gaps(self, pyqtgraph: Any) -> None:
        brush = QBrush(blend(colours().muted, colours().card, 0.4), Qt.BrushStyle.Dense6Pattern)
        start: int | None = None
        for place in range(len(self._points) + 1):
            is_gap = place < len(self._points) and self._points[place].generated is None
            if is_gap and start is None:
                start = place
            if not is_gap and start is not None:
                edges = (start - 0.5, place - 0.5)
                pen = pyqtgraph.mkPen(None)
                self._plot.addItem(pyqtgraph.LinearRegionItem(values=edges, brush=brush, pen=pen, movable=False))
                start = None

    def paintEvent(self, event: QPaintEvent) -> None:
        """Show that the arrow keys are heard."""
        super().paintEvent(event)
        if self.hasFocus():
            painter = QPainter(self)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(colours().accent, 2))
            painter.drawRoundedRect(self.rect().adjusted(1, 1, -1, -1), 6, 6)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _hover(self, position: Any) -> None:
        place = round(self._plot.getPlotItem().vb.mapSceneToView(position).x())
        self._read(place)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Read the bars with the arrow keys."""
        step = {int(Qt.Key.Key_Left): -1, int(Qt.Key.Key_Right): 1}.get(event.key())
        if step is None or not self._points:
            super().keyPressEvent(event)
            return
        last = len(self._points) - 1
        self._read(last if self._chosen is None else min(max(self._chosen + step, 0), last))

    def _read(self, place: int) -> None:
        if not 0 <= place < len(self._points):
            return
        self._chosen = place
        set_text(self.reading, self.model.describe(self._points[place]))


class _PointsModel(KeyedTableModel[EarningsPoint]):
    """The series as rows, newest first."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__((), parent)
        self.bucket_seconds = 3600
        self._columns = (
            Column(self.tr("From"), self.when, lambda point: point.start),
            Column(
                self.tr("Generated"),
                lambda point: self.count(point.generated),
                lambda point: point.generated,
                is_number=True,
            ),
            Column(
                self.tr("Proven"), lambda point: self.count(point.proven), lambda point: point.proven, is_number=True
            ),
            Column(
                self.tr("Settled"),
                lambda point: fmt.amounts(point.earned),
                lambda point: point.start,
                is_number=True,
                tip=lambda point: fmt.amounts(point.earned, exact=True),
            ),
        )

    def when(self, point: EarningsPoint) -> str:
        """When the interval begins, in local time."""
        shape = "%d %b %H:%M" if self.bucket_seconds < _DAY_S else "%d %b %Y"
        return datetime.fromtimestamp(point.start).strftime(shape)

    def count(self, number: int | None) -> str:
        """Tokens; None means that the app did not run."""
        return self.tr("not running") if number is None else fmt.count(number)

    def describe(self, point: EarningsPoint) -> str:
        """One line about one bar."""
        if point.generated is None:
            return self.tr("{when}: the app was not running").format(when=self.when(point))
        return self.tr("{when}: {generated} generated, {proven} proven, {earned} settled").format(
            when=self.when(point),
            generated=fmt.count(point.generated),
            proven=fmt.count(point.proven),
            earned=fmt.amounts(point.earned),
        )
