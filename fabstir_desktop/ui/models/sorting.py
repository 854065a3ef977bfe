"""Sort and filter by values, so that job ids beyond 2^63 and amounts of any size keep their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel

from fabstir_desktop.ui.models.keyed_table import KeyedTableModel


class ValueSortProxy(QSortFilterProxyModel):
    """Compare by the sort role in Python (a QVariant would cut integers), unknown below everything known."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._accepts: Callable[[Any], bool] = lambda _: True
        self.setDynamicSortFilter(True)

    def choose(self, accepts: Callable[[Any], bool]) -> None:
        """Show only rows that `accepts` says yes to."""
        self._accepts = accepts
        self.invalidateRowsFilter()

    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex | QPersistentModelIndex) -> bool:  # noqa: ARG002
        """Ask the chosen filter."""
        return self._accepts(cast("KeyedTableModel[Any]", self.sourceModel()).row_at(source_row))

    def lessThan(self, left: QModelIndex | QPersistentModelIndex, right: QModelIndex | QPersistentModelIndex) -> bool:
        """Order two cells of one column."""
        model = cast("KeyedTableModel[Any]", self.sourceModel())
        first = model.sort_value(left.row(), left.column())
        second = model.sort_value(right.row(), right.column())
        if first is None or second is None:
            return first is None and second is not None
        return bool(first < second)
