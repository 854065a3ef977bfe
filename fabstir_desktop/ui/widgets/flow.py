"""Layouts that wrap: what does not fit beside the rest goes below it, so that a narrow window cuts nothing off."""

from __future__ import annotations

from PySide6.QtCore import QMargins, QRect, QSize, Qt
from PySide6.QtWidgets import QLabel, QLayout, QLayoutItem, QSizePolicy, QSpacerItem, QWidget

from fabstir_desktop.ui.widgets.basics import row


class WrappingLayout(QLayout):
    """Keeps items and asks for as much height as its lines need at a width; where they go is the children's matter."""

    def __init__(self, spacing: int) -> None:
        super().__init__()
        self._items: list[QLayoutItem] = []
        self.setContentsMargins(0, 0, 0, 0)
        self.setSpacing(spacing)

    def addItem(self, item: QLayoutItem) -> None:
        """Take an item; Qt calls this for widgets too."""
        self._items.append(item)

    def count(self) -> int:
        """How many items there are."""
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        """The item at a place."""
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        """Give an item away."""
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def expandingDirections(self) -> Qt.Orientation:
        """It takes the width it is given."""
        return Qt.Orientation.Horizontal

    def hasHeightForWidth(self) -> bool:
        """Narrower is higher."""
        return True

    def heightForWidth(self, width: int) -> int:
        """The height of all lines at this width."""
        return self.place(QRect(0, 0, width, 0), is_real=False)

    def setGeometry(self, rect: QRect) -> None:
        """Put the items into the lines."""
        super().setGeometry(rect)
        self.place(rect, is_real=True)

    def minimumSize(self) -> QSize:
        """The widest single item: everything else can wrap."""
        shown = [item for item in self._items if not item.isEmpty()]
        width = max((item.minimumSize().width() for item in shown), default=0)
        height = max((item.minimumSize().height() for item in shown), default=0)
        return _grown(QSize(width, height), self.contentsMargins())

    def place(self, rect: QRect, *, is_real: bool) -> int:
        """Put the items into `rect`, or only say how high they would stand in it."""
        raise NotImplementedError


class Flow(WrappingLayout):
    """Items in a line and further lines; a spring pushes what follows it to the right, as long as it is on its line.

    What may grow (a search field) takes what is left of its line.
    """

    def sizeHint(self) -> QSize:
        """All in one line."""
        hints = [item.sizeHint() for item in self._items if not item.isEmpty()]
        width = sum(hint.width() for hint in hints) + self.spacing() * max(len(hints) - 1, 0)
        height = max((hint.height() for hint in hints), default=0)
        return _grown(QSize(width, height), self.contentsMargins())

    def add_spring(self) -> None:
        """What follows stands at the right."""
        self.addItem(QSpacerItem(0, 0, QSizePolicy.Policy.Expanding))

    def place(self, rect: QRect, *, is_real: bool) -> int:
        """Fill line after line."""
        margins = self.contentsMargins()
        inner = rect.marginsRemoved(margins)
        top = inner.top()
        for line in self._lines(inner.width()):
            top += self._place_line(line, QRect(inner.left(), top, inner.width(), 0), is_real=is_real)
            top += self.spacing()
        return max(top - self.spacing(), inner.top()) - rect.top() + margins.bottom()

    def _lines(self, width: int) -> list[list[QLayoutItem]]:
        lines: list[list[QLayoutItem]] = [[]]
        used = 0
        for item in self._items:
            if item.spacerItem() is not None:
                lines[-1].append(item)
                continue
            if item.isEmpty():
                continue
            wanted = min(_width_of(item), width)
            if used and used + self.spacing() + wanted > width:
                lines.append([])
                used = 0
            used += wanted + (self.spacing() if used else 0)
            lines[-1].append(item)
        return [line for line in lines if any(item.spacerItem() is None for item in line)]

    def _place_line(self, line: list[QLayoutItem], rect: QRect, *, is_real: bool) -> int:
        shown = [item for item in line if item.spacerItem() is None]
        widths = {id(item): min(_width_of(item), rect.width()) for item in shown}
        rest = rect.width() - sum(widths.values()) - self.spacing() * (len(shown) - 1)
        growing = [item for item in shown if item.expandingDirections() & Qt.Orientation.Horizontal]
        for item in growing:
            widths[id(item)] = min(widths[id(item)] + rest // len(growing), item.maximumSize().width())
        height = max(_height_at(item, widths[id(item)]) for item in shown)
        left = rect.left()
        for item in line if is_real else ():
            if item.spacerItem() is not None:
                left += 0 if growing or item is line[0] else rest
                rest = 0
                continue
            own = _height_at(item, widths[id(item)])
            item.setGeometry(QRect(left, rect.top() + (height - own) // 2, widths[id(item)], own))
            left += widths[id(item)] + self.spacing()
        return height


class Tiles(WrappingLayout):
    """Items of one width side by side; as many in a line as have room for `least` each. A last line shares its width."""

    def __init__(self, spacing: int, least: int) -> None:
        super().__init__(spacing)
        self._least = least

    def sizeHint(self) -> QSize:
        """All in one line."""
        shown = self._shown()
        width = max((max(item.sizeHint().width(), self._least) for item in shown), default=0)
        height = max((item.sizeHint().height() for item in shown), default=0)
        return QSize(width * len(shown) + self.spacing() * max(len(shown) - 1, 0), height)

    def place(self, rect: QRect, *, is_real: bool) -> int:
        """Fill lines with as many as have room."""
        shown, top = self._shown(), rect.top()
        columns = self._columns(shown, rect.width())
        for start in range(0, len(shown), columns):
            line = shown[start : start + columns]
            width = (rect.width() - self.spacing() * (len(line) - 1)) // len(line)
            height = max(_height_at(item, width) for item in line)
            for place, item in enumerate(line if is_real else ()):
                item.setGeometry(QRect(rect.left() + place * (width + self.spacing()), top, width, height))
            top += height + self.spacing()
        return max(top - self.spacing(), rect.top()) - rect.top()

    def _columns(self, shown: list[QLayoutItem], width: int) -> int:
        """As many as fit, spread over the lines so that none stands alone without need."""
        least = max((max(item.minimumSize().width(), self._least) for item in shown), default=1)
        most = max(min((width + self.spacing()) // (least + self.spacing()), len(shown)), 1)
        lines = -(-len(shown) // most) or 1
        return -(-len(shown) // lines) or 1

    def _shown(self) -> list[QLayoutItem]:
        return [item for item in self._items if not item.isEmpty()]


def flow(*items: QWidget | None, spacing: int = 8) -> Flow:
    """Lay widgets side by side as long as they fit; None pushes the rest to the right."""
    made = Flow(spacing)
    for item in items:
        made.add_spring() if item is None else made.addWidget(item)
    return made


def together(*items: QWidget, spacing: int = 8) -> QWidget:
    """Widgets that are not parted when their line wraps: a word and its field."""
    made = QWidget()
    made.setLayout(row(*items, spacing=spacing))
    return made


def tiles(*items: QWidget, spacing: int, least: int) -> Tiles:
    """Lay widgets of one width side by side, as many in a line as have `least` pixels each."""
    made = Tiles(spacing, least)
    for item in items:
        made.addWidget(item)
    return made


def _width_of(item: QLayoutItem) -> int:
    """What the item would like; a text that wraps would like one line, whatever its hint says."""
    widget = item.widget()
    if isinstance(widget, QLabel) and widget.wordWrap():
        return max(widget.fontMetrics().horizontalAdvance(widget.text()) + 4, item.minimumSize().width())
    return item.sizeHint().width()


def _height_at(item: QLayoutItem, width: int) -> int:
    if item.hasHeightForWidth():
        return item.heightForWidth(width)
    return max(min(item.sizeHint().height(), item.maximumSize().height()), item.minimumSize().height())


def _grown(size: QSize, margins: QMargins) -> QSize:
    return size.grownBy(margins)
