"""Load the texts of the user's language; English plurals come from a file too."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QLibraryInfo, QLocale, QTranslator

from fabstir_desktop.ui.resources import resource_dir
from fabstir_desktop.ui.say import forget


def install_translations(app: QCoreApplication, locale: QLocale | None = None) -> list[QTranslator]:
    """Install ours, and Qt's own for its dialogs. Keep what is returned: Qt does not."""
    forget()
    chosen = locale or QLocale()
    installed = []
    places = (
        ("fabstir_desktop", str(resource_dir() / "translations")),
        ("qtbase", QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)),
    )
    for name, folder in places:
        translator = QTranslator(app)
        if translator.load(chosen, name, "_", folder) or (
            name == "fabstir_desktop" and translator.load(f"{name}_en", folder)
        ):
            app.installTranslator(translator)
            installed.append(translator)
    return installed
