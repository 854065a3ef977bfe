"""Colours can be read, states are told apart without them, and every picture exists."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication

from fabstir_desktop.ui import icons
from fabstir_desktop.ui.resources import resource_dir
from fabstir_desktop.ui.theme import contrast, derive_colours, fusion_palette, theme
from fabstir_desktop.ui.widgets.lamp import Lamp
from fabstir_desktop.ui.words import Tone, TrayShape


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_colour_reaches_the_contrast_for_text(dark: bool) -> None:
    colours = derive_colours(fusion_palette(dark=dark))
    assert colours.is_dark is dark
    for background in (colours.window, colours.card):
        for text in (colours.text, colours.muted, *colours.tones.values()):
            assert contrast(text, background) >= 4.5, (text.name(), background.name())
    assert contrast(colours.on_accent, colours.accent) >= 4.5
    for tone, text in colours.tones.items():
        assert contrast(text, colours.wash(tone)) >= 4.5, tone


def _without_colour(image: QImage) -> list[int]:
    """Each pixel's opacity and brightness in a few steps."""
    return [
        (image.pixelColor(x, y).alpha() // 64) * 8 + image.pixelColor(x, y).lightness() // 64
        for y in range(image.height())
        for x in range(image.width())
    ]


@pytest.mark.parametrize("template", [False, True])
def test_tray_shapes_are_told_apart_without_colour_at_16_pixels(qapp: QApplication, template: bool) -> None:
    drawn = {
        shape: icons.tray_icon(shape, dark_panel=False, template=template).pixmap(16, 16).toImage()
        for shape in TrayShape
    }
    for first, second in combinations(TrayShape, 2):
        alpha = [
            abs(drawn[first].pixelColor(x, y).alpha() - drawn[second].pixelColor(x, y).alpha()) > 90
            for x in range(16)
            for y in range(16)
        ]
        assert sum(alpha) >= 8, (first, second)


def test_the_macos_template_is_a_mask_of_black_only(qapp: QApplication) -> None:
    made = icons.tray_icon(TrayShape.SERVING, dark_panel=False, template=True)
    image = made.pixmap(22, 22).toImage()
    assert made.isMask()
    assert all(
        image.pixelColor(x, y).lightness() == 0
        for x in range(22)
        for y in range(22)
        if image.pixelColor(x, y).alpha() == 255
    )


def test_lamps_are_told_apart_without_colour(qapp: QApplication) -> None:
    drawn = {}
    for tone in Tone:
        lamp = Lamp(tone, scale=1.5)
        lamp.resize(lamp.sizeHint())
        drawn[tone] = _without_colour(lamp.grab().toImage())
    assert len({tuple(pixels) for pixels in drawn.values()}) == len(Tone)


def test_every_picture_that_the_code_names_exists() -> None:
    sources = Path(icons.__file__).parent.rglob("*.py")
    named = {
        name
        for file in sources
        for name in re.findall(
            r'(?:icon="|EmptyState\(\s*"|icon_button\(\s*"|tinted\(\w+, ")([a-z-]+)"', file.read_text()
        )
    }
    assert {"copy", "close", "checkpoint", "jobs"} <= named
    missing = [name for name in sorted(named) if not (resource_dir() / "icons" / f"{name}.svg").exists()]
    assert missing == []


def test_choosing_dark_changes_the_colours_and_choosing_light_changes_them_back(qapp: QApplication) -> None:
    look = theme()
    look.choose("dark")
    assert look.colours.is_dark
    look.choose("light")
    assert not look.colours.is_dark
    look.choose("system")
