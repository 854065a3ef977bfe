"""All text goes through tr(); English plurals come from the compiled file that is committed."""

from __future__ import annotations

import re
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QLocale
from PySide6.QtWidgets import QApplication

import fabstir_desktop.ui
from fabstir_desktop.ui.resources import resource_dir
from fabstir_desktop.ui.translation import install_translations

UI = Path(fabstir_desktop.ui.__file__).parent


def test_plurals_are_whole_words_in_english_and_for_languages_without_a_translation(qapp: QApplication) -> None:
    for locale in (QLocale("en_GB"), QLocale("tlh")):
        installed = install_translations(qapp, locale)
        try:
            shown = [QCoreApplication.translate("Leaving", "%n claim(s) on the way", "", n) for n in (1, 2)]
        finally:
            for translator in installed:
                qapp.removeTranslator(translator)
        assert shown == ["1 claim on the way", "2 claims on the way"]


def test_every_plural_of_the_sources_is_in_the_english_file() -> None:
    written = (resource_dir() / "translations" / "fabstir_desktop_en.ts").read_text(encoding="utf-8")
    used = {
        text
        for file in UI.rglob("*.py")
        for text in re.findall(r'tr\("([^"]*%n[^"]*)"', file.read_text(encoding="utf-8"))
    }
    assert used
    assert [text for text in sorted(used) if f"<source>{text}</source>" not in written] == []
    assert "unfinished" not in written


def test_widgets_are_given_text_through_tr_only() -> None:
    """A literal with letters handed to a widget is a text nobody can translate."""
    makers = "label|button|Card|EmptyState|setText|setToolTip|setWindowTitle|setPlaceholderText"
    direct = re.compile(rf'(?<!\w)(?:{makers})\(\s*"[^"]*[A-Za-z]{{3}}')
    allowed = re.compile(r'EmptyState\(\s*"[a-z]+"$')
    found = [
        f"{file.name}: {match.group(0)}"
        for file in UI.rglob("*.py")
        for match in direct.finditer(file.read_text(encoding="utf-8"))
        if not allowed.match(match.group(0) + '"')
    ]
    assert found == []
