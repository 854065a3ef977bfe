"""A table whose rows have keys: rows are changed, added and removed in place, never reset.

Selection, scroll position and sort order survive, because a view only hears of the cells that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor

Row = TypeVar("Row")

SORT_ROLE = int(Qt.ItemDataRole.UserRole) + 1
ROW_ROLE = int(Qt.ItemDataRole.UserRole) + 2

Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """How a column is titled, written, sorted and spoken. `sort` gives something comparable within the column."""

    title: str
    text: Callable[[Row], str]
    sort: Callable[[Row], Any]
    is_number: bool = False
    tip: Callable[[Row], str] | None = None
    spoken: Callable[[Row], str] | None = None
    colour: Callable[[Row], QColor | None] | None = None


def _alignment(column: Column[Any]) -> int:
    side = Qt.AlignmentFlag.AlignRight if column.is_number else Qt.AlignmentFlag.AlignLeft
    return int(side | Qt.AlignmentFlag.AlignVCenter)


_READERS: dict[int, Callable[[Column[Any], Any], Any]] = {
    int(Qt.ItemDataRole.DisplayRole): lambda column, row: column.text(row),
    int(Qt.ItemDataRole.TextAlignmentRole): lambda column, _: _alignment(column),
    int(Qt.ItemDataRole.ForegroundRole): lambda column, row: column.colour(row) if column.colour else None,
    int(Qt.ItemDataRole.ToolTipRole): lambda column, row: column.tip(row) if column.tip else None,
    int(Qt.ItemDataRole.AccessibleTextRole): lambda column, row: (
        f"{column.title}: {(column.spoken or column.tip or column.text)(row)}"
    ),
    SORT_ROLE: lambda column, row: column.sort(row),
    ROW_ROLE: lambda _, row: row,
}


class KeyedTableModel(QAbstractTableModel, Generic[Row]):
    """Rows of frozen values by key."""

    FIXED_COLUMNS = 0
    """So many columns, the first ones, never change in a row that is there: a view sorted by one of them sorts nothing anew."""

    def __init__(self, columns: Sequence[Column[Row]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._columns = tuple(columns)
        self._keys: list[Any] = []
        self._row_by_key: dict[Any, Row] = {}
        self._place_by_key: dict[Any, int] = {}

    # --- change -------------------------------------------------------------------------------------------------------

    def show(self, rows: Mapping[Any, Row]) -> None:
        """Become these rows: what is gone is removed, what is new is added below, what differs is changed."""
        if any(key not in rows for key in self._keys):
            self._remove_missing(rows)
        self.update(rows)

    def update(self, rows: Mapping[Any, Row]) -> None:
        """Change or add these rows; the others stay."""
        changed = []
        added: dict[Any, Row] = {}
        for key, row in rows.items():
            old = self._row_by_key.get(key)
            if old is None:
                added[key] = row
            elif old is not row and old != row:
                self._row_by_key[key] = row
                changed.append(key)
        self.tell_changed(changed)
        self._append(added)

    def _remove_missing(self, rows: Mapping[Any, Row]) -> None:
        for place in range(len(self._keys) - 1, -1, -1):
            key = self._keys[place]
            if key in rows:
                continue
            self.beginRemoveRows(QModelIndex(), place, place)
            del self._keys[place]
            del self._row_by_key[key]
            self._place_by_key = {kept: number for number, kept in enumerate(self._keys)}
            self.endRemoveRows()

    def _append(self, rows: Mapping[Any, Row]) -> None:
        if not rows:
            return
        first = len(self._keys)
        self.beginInsertRows(QModelIndex(), first, first + len(rows) - 1)
        for key, row in rows.items():
            self._place_by_key[key] = len(self._keys)
            self._keys.append(key)
            self._row_by_key[key] = row
        self.endInsertRows()

    def tell_changed(self, keys: Collection[Any], column: int | None = None) -> None:
        """Say that these rows' texts changed (also where the row itself did not: ages, rates), or only those of a column."""
        first = self.FIXED_COLUMNS if column is None else column
        last = len(self._columns) - 1 if column is None else column
        places = sorted(self._place_by_key[key] for key in keys if key in self._place_by_key)
        start = 0
        for end in range(len(places)):
            if end + 1 < len(places) and places[end + 1] == places[end] + 1:
                continue
            self.dataChanged.emit(self.index(places[start], first), self.index(places[end], last))
            start = end + 1

    # --- read ---------------------------------------------------------------------------------------------------------

    def row(self, key: Any) -> Row | None:
        """The row of this key."""
        return self._row_by_key.get(key)

    def row_at(self, place: int) -> Row:
        """The row at this place of the source model."""
        return self._row_by_key[self._keys[place]]

    def index_of(self, key: Any) -> QModelIndex:
        """The first cell of the key's row; invalid if there is none."""
        place = self._place_by_key.get(key)
        return QModelIndex() if place is None else self.index(place, 0)

    def rowCount(self, parent: Index | None = None) -> int:
        """How many rows there are."""
        return 0 if parent is not None and parent.isValid() else len(self._keys)

    def columnCount(self, parent: Index | None = None) -> int:
        """How many columns there are."""
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A column's title."""
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(self._columns):
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(self._columns[section])
        return self._columns[section].title if role == Qt.ItemDataRole.DisplayRole else None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A cell as text, tool tip, spoken text, colour, or something to sort by."""
        if not index.isValid() or index.row() >= len(self._keys):
            return None
        column, row = self._columns[index.column()], self._row_by_key[self._keys[index.row()]]
        read = _READERS.get(role)
        return read(column, row) if read is not None else None

    def sort_value(self, place: int, column: int) -> Any:
        """What to sort by, without the way through indexes (thousands of comparisons)."""
        return self._columns[column].sort(self._row_by_key[self._keys[place]])
