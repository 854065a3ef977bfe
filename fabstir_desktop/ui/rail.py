"""The rail: a picture and a word for each page; in a narrow window the pictures alone."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QButtonGroup, QFrame, QScrollArea, QSizePolicy, QToolButton, QVBoxLayout

from fabstir_desktop.ui import icons
from fabstir_desktop.ui.pages.page import PAGES
from fabstir_desktop.ui.theme import theme

_WORD_CHARACTERS = 23


class Rail(QScrollArea):
    """The way between pages. It scrolls where the window is lower than its buttons."""

    pageRequested = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setAccessibleName(self.tr("Pages"))
        self._frame = QFrame()
        self._frame.setObjectName("rail")
        self._layout = QVBoxLayout(self._frame)
        self._group = QButtonGroup(self)
        self.button_by_page: dict[str, QToolButton] = {}
        titles = self._titles()
        for place, name in enumerate(PAGES, start=1):
            made = self._make_button(name, titles[name], place)
            self._group.addButton(made)
            self.button_by_page[name] = made
            self._layout.addWidget(made)
        self._layout.addStretch(1)
        self.setWidget(self._frame)
        self._frame.installEventFilter(self)
        self.show_narrow(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """In a low window the buttons stand closer."""
        super().resizeEvent(event)
        self._fit()

    def _titles(self) -> dict[str, str]:
        return {
            "dashboard": self.tr("Dashboard"),
            "jobs": self.tr("Jobs"),
            "transactions": self.tr("Transactions"),
            "models": self.tr("Models"),
            "wallet": self.tr("Wallet"),
            "logs": self.tr("Logs"),
            "settings": self.tr("Settings"),
        }

    def _make_button(self, name: str, title: str, place: int) -> QToolButton:
        made = QToolButton()
        made.setProperty("rail", True)
        made.setText("  " + title)
        made.setCheckable(True)
        made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        side = round(made.fontMetrics().height() * 1.25)
        made.setIconSize(QSize(side, side))
        made.setAccessibleName(title)
        made.setToolTip(f"{title} (Ctrl+{place})")
        made.clicked.connect(lambda _checked=False, name=name: self.pageRequested.emit(name))

        def paint() -> None:
            made.setIcon(icons.icon(name, theme().colours.accent if made.isChecked() else theme().colours.muted))

        made.toggled.connect(lambda _: paint())
        theme().paint_with(made, paint)
        return made

    def show_narrow(self, is_narrow: bool) -> None:
        """Show pictures alone, or words beside them."""
        style = Qt.ToolButtonStyle
        for made in self.button_by_page.values():
            made.setToolButtonStyle(style.ToolButtonIconOnly if is_narrow else style.ToolButtonTextBesideIcon)
            made.setMinimumWidth(0 if is_narrow else made.fontMetrics().averageCharWidth() * _WORD_CHARACTERS)
        self._fit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Be as wide as the buttons, whatever their font and style, and the scroll bar if there is one."""
        if watched is self._frame and event.type() in {QEvent.Type.LayoutRequest, QEvent.Type.Resize}:
            self._fit()
        return super().eventFilter(watched, event)

    def _fit(self) -> None:
        needed = sum(made.sizeHint().height() + 4 for made in self.button_by_page.values()) + 24
        above, between = (4, 0) if self.height() < needed else (14, 4)
        now = self._layout.contentsMargins().top(), self._layout.spacing()
        if now != (above, between):  # Qt lays out anew whatever is set, and that leads back to here
            self._layout.setContentsMargins(10, above, 10, above)
            self._layout.setSpacing(between)
        bar = self.verticalScrollBar()
        is_low = self.isVisible() and self._frame.minimumSizeHint().height() > self.height()
        width = self._frame.minimumSizeHint().width() + (bar.sizeHint().width() if is_low else 0)
        if self.minimumWidth() != width:
            self.setFixedWidth(width)
