"""What all pages share: the bridge, and a way to other pages."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from fabstir_desktop.ui.bridge import Bridge
from fabstir_desktop.ui.widgets.basics import label, scroll_page
from fabstir_desktop.ui.widgets.flow import flow

PAGES = ("dashboard", "jobs", "transactions", "models", "wallet", "logs", "settings")


class Page(QWidget):
    """A page of the window. `pageRequested` asks for another (a name of PAGES, and what to show there)."""

    pageRequested = Signal(str, str)

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def open_with(self, wanted: str) -> None:
        """Show what another page asked for (a filter, a job); nothing by default."""

    def lay_out(self, heading: str, *tools: QWidget) -> QVBoxLayout:
        """Give the page its heading and the tools right of it, or below; returns the layout for the rest."""
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        content = QWidget()
        content.setObjectName("page")
        layout = QVBoxLayout(content)
        layout.setContentsMargins(24, 18, 24, 20)
        layout.setSpacing(14)
        layout.addLayout(flow(label(heading, "heading"), None, *tools))
        area = scroll_page(content)
        area.setAccessibleName(heading)
        outer.addWidget(area)
        return layout
