"""Cards, labels, badges and buttons: small builders, so that every page looks alike."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QGuiApplication, QKeyEvent, QMouseEvent, QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from fabstir_desktop.ui import icons
from fabstir_desktop.ui.theme import theme
from fabstir_desktop.ui.words import Tone


def label(text: str = "", role: str = "", *, wrap: bool = False, selectable: bool = False) -> QLabel:
    """A label in one of the style sheet's roles (heading, title, hero, number, caption, muted, mono)."""
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    if role:
        made.setProperty("role", role)
    made.setWordWrap(wrap)
    if selectable:
        made.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
    return made


def set_text(widget: QLabel, text: str) -> None:
    """Write the text only if it changed: no needless repaint."""
    if widget.text() != text:
        widget.setText(text)


def set_tone(widget: QWidget, tone: Tone, prop: str = "tone") -> None:
    """Give a widget a tone's colours."""
    if widget.property(prop) == tone.value:
        return
    widget.setProperty(prop, tone.value)
    widget.style().unpolish(widget)
    widget.style().polish(widget)


def hold_width(widget: QLabel, sample: str) -> None:
    """Keep room for `sample`, so that nothing beside the label moves while its number grows."""
    widget.ensurePolished()
    widget.setMinimumWidth(widget.fontMetrics().horizontalAdvance(sample))


def button(
    text: str, on_click: Callable[[], object] | None = None, *, kind: str = "plain", icon: str = ""
) -> QPushButton:
    """A push button: `primary`, `plain` or `danger`."""
    made = QPushButton(f" {text}" if icon else text)
    made.setAccessibleName(text)
    made.setProperty("plain" if kind == "danger" else kind, True)
    if kind == "danger":
        made.setProperty("danger", True)
    if icon:
        tinted(made, icon, on_accent=kind == "primary")
    if on_click is not None:
        made.clicked.connect(lambda _checked=False: on_click())
    return made


def icon_button(icon: str, name: str, on_click: Callable[[], object]) -> QToolButton:
    """A button with a picture only; `name` is its tool tip and what a screen reader says."""
    made = QToolButton()
    made.setProperty("flat", True)
    made.setAutoRaise(True)
    made.setToolTip(name)
    made.setAccessibleName(name)
    made.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    made.clicked.connect(lambda _checked=False: on_click())
    tinted(made, icon)
    return made


def tinted(target: QPushButton | QToolButton, icon: str, *, on_accent: bool = False) -> None:
    """Keep a button's picture in the scheme's colours."""

    def paint() -> None:
        scheme = theme().colours
        target.setIcon(icons.icon(icon, scheme.on_accent if on_accent else scheme.text))

    height = target.fontMetrics().height()
    side = round(height * 1.15)
    target.setIconSize(QSize(side, side))
    theme().paint_with(target, paint)


def badge(text: str, tone: Tone) -> QLabel:
    """A small framed word."""
    made = label(text)
    made.setProperty("badge", tone.value)
    made.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    return made


def rule() -> QFrame:
    """A thin line."""
    made = QFrame()
    made.setProperty("rule", True)
    return made


def row(*items: QWidget | None, spacing: int = 8) -> QHBoxLayout:
    """Lay widgets side by side; None is stretch."""
    made = QHBoxLayout()
    made.setContentsMargins(0, 0, 0, 0)
    made.setSpacing(spacing)
    _fill(made, items)
    return made


def column(*items: QWidget | None, spacing: int = 8) -> QVBoxLayout:
    """Lay widgets below each other; None is stretch."""
    made = QVBoxLayout()
    made.setContentsMargins(0, 0, 0, 0)
    made.setSpacing(spacing)
    _fill(made, items)
    return made


def _fill(layout: QBoxLayout, items: tuple[QWidget | None, ...]) -> None:
    for item in items:
        if item is None:
            layout.addStretch(1)
        else:
            layout.addWidget(item)


class Card(QFrame):
    """A framed surface with an optional title; clickable if it leads somewhere."""

    def __init__(self, title: str = "", on_click: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.setProperty("card", True)
        self._on_click = on_click
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(18, 14, 18, 16)
        self.body.setSpacing(8)
        self.title = label(title, "caption")
        self.title.setVisible(bool(title))
        self.body.addWidget(self.title)
        if title:
            self.setAccessibleName(title)
        if on_click is not None:
            self.setProperty("clickable", True)
            self.setCursor(Qt.CursorShape.PointingHandCursor)
            self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Follow the card's link."""
        super().mouseReleaseEvent(event)
        if self._on_click is not None and self.rect().contains(event.position().toPoint()):
            self._on_click()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Follow the card's link by keyboard."""
        if self._on_click is not None and event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space}:
            self._on_click()
            return
        super().keyPressEvent(event)


class CopyField(QWidget):
    """A value that can be selected and copied whole; shown shortened if asked."""

    def __init__(self, name: str, shorten: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self._value = ""
        self._shorten = shorten
        self._name = name
        self.shown = label(role="mono", selectable=True)
        self.shown.setAccessibleName(name)
        self.copy_button = icon_button("copy", self.tr("Copy {name}").format(name=name), self.copy)
        layout = row(self.shown, self.copy_button, spacing=4)
        layout.addStretch(1)
        self.setLayout(layout)
        self.setFocusProxy(self.copy_button)

    def show_value(self, value: str) -> None:
        """Show a value; empty is unknown."""
        self._value = value
        set_text(self.shown, (self._shorten(value) if self._shorten else value) if value else "–")
        self.shown.setToolTip(value)
        self.shown.setAccessibleDescription(value)
        self.copy_button.setEnabled(bool(value))

    def copy(self) -> None:
        """Put the whole value on the clipboard."""
        QGuiApplication.clipboard().setText(self._value)


class ElidedLabel(QLabel):
    """One line that gives way: what does not fit is cut with an ellipsis; the tool tip and screen readers have it all."""

    def __init__(self, role: str = "") -> None:
        super().__init__()
        self._full = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        if role:
            self.setProperty("role", role)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def show_text(self, text: str) -> None:
        """Show this text."""
        if text != self._full:
            self._full = text
            self.setToolTip(text)
            self.setAccessibleName(text)
            self._cut()

    @property
    def full_text(self) -> str:
        """The whole text."""
        return self._full

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Cut anew for the new width."""
        super().resizeEvent(event)
        self._cut()

    def _cut(self) -> None:
        self.setText(self.fontMetrics().elidedText(self._full, Qt.TextElideMode.ElideRight, max(self.width() - 2, 20)))


class EmptyState(QWidget):
    """What stands where rows will be: what is missing and what to do next."""

    def __init__(self, icon: str, title: str, sentence: str, action: QPushButton | None = None) -> None:
        super().__init__()
        self._icon = icon
        self._picture = QLabel()
        self._picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.title = label(title, "title")
        self.title.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.sentence = label(sentence, "muted", wrap=True)
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.sentence.setMaximumWidth(self.fontMetrics().averageCharWidth() * 64)
        layout = column(None, self._picture, self.title, spacing=10)
        # Not aligned itself: an aligned label keeps the width of its hint, and wraps into more lines than it has room for.
        centred = row(None, self.sentence, None)
        centred.setStretch(1, 100)
        layout.addLayout(centred)
        if action is not None:
            layout.addWidget(action, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(2)
        self.setLayout(layout)
        theme().paint_with(self, self._paint)

    def _paint(self) -> None:
        self._picture.setPixmap(icons.pixmap(self._icon, 44, self.devicePixelRatioF(), theme().colours.muted))


def reveal(shown: QWidget, editor: QWidget) -> None:
    """Scroll to a widget of a page, and give the focus to what is edited there."""
    above = shown.parentWidget()
    while above is not None and not isinstance(above, QScrollArea):
        above = above.parentWidget()
    if above is not None:
        content = above.widget()
        layout = content.layout() if content is not None else None
        if layout is not None:
            layout.activate()
        above.ensureWidgetVisible(shown, 0, shown.height())
    editor.setFocus(Qt.FocusReason.OtherFocusReason)


def scroll_page(content: QWidget) -> QScrollArea:
    """Let a page scroll up and down when the window is small or the text is large."""
    content.setObjectName("page")
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(content)
    return area
