"""Colours and fonts: a calm palette, one accent, light and dark as the system says.

On Fusion (Linux) the palette is ours; native styles keep their own, and what we draw ourselves is derived from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import shiboken6
from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

from fabstir_desktop.ui.stylesheet import write_stylesheet
from fabstir_desktop.ui.words import Tone

_LIGHT = {"window": "#f4f6f7", "card": "#ffffff", "text": "#1a2026", "accent": "#0b6e69", "on_accent": "#ffffff"}
_DARK = {"window": "#14181b", "card": "#1d2327", "text": "#e6eaed", "accent": "#43c5b5", "on_accent": "#06231f"}
_LIGHT_TONES = {
    Tone.OK: "#0b6e4f",
    Tone.BUSY: "#1f5fbf",
    Tone.QUIET: "#55606b",
    Tone.WARNING: "#8a5300",
    Tone.ERROR: "#b3261e",
}
_DARK_TONES = {
    Tone.OK: "#5fd3a4",
    Tone.BUSY: "#8ab8ff",
    Tone.QUIET: "#a3adb7",
    Tone.WARNING: "#f0b95b",
    Tone.ERROR: "#ff8f85",
}


@dataclass(frozen=True, slots=True)
class Colours:
    """What is drawn by us, in one scheme."""

    is_dark: bool
    window: QColor
    card: QColor
    text: QColor
    muted: QColor
    line: QColor
    hover: QColor
    accent: QColor
    on_accent: QColor
    tones: dict[Tone, QColor]

    def second(self) -> QColor:
        """The second colour of the plot, told from the accent by its hatching too."""
        return self.tones[Tone.BUSY]

    def wash(self, tone: Tone) -> QColor:
        """A quiet background in the tone's colour."""
        return blend(self.tones[tone], self.card, 0.14 if self.is_dark else 0.09)


def blend(over: QColor, under: QColor, share: float) -> QColor:
    """Mix two opaque colours; `share` of the first."""
    mixed = [round(a * share + b * (1 - share)) for a, b in zip(over.getRgb()[:3], under.getRgb()[:3], strict=True)]  # type: ignore[index]
    return QColor(*mixed)


def contrast(first: QColor, second: QColor) -> float:
    """Contrast ratio as WCAG defines it, 1 to 21."""

    def luminance(colour: QColor) -> float:
        parts = [
            value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4
            for value in (colour.redF(), colour.greenF(), colour.blueF())
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    brighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def derive_colours(palette: QPalette) -> Colours:
    """Take window, card and text from the palette; everything else follows."""
    window, card, text = palette.window().color(), palette.base().color(), palette.text().color()
    is_dark = window.lightness() < 128
    source = _DARK if is_dark else _LIGHT
    tones = _DARK_TONES if is_dark else _LIGHT_TONES
    return Colours(
        is_dark=is_dark,
        window=window,
        card=card,
        text=text,
        muted=blend(text, card, 0.66),
        line=blend(text, window, 0.13),
        hover=blend(text, window, 0.06),
        accent=QColor(source["accent"]),
        on_accent=QColor(source["on_accent"]),
        tones={tone: QColor(name) for tone, name in tones.items()},
    )


def fusion_palette(*, dark: bool) -> QPalette:
    """The palette for Fusion, which has none of its own worth trusting with money."""
    source = _DARK if dark else _LIGHT
    window, card, text = QColor(source["window"]), QColor(source["card"]), QColor(source["text"])
    accent, on_accent = QColor(source["accent"]), QColor(source["on_accent"])
    palette = QPalette(card if dark else window, window)
    faint = blend(text, window, 0.45)
    for group in (QPalette.ColorGroup.Active, QPalette.ColorGroup.Inactive, QPalette.ColorGroup.Disabled):
        written = faint if group is QPalette.ColorGroup.Disabled else text
        for role in (QPalette.ColorRole.Text, QPalette.ColorRole.WindowText, QPalette.ColorRole.ButtonText):
            palette.setColor(group, role, written)
        palette.setColor(group, QPalette.ColorRole.Window, window)
        palette.setColor(group, QPalette.ColorRole.Base, card)
        palette.setColor(group, QPalette.ColorRole.AlternateBase, blend(text, card, 0.03))
        palette.setColor(group, QPalette.ColorRole.Button, blend(text, card, 0.05) if dark else card)
        palette.setColor(group, QPalette.ColorRole.ToolTipBase, card)
        palette.setColor(group, QPalette.ColorRole.ToolTipText, text)
        palette.setColor(group, QPalette.ColorRole.PlaceholderText, blend(text, card, 0.55))
        palette.setColor(group, QPalette.ColorRole.Highlight, accent)
        palette.setColor(group, QPalette.ColorRole.HighlightedText, on_accent)
        palette.setColor(group, QPalette.ColorRole.Accent, accent)
        palette.setColor(group, QPalette.ColorRole.Link, accent)
    return palette


class Theme(QObject):
    """Keeps the application's look in step with the system's scheme; `changed` tells those who paint themselves."""

    changed = Signal()

    def __init__(self, app: QApplication, appearance: str = "system") -> None:
        super().__init__(app)
        self._app = app
        self._appearance = appearance
        # Asked before the style sheet is set: it hides the style's name.
        self._is_fusion = app.style().name() == "fusion"
        self._base_size = app.font().pointSizeF()
        self._painters: list[tuple[QObject, Callable[[], None]]] = []
        self.colours = derive_colours(app.palette())
        QGuiApplication.styleHints().colorSchemeChanged.connect(self.apply)
        self.apply()

    def choose(self, appearance: str) -> None:
        """Follow the system (`system`) or stay `light` or `dark`."""
        self._appearance = appearance
        self.apply()

    def apply(self) -> None:
        """Set palette, fonts and style sheet anew."""
        dark = self._wants_dark()
        if self._is_fusion:
            self._app.setPalette(fusion_palette(dark=dark))
        self.colours = derive_colours(self._app.palette())
        font = self._app.font()
        font.setFeature(QFont.Tag("tnum"), 1)
        self._app.setFont(font)
        self._app.setStyleSheet(write_stylesheet(self.colours, self._base_size))
        self._forget_gone()
        for _, paint in self._painters:
            paint()
        self.changed.emit()

    def paint_with(self, owner: QObject, paint: Callable[[], None]) -> None:
        """Call `paint` now and at every change, as long as `owner` lives."""
        self._forget_gone()
        self._painters.append((owner, paint))
        paint()

    def _forget_gone(self) -> None:
        self._painters = [(owner, paint) for owner, paint in self._painters if shiboken6.isValid(owner)]

    def _wants_dark(self) -> bool:
        if self._appearance in {"light", "dark"}:
            return self._appearance == "dark"
        return QGuiApplication.styleHints().colorScheme() is Qt.ColorScheme.Dark


def theme() -> Theme:
    """The application's theme; made on first use (tests, single widgets)."""
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        raise RuntimeError("a QApplication must exist first")
    return app.findChild(Theme) or Theme(app)


def colours() -> Colours:
    """The colours in use now."""
    return theme().colours
