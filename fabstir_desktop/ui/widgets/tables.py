"""A table view as all pages want it: quiet, sortable, selecting rows, keeping what the user arranged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QEvent, QModelIndex, QObject, QSortFilterProxyModel, Qt
from PySide6.QtGui import QFont, QFontMetrics
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from fabstir_desktop.ui.models.keyed_table import ROW_ROLE

_TITLE_PADDING = 36


def make_table(proxy: QSortFilterProxyModel, name: str, widths: Sequence[int], *, stretch: int) -> QTableView:
    """A table over `proxy`; `widths` are in characters, so that nothing moves while numbers change."""
    table = QTableView()
    table.setModel(proxy)
    table.setAccessibleName(name)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setSortingEnabled(True)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setTabKeyNavigation(False)
    table.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
    table.verticalHeader().hide()
    table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    table.verticalHeader().setDefaultSectionSize(round(table.fontMetrics().height() * 2.2))
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    header.setSectionsMovable(True)
    character = table.fontMetrics().horizontalAdvance("0")
    for place, width in enumerate(widths):
        table.setColumnWidth(place, max(width * character + 24, title_width(header, place)))
    table.installEventFilter(_RoomForTitles(table))
    header.setSectionResizeMode(stretch, QHeaderView.ResizeMode.Stretch)
    header.setMinimumSectionSize(character * 5)
    return table


def title_width(header: QHeaderView, place: int) -> int:
    """What a column's title needs: in the weight it is drawn with, between the paddings, beside the sort arrow."""
    font = header.font()
    font.setWeight(QFont.Weight.DemiBold)
    title = str(header.model().headerData(place, Qt.Orientation.Horizontal))
    return QFontMetrics(font).horizontalAdvance(title) + _TITLE_PADDING


class _RoomForTitles(QObject):
    """Widens columns whose title would be cut: the final font is known only when the table is shown."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Look when the table is shown or its style changes."""
        if event.type() in {QEvent.Type.Show, QEvent.Type.StyleChange, QEvent.Type.FontChange} and isinstance(
            watched, QTableView
        ):
            header = watched.horizontalHeader()
            header.ensurePolished()
            for place in range(header.count()):
                needed = title_width(header, place)
                if header.sectionSize(place) < needed:
                    header.resizeSection(place, needed)
        return False


def chosen_row(table: QTableView) -> Any:
    """The selected row's value; None if nothing is selected."""
    rows = table.selectionModel().selectedRows()
    return rows[0].data(ROW_ROLE) if rows else None


def choose_row(table: QTableView, source_index: QModelIndex) -> None:
    """Select the row of this cell of the source model and scroll to it."""
    proxy = table.model()
    if isinstance(proxy, QSortFilterProxyModel) and source_index.isValid():
        index = proxy.mapFromSource(source_index)
        table.selectRow(index.row())
        table.scrollTo(index)


def sort_newest_first(table: QTableView, column: int) -> None:
    """Begin with the newest on top."""
    table.sortByColumn(column, Qt.SortOrder.DescendingOrder)
