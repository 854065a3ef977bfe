"""Reads a virtual screen as far as a test needs: where the lines of a menu are, and whether a colour is in a place."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtGui import QColor, QImage

Place = tuple[int, int, int, int]
"""Left, top, width, height on the screen."""
_INK = 60
_LINE_GAP = 4
_FRAME = 4


def _distance(one: QColor, other: QColor) -> int:
    return max(abs(one.red() - other.red()), abs(one.green() - other.green()), abs(one.blue() - other.blue()))


def line_centres(picture: Path, place: Place) -> list[int]:
    """The heights on the screen of the middles of all text lines in the place, top to bottom; rules are no lines."""
    left, top, width, height = place
    image = QImage(str(picture)).copy(left, top, width, height)
    paper = image.pixelColor(_FRAME, _FRAME)
    columns = range(_FRAME, width - _FRAME, 1)
    bands: list[list[int]] = []
    for y in range(_FRAME, height - _FRAME):
        ink = sum(_distance(image.pixelColor(x, y), paper) > _INK for x in columns)
        if not 0 < ink < len(columns) * 0.8:
            continue
        if bands and y - bands[-1][-1] < _LINE_GAP:
            bands[-1].append(y)
        else:
            bands.append([y])
    return [top + (band[0] + band[-1]) // 2 for band in bands if len(band) > _LINE_GAP]


def has_colour(picture: Path, place: Place, colour: QColor, pixels: int = 8) -> bool:
    """Whether at least so many pixels of the place are of (nearly) this colour."""
    left, top, width, height = place
    image = QImage(str(picture)).copy(left, top, width, height)
    found = 0
    for y in range(height):
        for x in range(width):
            if _distance(image.pixelColor(x, y), colour) < 12:
                found += 1
                if found >= pixels:
                    return True
    return False
