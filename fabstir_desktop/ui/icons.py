"""SVG pictures in the colours of the scheme, sharp at every scale."""

from __future__ import annotations

import sys
from functools import lru_cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from fabstir_desktop.ui.resources import resource_dir
from fabstir_desktop.ui.theme import Colours, colours
from fabstir_desktop.ui.words import Tone, TrayShape, shape_tone

_SIZES = (16, 20, 24, 32, 48, 64)
_TRAY_SIZES = (16, 22, 24, 32, 44, 48, 64)
# Panels have their own theme, which need not be the application's: these tints are told apart on light and on dark.
_TRAY_TINTS = {
    False: {Tone.OK: "#0e8a63", Tone.QUIET: "#66707a", Tone.WARNING: "#c77700", Tone.ERROR: "#d1352b"},
    True: {Tone.OK: "#4fd1a1", Tone.QUIET: "#b4bdc6", Tone.WARNING: "#f2b23c", Tone.ERROR: "#ff6f65"},
}


@lru_cache(maxsize=128)
def _source(name: str) -> str:
    return (resource_dir() / "icons" / f"{name}.svg").read_text(encoding="utf-8")


def _render(svg: str, pixels: int) -> QPixmap:
    pixmap = QPixmap(pixels, pixels)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    QSvgRenderer(QByteArray(svg.encode())).render(painter, QRectF(0, 0, pixels, pixels))
    painter.end()
    return pixmap


@lru_cache(maxsize=256)
def _icon(name: str, colour: str, disabled: str) -> QIcon:
    icon = QIcon()
    for mode, tint in ((QIcon.Mode.Normal, colour), (QIcon.Mode.Disabled, disabled)):
        svg = _source(name).replace("currentColor", tint)
        for size in _SIZES:
            icon.addPixmap(_render(svg, size), mode)
    return icon


def icon(name: str, colour: QColor | None = None) -> QIcon:
    """The picture `name` in `colour` (by default the text's)."""
    scheme = colours()
    return _icon(name, (colour or scheme.text).name(), scheme.line.name())


def pixmap(name: str, size: int, ratio: float, colour: QColor | None = None) -> QPixmap:
    """The picture as a pixmap of `size` logical pixels on a screen of this ratio."""
    tint = (colour or colours().text).name()
    drawn = _render(_source(name).replace("currentColor", tint), round(size * ratio))
    drawn.setDevicePixelRatio(ratio)
    return drawn


def app_icon() -> QIcon:
    """The application's mark."""
    made = QIcon()
    for size in (*_SIZES, 128, 256):
        made.addPixmap(_render(_source("fabstir-desktop"), size))
    return made


@lru_cache(maxsize=64)
def _tray_icon(shape: TrayShape, *, dark_panel: bool, template: bool) -> QIcon:
    tints = _TRAY_TINTS[dark_panel]
    mark = "#000000" if template else tints[shape_tone(shape)]
    if shape in {TrayShape.ATTENTION, TrayShape.ERROR} and not template:
        mark = tints[Tone.QUIET]
    hole = "#ffffff" if template or not dark_panel else "#14181b"
    badge = "#000000" if template else tints[shape_tone(shape)]
    svg = _source(f"tray-{shape.value}")
    svg = svg.replace("currentColor", mark).replace("badgeColor", badge).replace("holeColor", hole)
    made = QIcon()
    for size in _TRAY_SIZES:
        made.addPixmap(_render(svg, size))
    made.setIsMask(template)
    return made


def tray_icon(shape: TrayShape, *, dark_panel: bool, template: bool = sys.platform == "darwin") -> QIcon:
    """The tray's picture: shape says the state, tint helps. A template is black only, for the macOS menu bar."""
    return _tray_icon(shape, dark_panel=dark_panel, template=template)


def tone_icon_name(tone: Tone) -> str:
    """The picture that goes with a tone."""
    return {Tone.OK: "check", Tone.BUSY: "refresh", Tone.QUIET: "info", Tone.WARNING: "warning", Tone.ERROR: "error"}[
        tone
    ]


def tone_icon(tone: Tone, scheme: Colours | None = None) -> QIcon:
    """That picture in the tone's colour."""
    return icon(tone_icon_name(tone), (scheme or colours()).tones[tone])
