"""What a command did, said once over the page."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtWidgets import QFrame, QWidget

from fabstir_desktop.ui.widgets.basics import icon_button, label, row
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import Tone

_NOTICE_MS = 8000
_MARGIN = 20


class Notice(QFrame):
    """Says what a command did, floating over the page so that nothing moves.

    It goes by itself; an error stays until it is dismissed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("notice")
        self._lamp = Lamp()
        self.text = label(wrap=True, selectable=True)
        layout = row(self._lamp, self.text, spacing=10)
        layout.setStretch(1, 1)
        layout.setContentsMargins(14, 6, 8, 6)
        layout.addWidget(icon_button("close", self.tr("Dismiss"), self.hide))
        self.setLayout(layout)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.hide)
        self._under: QWidget | None = None
        self.hide()

    def float_over(self, under: QWidget) -> None:
        """Lie at the lower edge of this widget from now on."""
        self._under = under
        self.setParent(under)
        under.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep the place when what is below changes its size."""
        if watched is self._under and event.type() is QEvent.Type.Resize:
            self._place()
        return super().eventFilter(watched, event)

    def _place(self) -> None:
        if self._under is None:
            return
        width = min(self._under.width() - 2 * _MARGIN, self.fontMetrics().averageCharWidth() * 90)
        height = max(self.heightForWidth(width), self.sizeHint().height())
        room = self._under.rect()
        self.setGeometry((room.width() - width) // 2, room.height() - height - _MARGIN, width, height)

    def say(self, text: str, tone: Tone) -> None:
        """Show a line."""
        self._lamp.show_tone(tone, text)
        self.text.setText(text)
        self.setAccessibleName(text)
        self._place()
        self.show()
        self.raise_()
        self._timer.stop()
        if tone is not Tone.ERROR:
            self._timer.start(_NOTICE_MS)
